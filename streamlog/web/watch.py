"""Changes of a table as they are committed, read from its changelog: the topic that the table is a fold of.

So watching needs no worker, costs workers nothing, and goes on while partitions move. A value that changes several
times between two commits is seen once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from streamlog.client.consumer import Consumer
from streamlog.client.partitioner import partition_for_key
from streamlog.client.values import TopicPartition
from streamlog.env import Env
from streamlog.state.windowed import MARK_KEY
from streamlog.state.windows import split_row_key
from streamlog.web.answers import TableInfo

FETCH_MS = 1_000


class RawChange(NamedTuple):
    """One row that was written (or, without a value, deleted)."""

    key: bytes
    value: bytes | None
    start_ms: int | None
    """Of the window; None in tables without."""
    timestamp_ms: int
    partition: int
    offset: int


async def watch_changelog(
    bootstrap: str | Sequence[str],
    env: Env,
    info: TableInfo,
    *,
    key: bytes | None = None,
    prefix: bytes = b"",
    from_beginning: bool = False,
    ready: asyncio.Event | None = None,
) -> AsyncIterator[list[RawChange]]:
    """Changes from now on, for ever; with `from_beginning` first what led to the present rows.

    Args:   key, prefix: only this key, only keys that begin so.
            ready: set when every change from then on will be seen.
    Raises: KafkaError, EnvironmentFailure: the brokers. Closing the iterator disconnects.
    """
    async with Consumer(
        bootstrap, env=env, client_id="streamlog-watch", isolation_level="read_committed", auto_offset_reset="earliest"
    ) as consumer:
        partitions = await consumer.partitions_for(info.changelog)
        if key is not None and info.kind != "source":  # producers of a topic may place keys as they like
            home = TopicPartition(info.changelog, partition_for_key(key, len(partitions)))
            partitions = [one for one in partitions if one == home]
        ends = {} if from_beginning else await consumer.end_offsets(partitions)
        consumer.assign(partitions)
        for one, end in ends.items():
            consumer.seek(one, end)
        if ready is not None:
            ready.set()
        windowed = info.window_size_ms is not None
        while True:
            changes: list[RawChange] = []
            for batch in await consumer.fetch(timeout_ms=FETCH_MS):
                for offset, timestamp_ms, row_key, value, _ in batch.columns.rows():
                    if row_key is None or (windowed and row_key == MARK_KEY):
                        continue
                    found, start_ms = split_row_key(row_key) if windowed else (row_key, None)
                    if found.startswith(prefix) and (key is None or found == key):
                        changes.append(RawChange(found, value, start_ms, timestamp_ms, batch.partition, offset))
            if changes:
                yield changes
