"""One segment of a partition: a `.log` file of whole batches and the indexes derived from it.

Only the last segment of a partition, the active one, grows. The indexes of the active one live in memory and are
written behind; those of the others are read when first needed and dropped again by `release`, as is the open
file. Every index can be rebuilt from the log, and is, when it is missing or says something that the log does not.

Bytes below `verified_from` were written by an earlier process. They are checked against their checksums whenever
they are served: a flipped bit on disk must be found here and not by a consumer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from streamlog.broker.log.file_names import (
    INDEX_SUFFIX,
    LOG_SUFFIX,
    SEGMENT_SUFFIXES,
    TIME_INDEX_SUFFIX,
    TRANSACTION_INDEX_SUFFIX,
    file_name,
)
from streamlog.broker.log.offset_index import RELATIVE_OFFSET_MAX, OffsetIndex
from streamlog.broker.log.time_index import NO_TIMESTAMP, TimeIndex
from streamlog.broker.log.transaction_index import AbortedTransaction, decode_aborted
from streamlog.broker.log.walk import walk_batches, walk_headers
from streamlog.env import Buffer, File, Storage
from streamlog.errors import EnvironmentFailure
from streamlog.wire.records import BatchHeader, CorruptBatch, NeedMoreData, iter_batch_headers, verify_crc

INDEX_WRITE_ENTRIES = 64
"""Index entries collected before they are written: one small write per 256 KiB of log instead of two per batch.
What a crash loses of them, recovery walks over."""

OFFSET_MAX = 2**63 - 1

POSITION_MAX = 2**31 - 1
"""Positions are 32-bit in the index, as in Kafka: no segment may grow beyond."""


class DamagedLog(EnvironmentFailure):
    """Bytes of a partition are not what was written. Nothing is served and nothing is cut; the message says where."""


class Segment:
    __slots__ = (
        "_aborted",
        "_aborted_persisted",
        "_close_wanted",
        "_file",
        "_first_timestamp_ms",
        "_next_offset",
        "_offset_index",
        "_pins",
        "_storage",
        "_suffix",
        "_time_index",
        "base_offset",
        "bytes_since_index",
        "directory",
        "end_offset_max",
        "index_interval_bytes",
        "max_timestamp_ms",
        "max_timestamp_offset",
        "opened_at_ms",
        "size_bytes",
        "used",
        "verified_from",
    )

    def __init__(
        self,
        storage: Storage,
        directory: str,
        base_offset: int,
        *,
        index_interval_bytes: int,
        now_ms: int,
        create: bool = False,
        suffix: str = "",
    ) -> None:
        self._storage = storage
        self._suffix = suffix  # ".cleaned" while compaction writes it, else empty
        self.directory = directory
        self.base_offset = base_offset
        self.index_interval_bytes = index_interval_bytes
        self.opened_at_ms = now_ms
        self._file: File | None = storage.open_file(self.path(LOG_SUFFIX), create=create)
        self.size_bytes = self._file.size()  # whole batches only, once the partition is open
        self._next_offset = base_offset if self.size_bytes == 0 else -1  # -1: not yet looked up
        fresh = create and self.size_bytes == 0
        self._offset_index: OffsetIndex | None = OffsetIndex(base_offset) if fresh else None  # None: not in memory
        self._time_index: TimeIndex | None = TimeIndex(base_offset) if fresh else None
        self._aborted: list[AbortedTransaction] | None = [] if fresh else None
        self._aborted_persisted = 0
        self.bytes_since_index = 0
        self.max_timestamp_ms = NO_TIMESTAMP  # valid once the time index is in memory
        self.max_timestamp_offset = base_offset  # last offset of the batch that brought it
        self._first_timestamp_ms: int | None = None  # max timestamp of the first batch; None: not yet read
        self.verified_from = self.size_bytes
        self.end_offset_max = OFFSET_MAX  # where the next segment begins; SegmentList says
        self._pins = 0  # flushes in threads that use the file now
        self._close_wanted = False
        self.used = True  # since the last `release`

    def path(self, suffix: str) -> str:
        return f"{self.directory}/{file_name(self.base_offset, suffix)}{self._suffix}"

    # --- the log file ---

    @property
    def file(self) -> File:
        self.used = True
        if self._file is None:
            self._file = self._storage.open_file(self.path(LOG_SUFFIX))
        return self._file

    def pin(self) -> File:
        """The file, kept open until `unpin` whatever happens to the segment meanwhile."""
        self._pins += 1
        return self.file

    def unpin(self) -> None:
        self._pins -= 1
        if self._pins == 0 and self._close_wanted:
            self._close_file()

    def _close_file(self) -> None:
        self._close_wanted = self._pins > 0
        if not self._close_wanted and self._file is not None:
            self._file.close()
            self._file = None

    # --- growing ---

    def write(self, data: Buffer) -> None:
        """Put whole batches at the end of the file; `note_batch` has to follow for each. Raises OSError.

        After an error the file may hold a part of them: `size_bytes` still says where the good bytes end.
        """
        self.file.append(data)

    def note_batch(self, size_bytes: int, last_offset: int, max_timestamp_ms: int) -> None:
        """Account for one batch that now stands at `size_bytes`, in memory and in the indexes."""
        position = self.size_bytes
        if max_timestamp_ms > self.max_timestamp_ms:
            self.max_timestamp_ms = max_timestamp_ms
            self.max_timestamp_offset = last_offset
        if position == 0:
            self._first_timestamp_ms = max_timestamp_ms
        if self.bytes_since_index > self.index_interval_bytes:
            self._note_index_entry(position, last_offset)
        self.bytes_since_index += size_bytes
        self.size_bytes = position + size_bytes
        self._next_offset = last_offset + 1

    def _note_index_entry(self, position: int, last_offset: int) -> None:
        offset_index = self.offset_index
        offset_index.append(last_offset, position)
        self.time_index.maybe_append(self.max_timestamp_ms, self.max_timestamp_offset)
        self.bytes_since_index = 0
        if len(offset_index) - offset_index.persisted_count >= INDEX_WRITE_ENTRIES:
            # The batch is in the log already. An index that cannot be written now (disk full) is written later.
            with suppress(OSError):
                self.write_indexes()

    def write_indexes(self) -> None:
        """Bring the index files up to what is in memory. Not synced. Raises OSError; may be called again then."""
        if self._aborted is not None and self._aborted_persisted < len(self._aborted):
            data = b"".join(entry.encode() for entry in self._aborted[self._aborted_persisted :])
            self._write_at(TRANSACTION_INDEX_SUFFIX, data, self._aborted_persisted * 34)
            self._aborted_persisted = len(self._aborted)
        if self._offset_index is not None and self._offset_index.persisted_count < len(self._offset_index):
            first = self._offset_index.persisted_count
            self._write_at(INDEX_SUFFIX, self._offset_index.encode_from(first), first * 8)
            self._offset_index.persisted_count = len(self._offset_index)
        if self._time_index is not None and self._time_index.persisted_count < len(self._time_index):
            first = self._time_index.persisted_count
            self._write_at(TIME_INDEX_SUFFIX, self._time_index.encode_from(first), first * 12)
            self._time_index.persisted_count = len(self._time_index)

    def finish(self) -> None:
        """Write what a closed segment has on disk: complete indexes, the largest timestamp as last entry.

        A checkpoint asks the same of the active segment, which may be closed before the next one.
        """
        self._load_indexes()
        self.time_index.maybe_append(self.max_timestamp_ms, self.max_timestamp_offset)
        self.write_indexes()
        # An index file that is not there means a lost one; so an empty index has a file too.
        for suffix in (INDEX_SUFFIX, TIME_INDEX_SUFFIX, TRANSACTION_INDEX_SUFFIX):
            self._storage.open_file(self.path(suffix), create=True).close()

    def _write_at(self, suffix: str, data: bytes, position: int) -> None:
        file = self._storage.open_file(self.path(suffix), create=True)
        try:
            if file.size() > position:
                file.truncate(position)
            file.pwrite(data, position)
        finally:
            file.close()

    def add_aborted(self, aborted: AbortedTransaction) -> None:
        """Note a transaction whose abort marker was just added to this segment."""
        self.aborted.append(aborted)

    def truncate_to_position(self, position: int, next_offset: int) -> None:
        """Cut the log and its indexes so that the segment ends at `position`, a batch boundary."""
        self._load_indexes()
        offset_index, time_index, aborted = self.offset_index, self.time_index, self.aborted
        self.file.truncate(position)
        self.size_bytes = position
        self.verified_from = min(self.verified_from, position)
        self._next_offset = next_offset
        if offset_index.truncate_to_position(position):
            self._cut_file(INDEX_SUFFIX, offset_index.persisted_count * 8)
        if time_index.truncate_to_offset(next_offset):
            self._cut_file(TIME_INDEX_SUFFIX, time_index.persisted_count * 12)
        keep = sum(entry.last_offset < next_offset for entry in aborted)
        if keep < len(aborted):
            del aborted[keep:]
            self._aborted_persisted = min(self._aborted_persisted, keep)
            self._cut_file(TRANSACTION_INDEX_SUFFIX, self._aborted_persisted * 34)
        if position == 0:
            self._first_timestamp_ms = None
        self._catch_up()

    def _cut_file(self, suffix: str, size_bytes: int) -> None:
        file = self._storage.open_file(self.path(suffix), create=True)
        try:
            file.truncate(size_bytes)
        finally:
            file.close()

    # --- the indexes ---

    @property
    def offset_index(self) -> OffsetIndex:
        if self._offset_index is None:
            self._load_indexes()
        assert self._offset_index is not None, "loading leaves an index in memory"
        return self._offset_index

    @property
    def time_index(self) -> TimeIndex:
        if self._time_index is None:
            self._load_indexes()
        assert self._time_index is not None, "loading leaves an index in memory"
        return self._time_index

    @property
    def aborted(self) -> list[AbortedTransaction]:
        """Aborted transactions whose marker is in this segment. Raises LookupError: rebuild the index first."""
        if self._aborted is None:
            data = self._read(TRANSACTION_INDEX_SUFFIX) if self.size_bytes else b""
            entries = None if data is None else decode_aborted(data, self.base_offset, self.next_offset)
            if entries is None:
                raise LookupError(f"{self.path(TRANSACTION_INDEX_SUFFIX)} is missing or damaged")
            self._aborted, self._aborted_persisted = entries, len(entries)
        return self._aborted

    def aborted_before_recovery(self, recovery_point: int) -> list[AbortedTransaction] | None:
        """Entries of the file below the recovery point; None when it is missing or damaged."""
        data = self._read(TRANSACTION_INDEX_SUFFIX)
        entries = None if data is None else decode_aborted(data, self.base_offset, OFFSET_MAX)
        return None if entries is None else [entry for entry in entries if entry.last_offset < recovery_point]

    def replace_aborted(self, entries: list[AbortedTransaction]) -> None:
        """Set the whole transaction index, in memory and on disk."""
        self._aborted, self._aborted_persisted = list(entries), 0
        self._cut_file(TRANSACTION_INDEX_SUFFIX, 0)
        self.write_indexes()

    def _read(self, suffix: str) -> bytes | None:
        path = self.path(suffix)
        return self._storage.read_bytes(path) if self._storage.exists(path) else None

    def _load_indexes(self) -> None:
        if self._offset_index is not None and self._time_index is not None:
            return
        index_data, time_data = self._read(INDEX_SUFFIX), self._read(TIME_INDEX_SUFFIX)
        offset_index = None if index_data is None else OffsetIndex.decode(self.base_offset, index_data, self.size_bytes)
        time_index = None if time_data is None else TimeIndex.decode(self.base_offset, time_data)
        if offset_index is None or time_index is None or self._looks_lost(offset_index, time_index):
            self.rebuild_indexes()
            return
        self._offset_index, self._time_index = offset_index, time_index
        self.max_timestamp_ms, self.max_timestamp_offset = time_index.last()
        if not self._last_entries_hold(offset_index, time_index):
            self.rebuild_indexes()

    def _last_entries_hold(self, offset_index: OffsetIndex, time_index: TimeIndex) -> bool:
        """Whether the batches that the last entries name are there, as the entries say."""
        if len(offset_index):
            last_offset, position = offset_index.entry(len(offset_index) - 1)
            if not self._starts_batch(position, last_offset):
                return False
        return len(time_index) == 0 or self._brought(*time_index.last())

    def _brought(self, timestamp_ms: int, offset: int) -> bool:
        """Whether the batch that ends with `offset` is as new as `timestamp_ms`: what a time index entry claims."""
        _, header = self.locate(offset)
        return header is not None and header.last_offset == offset and header.max_timestamp_ms == timestamp_ms

    def search_from(self, timestamp_ms: int) -> int:
        """An offset such that no record of this segment before it is as new as `timestamp_ms`."""
        for _ in range(2):
            entry = self.time_index.floor(timestamp_ms)
            if entry is None:
                return self.base_offset
            if self._brought(*entry):
                return entry[1]
            self.rebuild_indexes()
        raise DamagedLog(f"{self.path(TIME_INDEX_SUFFIX)} contradicts its log even after it was rebuilt")

    def _looks_lost(self, offset_index: OffsetIndex, time_index: TimeIndex) -> bool:
        """Empty index files of a log that is not: a crash kept the names and lost the bytes.

        A false alarm (no record has a timestamp, one huge batch) costs a short walk.
        """
        if self.size_bytes == 0:
            return False
        return len(time_index) == 0 or (len(offset_index) == 0 and self.size_bytes > self.index_interval_bytes)

    def rebuild_indexes(self) -> None:
        """Derive both indexes from the log again and write them. Raises DamagedLog."""
        end_position = self.size_bytes
        self._offset_index, self._time_index = OffsetIndex(self.base_offset), TimeIndex(self.base_offset)
        self._start_walk(0, self.base_offset)
        limit = self.base_offset + RELATIVE_OFFSET_MAX
        try:
            for position, header in walk_headers(self.file, 0, end_position):
                if not self._next_offset <= header.base_offset <= header.last_offset <= limit:
                    raise CorruptBatch(f"the batch at byte {position} has offset {header.base_offset}")
                self.note_batch(header.size_bytes, header.last_offset, header.max_timestamp_ms)
        except CorruptBatch as error:
            self.size_bytes = end_position
            self._offset_index = self._time_index = None
            raise self.damage(error) from error
        self._cut_file(INDEX_SUFFIX, 0)
        self._cut_file(TIME_INDEX_SUFFIX, 0)
        self._offset_index.persisted_count = self._time_index.persisted_count = 0
        self.finish()

    def resume(self) -> None:
        """Take up appending to a segment that was closed cleanly. Raises DamagedLog if it ends inside a batch."""
        self._load_indexes()
        try:
            self._catch_up()
        except (CorruptBatch, NeedMoreData) as error:
            raise self.damage(error) from error

    def _catch_up(self) -> None:
        """Derive from the batches behind the last index entry what `note_batch` keeps: end, distance, newest."""
        start = self.offset_index.floor_position(self.size_bytes)
        self.max_timestamp_ms, self.max_timestamp_offset = self.time_index.last()
        self.bytes_since_index = self.size_bytes - start
        for _, header in walk_headers(self.file, start, self.size_bytes):
            self._next_offset = header.next_offset
            if header.max_timestamp_ms > self.max_timestamp_ms:
                self.max_timestamp_ms, self.max_timestamp_offset = header.max_timestamp_ms, header.last_offset

    def _start_walk(self, position: int, next_offset: int) -> None:
        """Forget what lies behind `position`, so that `note_batch` can tell it again."""
        self.size_bytes = position
        self._next_offset = next_offset
        self.bytes_since_index = 0
        self.max_timestamp_ms, self.max_timestamp_offset = self.time_index.last()

    def rewind_for_recovery(self, offset: int) -> int:
        """Prepare to be walked again from a batch that ends before `offset`: returns its position.

        Index entries from that batch on are dropped, in memory and in the files; the log itself stays as it is.
        Indexes that contradict the log are dropped whole, and the walk starts at the first byte.
        """
        self._load_indexes_before_recovery()
        last_offset, position = self.offset_index.floor(offset - 1) or (self.base_offset, 0)
        if not self._starts_batch(position, last_offset):
            position = 0
        base_offset = self._header_at(position).base_offset if position else self.base_offset
        if self.offset_index.truncate_to_position(position):
            self._cut_file(INDEX_SUFFIX, self.offset_index.persisted_count * 8)
        if self.time_index.truncate_to_offset(base_offset):
            self._cut_file(TIME_INDEX_SUFFIX, self.time_index.persisted_count * 12)
        self._start_walk(position, base_offset)
        # An entry is due at exactly the batch where the walk starts: that is where it stood.
        self.bytes_since_index = self.index_interval_bytes + 1 if position else 0
        return position

    def _load_indexes_before_recovery(self) -> None:
        """Like `_load_indexes`, but the end of the log may be torn, so nothing is rebuilt from it yet."""
        index_data, time_data = self._read(INDEX_SUFFIX) or b"", self._read(TIME_INDEX_SUFFIX) or b""
        offset_index = OffsetIndex.decode(self.base_offset, index_data, POSITION_MAX)
        time_index = TimeIndex.decode(self.base_offset, time_data)
        if offset_index is None or time_index is None or (len(offset_index) and not len(time_index)):
            self._cut_file(INDEX_SUFFIX, 0)
            self._cut_file(TIME_INDEX_SUFFIX, 0)
            offset_index, time_index = OffsetIndex(self.base_offset), TimeIndex(self.base_offset)
        self._offset_index, self._time_index = offset_index, time_index

    def _starts_batch(self, position: int, last_offset: int) -> bool:
        try:
            return self._header_at(position).last_offset == last_offset
        except (CorruptBatch, NeedMoreData):
            return False

    def _header_at(self, position: int) -> BatchHeader:
        for _, header in islice(walk_headers(self.file, position, self.file.size()), 1):
            return header
        raise CorruptBatch(f"{self.path(LOG_SUFFIX)} has no batch at {position}")

    # --- finding ---

    @property
    def next_offset(self) -> int:
        """The offset after this segment's last batch."""
        if self._next_offset < 0:
            try:
                for _, header in walk_headers(self.file, self._last_indexed_position(), self.size_bytes):
                    self._next_offset = header.next_offset
            except CorruptBatch as error:
                raise self.damage(error) from error
        return self._next_offset

    def _last_indexed_position(self) -> int:
        """Where the last indexed batch starts, without loading the whole index."""
        if self._offset_index is not None:
            return self._offset_index.floor_position(self.size_bytes)
        path = self.path(INDEX_SUFFIX)
        if not self._storage.exists(path):
            return 0
        file = self._storage.open_file(path)
        try:
            size_bytes = file.size()
            tail = file.pread(8, size_bytes - 8) if size_bytes >= 8 and size_bytes % 8 == 0 else b""
        finally:
            file.close()
        index = OffsetIndex.decode(self.base_offset, tail, self.size_bytes)
        if index is None or len(index) == 0:
            return 0
        last_offset, position = index.entry(0)
        return position if self._starts_batch(position, last_offset) else 0

    @property
    def largest_timestamp_ms(self) -> int:
        """The newest timestamp of any batch; -1 when there is none."""
        self._load_indexes()
        return self.max_timestamp_ms

    @property
    def first_timestamp_ms(self) -> int:
        """Timestamp of the first batch, from which `segment.ms` counts; -1 when empty."""
        if self._first_timestamp_ms is None:
            if self.size_bytes == 0:
                return NO_TIMESTAMP
            self._first_timestamp_ms = self._header_at(0).max_timestamp_ms
        return self._first_timestamp_ms

    def locate(self, offset: int) -> tuple[int, BatchHeader | None]:
        """Position and header of the first batch that ends at or after `offset`; (size, None) when none does."""
        for _ in range(2):
            floor = self.offset_index.floor(offset)
            try:
                return self._locate_from(floor, offset)
            except LookupError:
                self.rebuild_indexes()
            except CorruptBatch as error:
                raise self.damage(error) from error
        raise DamagedLog(f"{self.path(INDEX_SUFFIX)} contradicts its log even after it was rebuilt")

    def _locate_from(self, floor: tuple[int, int] | None, offset: int) -> tuple[int, BatchHeader | None]:
        start = floor[1] if floor is not None else 0
        for position, header in walk_headers(self.file, start, self.size_bytes):
            if position == start and floor is not None and header.last_offset != floor[0]:
                raise LookupError("the index names another batch")
            if header.last_offset >= offset:
                return position, header
        return self.size_bytes, None

    def end_before(self, position: int) -> int:
        """The offset after the batch that ends at `position`."""
        end_offset = self.base_offset
        start = self.offset_index.floor_position(position - 1) if position else 0
        try:
            for _, header in walk_headers(self.file, start, position):
                end_offset = header.next_offset
        except CorruptBatch as error:
            raise self.damage(error) from error
        return end_offset

    def batches_from(self, offset: int) -> Iterator[tuple[int, BatchHeader, memoryview]]:
        """(position, header, bytes) of each batch that ends at or after `offset`. Raises DamagedLog on the way.

        Bytes that an earlier process wrote are checked against their checksums.
        """
        position, _ = self.locate(offset)
        file = self.pin()
        least = self.base_offset
        try:
            for at, header, batch in walk_batches(file, position, self.size_bytes):
                if at < self.verified_from:
                    if not least <= header.base_offset < header.next_offset <= self.end_offset_max:
                        raise self.damage(f"the batch at byte {at} is out of order")
                    if not verify_crc(batch, 0, header):
                        raise self.damage(f"the batch at byte {at} fails its checksum")
                    least = header.next_offset
                yield at, header, batch
        except (CorruptBatch, NeedMoreData) as error:
            raise self.damage(error) from error
        finally:
            self.unpin()

    def read(self, position: int, size_bytes: int) -> bytes:
        """Bytes of the file from a batch's start; checked if an earlier process wrote them.

        Raises: DamagedLog, OSError.
        """
        data = self.file.pread(size_bytes, position)
        if len(data) < size_bytes:
            raise self.damage(f"{size_bytes} bytes were at {position}, {len(data)} are left")
        if position < self.verified_from:
            self._check(data, position)
        return data

    def _check(self, data: bytes, position: int) -> None:
        """Raise DamagedLog unless the whole batches in `data` are what was written.

        The checksum does not cover the base offset. So each batch has to fit between its neighbours, of which the
        first one's and the last one's are outside of `data`, and the last one of a segment before the next segment.
        """
        least = self.end_before(position)
        try:
            headers = iter_batch_headers(data)
            for at, header in headers:
                if header.base_offset < least or not verify_crc(data, at, header):
                    raise self.damage(f"the batch at byte {position + at} fails its checksum or its order")
                least = header.next_offset
            following = position + headers.valid_bytes
            limit = self.end_offset_max if following >= self.size_bytes else self._header_at(following).base_offset
            if limit < least:
                raise self.damage(f"the batch before byte {following} fails its order")
        except (CorruptBatch, NeedMoreData) as error:
            raise self.damage(error) from error

    def damage(self, what: object) -> DamagedLog:
        return DamagedLog(f"{self.path(LOG_SUFFIX)}: {what}")

    # --- leaving ---

    def release(self) -> None:
        """Close the file and drop the indexes, if nobody used them since the last call. They come back on demand."""
        if self.used:
            self.used = False
            return
        self._close_file()
        if self._offset_index is not None and self._offset_index.persisted_count == len(self._offset_index):
            self._offset_index = self._time_index = None

    def close(self) -> None:
        self._close_file()

    def existing_paths(self) -> list[str]:
        """Files of this segment that are there."""
        return [path for path in map(self.path, SEGMENT_SUFFIXES) if self._storage.exists(path)]

    def rename_files(self, suffix: str) -> list[str]:
        """Give every file of the segment this suffix behind its plain name, the log last; returns the new paths.

        The log goes last because its name is what makes the others count.
        """
        renamed: list[str] = []
        for kind in reversed(SEGMENT_SUFFIXES):
            source = self.path(kind)
            if self._storage.exists(source):
                target = f"{self.directory}/{file_name(self.base_offset, kind)}{suffix}"
                self._storage.rename(source, target)
                renamed.append(target)
        self._suffix = suffix
        return renamed
