"""What a crash has interrupted in a partition's directory: deletions and compaction's swaps, brought to their end.

    *.deleted      removed: they were on their way out
    *.cleaned      removed: compaction had not finished writing
    *.swap         compaction had finished: the segments it replaces are removed, then it gets its name
    *.tmp          removed: an atomic write that was not finished

The rules are Kafka's. Can itself be interrupted anywhere and begun again.
"""

from __future__ import annotations

from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.file_names import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    INDEX_SUFFIX,
    LOG_SUFFIX,
    SEGMENT_SUFFIXES,
    SWAP_SUFFIX,
    TIME_INDEX_SUFFIX,
    TRANSACTION_INDEX_SUFFIX,
    file_name,
    offsets_in,
)
from streamlog.broker.log.segment import Segment
from streamlog.env import Storage


def finish_interrupted(
    storage: Storage, directory: str, config: LogConfig, now_ms: int, names: list[str], finished: list[str]
) -> list[str]:
    """Bring deletions and compaction swaps to their end. `names` are in the directory; returns which are afterwards.

    What was brought to its end is added to `finished`.
    """
    for name in names:
        if name.endswith((DELETED_SUFFIX, CLEANED_SUFFIX, ".tmp")):
            storage.remove(f"{directory}/{name}")
            finished.append(name)
    for base_offset in offsets_in(names, LOG_SUFFIX + SWAP_SUFFIX):
        _finish_swap(storage, directory, config, base_offset, now_ms)
        finished.append(file_name(base_offset, LOG_SUFFIX + SWAP_SUFFIX))
    if finished:
        names = storage.list(directory)
    return storage.list(directory) if _remove_orphans(storage, directory, names) else names


def _remove_orphans(storage: Storage, directory: str, names: list[str]) -> bool:
    """Indexes whose log is gone, and swap indexes whose log never became a swap file: the log is renamed last.

    Says whether there were any.
    """
    removed = False
    logs = set(offsets_in(names, LOG_SUFFIX))
    for suffix in (INDEX_SUFFIX, TIME_INDEX_SUFFIX, TRANSACTION_INDEX_SUFFIX):
        orphans = [offset for offset in offsets_in(names, suffix) if offset not in logs]
        for base_offset in orphans:
            storage.remove(f"{directory}/{file_name(base_offset, suffix)}")
            removed = True
    for name in names:
        if name.endswith(SWAP_SUFFIX):
            storage.remove(f"{directory}/{name}")
            removed = True
    return removed


def _finish_swap(storage: Storage, directory: str, config: LogConfig, base_offset: int, now_ms: int) -> None:
    """Remove the segments that the swap file replaces, then rename it. The log's own name comes last."""
    swapped = Segment(
        storage,
        directory,
        base_offset,
        index_interval_bytes=config.index_interval_bytes,
        now_ms=now_ms,
        suffix=SWAP_SUFFIX,
    )
    end_offset = max(swapped.next_offset, base_offset + 1)
    swapped.close()
    for replaced in offsets_in(storage.list(directory), LOG_SUFFIX):
        if base_offset <= replaced < end_offset:
            for suffix in SEGMENT_SUFFIXES:
                path = f"{directory}/{file_name(replaced, suffix)}"
                if storage.exists(path):
                    storage.remove(path)
    swapped.rename_files("")
