"""Work for a thread that makes a stretch of a partition durable, prepared and concluded on the event loop.

Two kinds. A flush syncs the log files, and then acknowledgements that waited for the disk may go out. A checkpoint
syncs everything that recovery would otherwise have to derive again: logs, indexes, the epoch file, a producer
snapshot; then the recovery point may move. Both take what they need when they are prepared and touch nothing but
files while they run; the partition meanwhile goes on, and `generation` tells whether it was truncated under them.

A sync that fails is final. The kernel drops the pages it could not write and reports that once: trying again would
succeed and prove nothing. The partition goes offline. Only what a checkpoint writes anew each time may fail and be
tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from streamlog.broker.log.segment import Segment
from streamlog.env import File, Storage


class DerivedFileFailed(OSError):
    """The log is synced, and a file that recovery would otherwise derive could not be written: the disk is full."""


@dataclass(frozen=True, slots=True)
class FlushWork:
    """Sync these files; then everything below `end_offset` is on disk."""

    storage: Storage
    end_offset: int
    generation: int
    segments: Sequence[Segment]
    files: Sequence[File]
    """Of these segments, pinned: nobody closes them before the work is concluded."""
    paths: Sequence[str]
    """Other files that were written since the last time."""
    directories: Sequence[str]
    """Where names were created since the last time."""

    def run(self, synced: set[str] | None = None) -> None:
        """Blocks. Raises OSError. Passes over directories in `synced`, and adds those that it syncs."""
        synced = set() if synced is None else synced
        for file in self.files:
            file.fdatasync()
        for path in self.paths:
            sync_path(self.storage, path)
        for directory in self.directories:
            if directory not in synced:
                self.storage.sync_directory(directory)
                synced.add(directory)


def run_together(works: Iterable[FlushWork]) -> list[OSError | None]:
    """Run these one after the other; what became of each. The directory that they share is synced once. Blocks."""
    errors: list[OSError | None] = []
    synced: set[str] = set()
    for work in works:
        try:
            work.run(synced)
            errors.append(None)
        except OSError as error:
            errors.append(error)
    return errors


@dataclass(frozen=True, slots=True)
class CheckpointWork:
    """A flush, then the derived files; then `end_offset` may become the recovery point."""

    flush: FlushWork
    index_paths: Sequence[str]
    """Index files of the segments that grew; some may have been deleted meanwhile."""
    replaced_files: Sequence[tuple[str, bytes]]
    """Epoch file and producer snapshot."""
    stale_paths: Sequence[str]
    """Producer snapshots that the new one makes superfluous."""
    epoch_changes: int
    """Which state of the epochs the epoch file will hold."""
    appended_bytes: int
    """How much had been appended when this was prepared."""

    @property
    def end_offset(self) -> int:
        return self.flush.end_offset

    def run(self) -> None:
        """Blocks. Raises OSError; DerivedFileFailed when another attempt may succeed."""
        storage = self.flush.storage
        self.flush.run()
        for path in self.index_paths:
            sync_path(storage, path)
        try:
            for path, data in self.replaced_files:
                storage.write_atomic(path, data)
        except OSError as error:
            # Each attempt writes a new file, so no page of this one is ever trusted.
            raise DerivedFileFailed(error.errno, error.strerror, error.filename) from error
        for path in self.stale_paths:
            with suppress(FileNotFoundError):
                storage.remove(path)


def sync_path(storage: Storage, path: str) -> None:
    """Make a file durable that nobody holds open. One that is gone needs it no more."""
    with suppress(FileNotFoundError):
        file = storage.open_file(path)
        try:
            file.fdatasync()
        finally:
            file.close()
