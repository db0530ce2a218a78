"""What one fetch brought for one partition: raw batches, decoded when the application takes them.

A chunk covers the offsets from `start_offset` to `end_offset` (exclusive), whether or not a record is left at each:
compaction, control batches and aborted transactions leave gaps, and the position has to step over them. The next
fetch can begin at `end_offset` before a single record was decoded, which is what lets decoding and fetching overlap.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from streamlog.errors import RemoteProtocolError
from streamlog.wire.messages.fetch import AbortedTransaction
from streamlog.wire.records import (
    BatchHeader,
    ControlType,
    RecordColumns,
    decode_control_key,
    decode_records,
    iter_batch_headers,
)


class Chunk:
    """See the module's essay."""

    __slots__ = (
        "_aborted",
        "_batches",
        "_columns",
        "_data",
        "_taken",
        "end_offset",
        "leader_epoch",
        "size_bytes",
        "start_offset",
    )

    def __init__(self, data: memoryview, start_offset: int, aborted: Sequence[AbortedTransaction] | None) -> None:
        """Args:    aborted: transactions whose records are to be left out; None when everything is wanted.

        Raises: RemoteProtocolError when the data does not hold one whole batch at or after the offset.
        """
        self._data = data
        self._aborted = aborted
        self._batches: list[tuple[int, BatchHeader]] = [
            one for one in iter_batch_headers(data) if one[1].next_offset > start_offset
        ]
        if not self._batches:
            raise RemoteProtocolError(
                f"a fetch from offset {start_offset} brought {len(data)} bytes and no whole batch"
            )
        self._columns: RecordColumns | None = None  # decoded records, once somebody took some of them
        self._taken = 0  # records of _columns that are handed out
        last = self._batches[-1][1]
        self.size_bytes = len(data)
        self.start_offset = start_offset
        self.end_offset = last.next_offset
        self.leader_epoch = last.leader_epoch

    def take(self, records_max: int | None) -> tuple[RecordColumns, int]:
        """The next records, at most so many, and the offset behind them.

        When the chunk is used up that is its `end_offset`.
        Raises: CorruptBatch, RemoteProtocolError; nothing is taken then.
        """
        columns = self._columns
        if columns is None:
            columns = self._columns = self._decode()
        count = len(columns)
        if self._taken == 0 and (records_max is None or count <= records_max):
            self._taken = count
            return columns, self.end_offset
        start = self._taken
        end = count if records_max is None else min(start + records_max, count)
        self._taken = end
        part = columns.part(start, end)
        return part, self.end_offset if end == count else part.offsets[-1] + 1

    @property
    def used_up(self) -> bool:
        return self._columns is not None and self._taken == len(self._columns)

    def _decode(self) -> RecordColumns:
        aborted = _Aborted(self._aborted or ())
        whole: RecordColumns | None = None
        for position, header in self._batches:
            if header.is_control:
                if self._aborted is not None:
                    self._on_marker(position, header, aborted)
                continue
            if self._aborted is not None and header.is_transactional and aborted.covers(header):
                continue
            columns = decode_records(self._data, position, header)
            if header.base_offset < self.start_offset:
                _drop_before(columns, self.start_offset)
            if whole is None:
                whole = columns
            else:
                whole.offsets += columns.offsets
                whole.timestamps_ms += columns.timestamps_ms
                whole.keys += columns.keys
                whole.values += columns.values
                whole.headers += columns.headers
        return whole if whole is not None else RecordColumns([], [], [], [], [])

    def _on_marker(self, position: int, header: BatchHeader, aborted: _Aborted) -> None:
        columns = decode_records(self._data, position, header)
        if columns.keys and decode_control_key(columns.keys[0]).type == ControlType.ABORT:
            aborted.end(header.producer_id)


class _Aborted:
    """Which producers' transactional records are void at the offset that the walk has reached (KIP-98)."""

    def __init__(self, transactions: Sequence[AbortedTransaction]) -> None:
        self._ahead = sorted(transactions, key=lambda one: one.first_offset, reverse=True)  # next one last
        self._void: set[int] = set()  # producer ids inside an aborted transaction

    def covers(self, header: BatchHeader) -> bool:
        while self._ahead and self._ahead[-1].first_offset <= header.last_offset:
            self._void.add(self._ahead.pop().producer_id)
        return header.producer_id in self._void

    def end(self, producer_id: int) -> None:
        self._void.discard(producer_id)


def _drop_before(columns: RecordColumns, offset: int) -> None:
    """A fetch from the middle of a batch brings the whole batch."""
    count = bisect_left(columns.offsets, offset)
    for column in (columns.offsets, columns.timestamps_ms, columns.keys, columns.values, columns.headers):
        del column[:count]
