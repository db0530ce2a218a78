"""One partition's log: append at the end, read from anywhere, remember what the records imply.

    log start <= last stable offset <= high watermark <= log end
    recovery point <= flushed <= log end

Below the log start records are deleted. Below the high watermark they are replicated, and visible to consumers;
below the last stable offset no transaction is undecided, and read_committed consumers see them. Below `flushed_offset`
the log file is on disk; below `recovery_point` everything that is derived from it too. All ends are exclusive.

Everything here is synchronous, and reads and writes files inline: a write into the page cache costs less than
handing it to a thread. Only syncing blocks, so it is split into `begin_*`, a piece of work for a thread, and
`end_*` (flush.py); flusher.py drives it. Whoever waits for the log to grow or the high watermark to move puts a
callback into `on_append` or `on_high_watermark` (waiters.py).

A write that fails is undone by cutting the file to its last good end. If that fails too, or a sync fails, the
partition is offline: every call raises PartitionOffline until the broker starts again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

from streamlog.broker.log.appending import AppendResult, Origin, run_that_fits
from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.durability import Durability
from streamlog.broker.log.epochs import EpochCache
from streamlog.broker.log.file_names import DELETED_SUFFIX
from streamlog.broker.log.flush import CheckpointWork, DerivedFileFailed, FlushWork
from streamlog.broker.log.lookup import TimestampOffset, aborted_transactions, first_at_or_after, newest
from streamlog.broker.log.offset_index import RELATIVE_OFFSET_MAX
from streamlog.broker.log.producer_state import ProducerState, TransactionMarker
from streamlog.broker.log.reading import Limit, LogReader, ReadResult
from streamlog.broker.log.recovery import RecoveryReport, load
from streamlog.broker.log.refusal import AppendRefused, OffsetOutOfRange, PartitionOffline
from streamlog.broker.log.replay import aborted_of, rebuild_producers, remove_snapshots, snapshot_offsets
from streamlog.broker.log.rolling import RollPolicy
from streamlog.broker.log.segment import DamagedLog, Segment
from streamlog.broker.log.segments import SegmentList
from streamlog.broker.log.transaction_index import AbortedTransaction
from streamlog.broker.log.validate import (
    DECOMPRESSED_AT_ONCE_BYTES_MAX,
    PlacedBatch,
    PreparedBatch,
    check_client_batch,
    check_follows,
    check_size,
    decode_header,
    prepare,
    recompress,
    split_batches,
)
from streamlog.env import Buffer, Env
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.records import (
    BatchHeader,
    WritableBuffer,
    decode_batch_header,
    set_base_offset,
    set_leader_epoch,
    set_max_timestamp_and_append_time,
    set_place,
)

__all__ = ["AppendResult", "Origin", "PartitionLog", "ReadResult", "TimestampOffset"]


class PartitionLog:
    def __init__(
        self,
        env: Env,
        directory: str,
        config: LogConfig,
        segments: SegmentList,
        epochs: EpochCache,
        producers: ProducerState,
        report: RecoveryReport,
        *,
        log_start_offset: int,
        recovery_point: int,
        high_watermark: int,
        was_clean: bool,
    ) -> None:
        self._env = env
        self.directory = directory
        self.config = config
        self.segments = segments
        self.epochs = epochs
        self.producers = producers
        self.recovery_report = report
        self.log_start_offset = log_start_offset
        self.log_end_offset = segments.active.next_offset
        self.durability = Durability(
            env.storage, directory, self.log_end_offset, recovery_point, epochs_saved=was_clean
        )
        if not was_clean:
            # The process before us may have cut a failed append off again, and died before that was synced.
            self.durability.note_cut_back(segments.active.file.path)
        self._high_watermark = min(max(high_watermark, log_start_offset), self.log_end_offset)
        self.on_append: list[Callable[[], None]] = []
        """Called after each append and truncation, when `log_end_offset` has changed."""
        self.on_high_watermark: list[Callable[[], None]] = []
        """Called when `high_watermark`, and with it perhaps the last stable offset, has changed."""
        self.before_cut: Callable[[int], None] = _ignore
        """Called with an offset before anything below the recovery point is cut: it must be made durable as the
        partition's new recovery point first, or a crash would take the cut for damage."""
        self.doomed: list[tuple[int, str]] = []
        """(when to remove it in ms, path) of files that were renamed to .deleted."""
        self.failure: str | None = None
        """Why the partition is offline; None while it works."""
        self._rolling = RollPolicy(config, env.entropy)
        self._reader = LogReader(segments, self.log_end_offset)
        self.producers.on_high_watermark(self._high_watermark)
        self._tell_hooks(report, was_clean)

    def _tell_hooks(self, report: RecoveryReport, was_clean: bool) -> None:
        sometimes = self._env.hooks.sometimes
        if was_clean:
            sometimes("clean start")
        if report.walked_bytes:
            sometimes("recovery walked batches")
        if report.cut_bytes:
            sometimes("recovery cut a torn tail")
        if report.rebuilt:
            sometimes("derived file rebuilt")
        if report.finished:
            sometimes("interrupted file operation finished")

    @classmethod
    def open(
        cls,
        env: Env,
        directory: str,
        config: LogConfig,
        *,
        recovery_point: int = 0,
        log_start_offset: int = 0,
        high_watermark: int = 0,
        clean_shutdown: bool = False,
        may_have_gaps: bool | None = None,
        now_ms: int,
    ) -> PartitionLog:
        """Open the partition in `directory`, an existing directory; an empty one gives an empty log.

        Args:    recovery_point, log_start_offset, high_watermark: from the checkpoint files; 0 without them.
                 clean_shutdown: the last process closed this log; nothing is walked then.
                 may_have_gaps: the log is or was compacted; default: as the config says.
        Raises:  PartitionOffline: the log is damaged below the recovery point, or the disk fails.
        """
        try:
            loaded = load(
                env.storage,
                directory,
                config,
                recovery_point=recovery_point,
                log_start_offset=log_start_offset,
                clean_shutdown=clean_shutdown,
                may_have_gaps=config.compact if may_have_gaps is None else may_have_gaps,
                now_ms=now_ms,
            )
        except (DamagedLog, OSError) as error:
            raise PartitionOffline(f"{directory} cannot be opened: {error}") from error
        return cls(
            env,
            directory,
            config,
            loaded.segments,
            loaded.epochs,
            loaded.producers,
            loaded.report,
            log_start_offset=loaded.log_start_offset,
            recovery_point=recovery_point,
            high_watermark=high_watermark,
            was_clean=loaded.was_clean,
        )

    def close(self) -> None:
        """Leave nothing to recover: indexes and snapshot written, everything synced, files closed. Blocks.

        Afterwards `recovery_point` is the log end. Raises PartitionOffline.
        """
        if self.failure is None:
            work = self.begin_checkpoint()
            if work is not None:
                error: OSError | None = None
                try:
                    work.run()
                except OSError as caught:
                    error = caught
                self.end_checkpoint(work, error)
        self.abandon()

    def abandon(self) -> None:
        """Close the files and leave everything else to recovery."""
        for segment in self.segments:
            segment.close()

    # --- where the log stands ---

    @property
    def active(self) -> Segment:
        return self.segments.active

    @property
    def size_bytes(self) -> int:
        return self.segments.size_bytes

    @property
    def leader_epoch(self) -> int:
        """The latest leader epoch in the log; -1 while there is none."""
        return self.epochs.latest

    @property
    def high_watermark(self) -> int:
        return self._high_watermark

    @high_watermark.setter
    def high_watermark(self, offset: int) -> None:
        """Set by replication; kept within the log."""
        offset = min(max(offset, self.log_start_offset), self.log_end_offset)
        if offset != self._high_watermark:
            self._high_watermark = offset
            self.producers.on_high_watermark(offset)
            for callback in self.on_high_watermark:
                callback()

    @property
    def last_stable_offset(self) -> int:
        first_unstable = self.producers.first_unstable_offset
        return self._high_watermark if first_unstable is None else min(first_unstable, self._high_watermark)

    @property
    def flushed_offset(self) -> int:
        """Everything below is on disk (durability.py)."""
        return self.durability.flushed_offset

    @property
    def recovery_point(self) -> int:
        """Everything below is on disk, with all that is derived from it."""
        return self.durability.recovery_point

    @property
    def generation(self) -> int:
        """Changes with each truncation."""
        return self.durability.generation

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether a restart would have much to walk."""
        return self.durability.is_checkpoint_due and self.failure is None

    def update_config(self, config: LogConfig) -> None:
        """The topic's configs changed; they count from the next append on."""
        self.config = config
        self._rolling.set_config(config)
        for segment in self.segments:
            segment.index_interval_bytes = config.index_interval_bytes

    # --- appending ---

    def append(
        self,
        batches: WritableBuffer,
        *,
        leader_epoch: int,
        now_ms: int,
        origin: Origin = Origin.CLIENT,
        prepared: PreparedBatch | None = None,
    ) -> AppendResult:
        """Add record batches to the end of the log; `batches` is patched in place and not kept.

        From a client exactly one batch; offsets and `leader_epoch` are written into it. From a replica whole batches
        with both already in them, perhaps with a torn one behind, which is ignored.

        Raises: AppendRefused: nothing was appended. PartitionOffline: the disk failed; nothing became visible.
        JudgeInThread: to be given to `prepare` in a thread first, and then here again with what came of it.
        """
        if self.failure is not None:
            raise PartitionOffline(self.failure)
        if origin is Origin.CLIENT:
            return self._append_from_client(batches, leader_epoch, now_ms, prepared)
        if origin is Origin.REPLICA:
            return self._append_from_leader(batches, now_ms)
        return self._append_from_coordinator(batches, leader_epoch, now_ms)

    def prepare(self, batches: WritableBuffer, now_ms: int) -> PreparedBatch:
        """Judge a client's batch that is large when decompressed. For a thread. Raises AppendRefused."""
        return prepare(batches, self.config, now_ms)

    def _append_from_client(
        self, batches: WritableBuffer, leader_epoch: int, now_ms: int, prepared: PreparedBatch | None
    ) -> AppendResult:
        config = self.config
        if prepared is None:
            header = decode_header(batches)
            header = check_client_batch(batches, header, config, now_ms, DECOMPRESSED_AT_ONCE_BYTES_MAX)
        else:
            batches, header = prepared
        if header.producer_id >= 0:
            duplicate = self.producers.check(header)
            if duplicate is not None:
                self._env.hooks.sometimes("duplicate batch recognised")
                self.producers.entries[header.producer_id].silent_since_ms = None
                return AppendResult(
                    duplicate.base_offset, duplicate.last_offset, -1, self.log_start_offset, is_duplicate=True
                )
        if config.compression is not None and header.compression is not config.compression:
            batches = recompress(batches, header, config)
            header = decode_header(batches)
            check_size(len(batches), config)
        return self._append_one(batches, header, leader_epoch, now_ms)

    def _append_from_coordinator(self, batches: WritableBuffer, leader_epoch: int, now_ms: int) -> AppendResult:
        view = memoryview(batches)
        offset = self.log_end_offset
        for batch in split_batches(view):
            check_size(batch.header.size_bytes, self.config)
            if batch.header.producer_id >= 0:
                self.producers.check_coordinator(batch.header, batch.marker)
            set_base_offset(view, batch.position, offset)
            set_leader_epoch(view, batch.position, leader_epoch)
            if self.config.log_append_time:
                set_max_timestamp_and_append_time(view, batch.position, now_ms)
            offset += batch.header.last_offset_delta + 1
        placed = split_batches(view)
        if not placed:
            raise AppendRefused(ErrorCode.INVALID_RECORD, "there is no batch to append")
        return self._append_placed(view, placed, now_ms)

    def append_from_leader(self, batches: Buffer, leader_log_start_offset: int, now_ms: int) -> AppendResult:
        """Add what a fetch from the log's end has brought, as it is: offsets, leader epochs and all. A torn batch at
        the end is left out.

        Raises: AppendRefused: nothing was appended. PartitionOffline: the disk failed.
        """
        if self.failure is not None:
            raise PartitionOffline(self.failure)
        return self._append_from_leader(batches, now_ms, leader_log_start_offset)

    def _append_from_leader(self, batches: Buffer, now_ms: int, leader_log_start_offset: int = 0) -> AppendResult:
        view = memoryview(batches)
        placed = split_batches(view, torn_tail_allowed=True)
        if placed and self.log_start_offset == self.log_end_offset:
            first = placed[0].header
            if first.base_offset < self.log_end_offset <= first.last_offset:
                # DeleteRecords has put the leader's log start into the middle of a batch, and we begin there.
                self.truncate_fully_and_start_at(first.base_offset, now_ms)
                result = self._append_from_leader(batches, now_ms)
                self.advance_log_start(leader_log_start_offset)
                return result
        check_follows(view, placed, self.log_end_offset)
        return self._append_placed(view, placed, now_ms)

    def _append_one(self, batch: WritableBuffer, header: BatchHeader, leader_epoch: int, now_ms: int) -> AppendResult:
        """Give the batch its place and write it."""
        base_offset = self.log_end_offset
        last_offset = base_offset + header.last_offset_delta
        size_bytes = len(batch)
        append_time_ms = -1
        max_timestamp_ms = header.max_timestamp_ms
        if self.config.log_append_time:
            append_time_ms = max_timestamp_ms = now_ms
            set_max_timestamp_and_append_time(batch, 0, now_ms)
        set_place(batch, base_offset, header.batch_length_bytes, leader_epoch)
        segment = self._segment_for(size_bytes, last_offset, max_timestamp_ms, now_ms)
        self._write(segment, batch)
        self._reader.note(segment.size_bytes, last_offset)
        segment.note_batch(size_bytes, last_offset, max_timestamp_ms)
        self.log_end_offset = last_offset + 1
        self.durability.appended_bytes += size_bytes
        if leader_epoch != self.epochs.latest:
            self.epochs.assign(leader_epoch, base_offset)
        if header.producer_id >= 0:
            self._fold(decode_batch_header(batch), None)
        else:
            self.producers.end_offset = last_offset + 1
        for callback in self.on_append:
            callback()
        return AppendResult(base_offset, last_offset, append_time_ms, self.log_start_offset, is_duplicate=False)

    def _append_placed(self, view: memoryview, placed: list[PlacedBatch], now_ms: int) -> AppendResult:
        """Write batches that have their offsets already, with one write for as many as fit the active segment."""
        append_time_ms = now_ms if self.config.log_append_time else -1
        first_offset = last_offset = self.log_end_offset - 1
        if placed:
            first_offset, last_offset = placed[0].header.base_offset, placed[-1].header.last_offset
        start = 0
        try:
            while start < len(placed):
                position, header, _ = placed[start]
                segment = self._segment_for(header.size_bytes, header.last_offset, header.max_timestamp_ms, now_ms)
                stop, end_position = run_that_fits(segment, placed, start, self.config.segment_bytes)
                self._write(segment, view[position:end_position])
                for batch in placed[start:stop]:
                    self._note_placed(segment, batch)
                start = stop
        finally:
            if start:
                self._tell_appended()
        return AppendResult(first_offset, last_offset, append_time_ms, self.log_start_offset, is_duplicate=False)

    def _note_placed(self, segment: Segment, batch: PlacedBatch) -> None:
        header = batch.header
        self._reader.note(segment.size_bytes, header.last_offset)
        segment.note_batch(header.size_bytes, header.last_offset, header.max_timestamp_ms)
        self.log_end_offset = header.next_offset
        self.durability.appended_bytes += header.size_bytes
        if header.leader_epoch != self.epochs.latest:
            self.epochs.assign(header.leader_epoch, header.base_offset)
        if header.producer_id >= 0:
            self._fold(header, batch.marker)
        else:
            self.producers.end_offset = header.next_offset

    def _fold(self, header: BatchHeader, marker: TransactionMarker | None) -> None:
        """Tell the producer state about a batch that now stands in the log."""
        aborted = self.producers.apply(header, marker)
        if aborted is not None:
            self.active.add_aborted(aborted)

    def _tell_appended(self) -> None:
        for callback in self.on_append:
            callback()

    def _write(self, segment: Segment, data: Buffer) -> None:
        try:
            segment.write(data)
        except OSError as error:
            self._env.hooks.sometimes("append undone")
            try:
                segment.file.truncate(segment.size_bytes)
            except OSError as undo_error:
                self._fail(f"{segment.file.path} could not be written ({error}) nor cut back ({undo_error})")
            self.durability.note_cut_back(segment.file.path)
            raise PartitionOffline(f"{segment.file.path} could not be written: {error}") from error

    def _fail(self, reason: str) -> NoReturn:
        self.failure = reason
        raise PartitionOffline(reason)

    # --- segments ---

    def _segment_for(self, size_bytes: int, last_offset: int, max_timestamp_ms: int, now_ms: int) -> Segment:
        """The active segment, or a new one if the batch must not go there."""
        active = self.segments.active
        if self._rolling.has_room(active, size_bytes, last_offset, max_timestamp_ms, now_ms):
            return active
        self.roll(now_ms, at_offset=max(self.log_end_offset, last_offset - RELATIVE_OFFSET_MAX))
        return self.segments.active

    def roll(self, now_ms: int, *, at_offset: int | None = None) -> None:
        """Close the active segment and begin one at the log end. An empty active segment is left as it is.

        A producer snapshot is put at the start of the new one, not synced: a checkpoint does that later.
        Raises PartitionOffline; the old segment is still active then.
        """
        old = self.segments.active
        base_offset = self.log_end_offset if at_offset is None else at_offset
        if base_offset == old.base_offset:
            return
        try:
            old.finish()
            self._write_snapshot()
            # Last: its file must not be there when the old segment stays active and grows beyond that offset.
            new = self._new_segment(base_offset, now_ms)
        except OSError as error:
            raise PartitionOffline(f"{self.directory}: a new segment could not be begun: {error}") from error
        self._env.hooks.sometimes("segment rolled")
        self.segments.add(new)
        self._reader.start_tail(self.log_end_offset)
        self._rolling.draw_age()

    def _new_segment(self, base_offset: int, now_ms: int) -> Segment:
        self.durability.note_new_names()
        return Segment(
            self._env.storage,
            self.directory,
            base_offset,
            index_interval_bytes=self.config.index_interval_bytes,
            now_ms=now_ms,
            create=True,
        )

    def _write_snapshot(self) -> None:
        """Producer state at the log end. Torn by a crash, it fails its checksum and an older one is used."""
        path = self.durability.snapshot_path(self.log_end_offset)
        file = self._env.storage.open_file(path, create=True)
        try:
            file.truncate(0)
            file.append(self.producers.encode_snapshot())
        finally:
            file.close()

    # --- reading ---

    def read(
        self, start_offset: int, bytes_max: int, *, end_offset: int, at_least_one_batch: bool = True
    ) -> ReadResult:
        """Whole batches from the one that holds `start_offset`, up to `end_offset` and `bytes_max`.

        Args:    end_offset: exclusive limit: the high watermark, the last stable offset or the log end.
                 at_least_one_batch: return the first batch even if it is larger than `bytes_max`.
        Raises:  OffsetOutOfRange: below the log start or beyond the log end. PartitionOffline: damaged bytes, or the
                 disk failed; other stretches of the log may still be readable.
        """
        log_end_offset = self.log_end_offset
        if not self.log_start_offset <= start_offset <= log_end_offset:
            raise OffsetOutOfRange(
                f"offset {start_offset} is not within [{self.log_start_offset}, {log_end_offset}] of {self.directory}"
            )
        if start_offset >= end_offset or start_offset == log_end_offset:
            return ReadResult(b"", start_offset)
        try:
            limit = Limit(end_offset, end_offset >= log_end_offset)
            return self._reader.read(start_offset, bytes_max, limit, at_least_one_batch)
        except (DamagedLog, OSError) as error:
            raise PartitionOffline(str(error)) from error

    # --- looking up ---

    def offset_for_timestamp(self, timestamp_ms: int, *, end_offset: int | None = None) -> TimestampOffset | None:
        """The first record below `end_offset` that is at least as new as `timestamp_ms`; None when there is none."""
        try:
            found = first_at_or_after(self.segments, timestamp_ms, self.log_start_offset)
        except (DamagedLog, OSError) as error:
            raise PartitionOffline(str(error)) from error
        limit = self.log_end_offset if end_offset is None else end_offset
        return found if found is not None and found.offset < limit else None

    def max_timestamp(self) -> TimestampOffset | None:
        """The newest record, the first of them if several are equally new; None in a log without timestamps."""
        try:
            return newest(self.segments, self.log_start_offset)
        except (DamagedLog, OSError) as error:
            raise PartitionOffline(str(error)) from error

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """(greatest epoch known here not above `epoch`, its exclusive end); (-1, -1) when unknown (KIP-101)."""
        return self.epochs.end_offset_for(epoch, self.log_end_offset)

    def aborted_transactions(self, start_offset: int, end_offset: int) -> list[AbortedTransaction]:
        """Aborted transactions that have records in [start_offset, end_offset), for a read_committed fetch."""
        try:
            return aborted_transactions(self._env.storage, self.directory, self.segments, start_offset, end_offset)
        except (DamagedLog, OSError) as error:
            raise PartitionOffline(str(error)) from error

    # --- cutting at the end ---

    def truncate_to(self, offset: int, now_ms: int) -> bool:
        """Remove records at and after `offset`, and a batch that spans it. Says whether anything was removed.

        Blocks for a few milliseconds: the cut is synced before anything is appended behind it. Otherwise a power cut
        could leave old bytes in front of new ones, each sound, and this replica would differ from its leader for good.
        """
        if offset >= self.log_end_offset:
            self.epochs.truncate_from_end(offset)  # one without a record contradicts nobody, and means nothing
            return False
        try:
            if offset <= self.log_start_offset:
                self.truncate_fully_and_start_at(offset, now_ms)
                return True
            number = self.segments.number_at(offset)
            segment = self.segments[number]
            aborted_of(self._env.storage, self.directory, self.segments, number)
            position, header = segment.locate(offset)
            if header is not None and header.base_offset < self.log_start_offset:
                self.truncate_fully_and_start_at(self.log_start_offset, now_ms)
                return True
            end_offset = segment.end_before(position)
            self._lower_recovery_point(end_offset)
            while self.segments.active is not segment:
                self._discard(self.segments.active, now_ms)
            self._env.storage.sync_directory(self.directory)
            segment.truncate_to_position(position, end_offset)
            segment.file.fdatasync()
            self._after_cut()
        except (DamagedLog, OSError) as error:
            self._fail(f"{self.directory} could not be truncated to {offset}: {error}")
        return True

    def _after_cut(self) -> None:
        """The active segment has become shorter: everything that follows from the batches follows."""
        end_offset = self.log_end_offset = self.segments.active.next_offset
        self.epochs.truncate_from_end(end_offset)
        remove_snapshots(self._env.storage, self.directory, above=end_offset)
        self.producers = rebuild_producers(self._env.storage, self.directory, self.segments, end_offset)
        self._reader.forget(end_offset)
        self.producers.on_high_watermark(self._high_watermark)
        self.high_watermark = self._high_watermark
        self._tell_appended()

    def _lower_recovery_point(self, offset: int) -> None:
        if offset < self.recovery_point:
            self.before_cut(offset)
        self.durability.on_cut(offset)

    def truncate_fully_and_start_at(self, offset: int, now_ms: int) -> None:
        """Throw everything away and begin anew at `offset`: this replica is too far behind its leader's log start."""
        try:
            # Promise nothing: until the directory is synced, a power cut may leave all of the old log, some or none.
            self._lower_recovery_point(0)
            for segment in reversed(list(self.segments)):
                self._discard(segment, now_ms)
            self.segments.add(self._new_segment(offset, now_ms))
            self._env.storage.sync_directory(self.directory)
            for snapshot in snapshot_offsets(self._env.storage, self.directory):
                self._env.storage.remove(self.durability.snapshot_path(snapshot))
            self.log_start_offset = self.log_end_offset = self._high_watermark = offset
            self.epochs.clear()
            self._after_cut()
        except (DamagedLog, OSError) as error:
            self._fail(f"{self.directory} could not be emptied: {error}")

    def _discard(self, segment: Segment, now_ms: int) -> None:
        """Take a segment out of the log; its files wait as .deleted."""
        segment.close()
        self.segments.remove(segment)
        self.doom(segment.rename_files(DELETED_SUFFIX), now_ms)
        self.durability.note_new_names()

    def doom(self, paths: Sequence[str], now_ms: int) -> None:
        """These files, renamed to .deleted, are to be removed after file.delete.delay.ms."""
        remove_at_ms = now_ms + self.config.file_delete_delay_ms
        self.doomed.extend((remove_at_ms, path) for path in paths)

    # --- cutting at the start ---

    def delete_records_before(self, offset: int) -> int:
        """Move the log start up to `offset`, at most to the high watermark; -1 means the high watermark.

        Returns the log start. Segments that lie wholly below it are deleted by `delete_old_segments`.
        Raises OffsetOutOfRange: above the high watermark.
        """
        if offset == -1:
            offset = self._high_watermark
        if offset > self._high_watermark or offset < 0:
            raise OffsetOutOfRange(f"offset {offset} is not within [0, {self._high_watermark}] of {self.directory}")
        self.advance_log_start(offset)
        return self.log_start_offset

    def advance_log_start(self, offset: int) -> None:
        """A follower learns its leader's log start, or retention moved ours."""
        if offset > self.log_start_offset:
            self.log_start_offset = min(offset, self.log_end_offset)
            self.epochs.truncate_from_start(self.log_start_offset)
            if self._high_watermark < self.log_start_offset:
                self.high_watermark = self.log_start_offset

    def delete_segments(self, segments: Sequence[Segment], now_ms: int) -> None:
        """Delete the oldest segments, which are the first of the log and not the active one."""
        assert list(segments) == list(self.segments)[: len(segments)], "retention deletes from the start"
        assert self.segments.active not in segments, "the active segment is rolled before it is deleted"
        if not segments:
            return
        for segment in segments:
            self._discard(segment, now_ms)
        base_offset = self.segments[0].base_offset
        for snapshot in snapshot_offsets(self._env.storage, self.directory):
            if snapshot < base_offset:
                self._env.storage.remove(self.durability.snapshot_path(snapshot))
        self.advance_log_start(base_offset)
        self._reader.forget_cursors()

    def replace_segments(self, old: list[Segment], new: Segment) -> None:
        """Compaction's last step in memory: readers find the cleaned segment from now on."""
        self.segments.replace(old, new)
        self._reader.forget_cursors()

    # --- durability ---

    def begin_flush(self) -> FlushWork | None:
        """What a thread has to do so that everything appended so far is on disk; None when it is.

        Raises PartitionOffline: a sync has failed before, and another one would prove nothing.
        """
        if self.failure is not None:
            raise PartitionOffline(self.failure)
        return self.durability.begin_flush(self.segments, self.log_end_offset)

    def end_flush(self, work: FlushWork, error: OSError | None) -> None:
        """Conclude a flush. An error takes the partition offline, for good: PartitionOffline."""
        for segment in work.segments:
            segment.unpin()
        if error is not None or self.failure is not None:
            self._env.hooks.sometimes("sync failed")
            self._fail(self.failure or f"{self.directory} could not be synced: {error}")
        self.durability.end_flush(work)

    def begin_checkpoint(self) -> CheckpointWork | None:
        """What a thread has to do so that recovery may start at the log end; None when it already may.

        Raises PartitionOffline: an index could not be written; the recovery point stays where it is.
        """
        if self.failure is not None:
            raise PartitionOffline(self.failure)
        try:
            return self.durability.begin_checkpoint(self.segments, self.epochs, self.producers, self.log_end_offset)
        except OSError as error:
            raise PartitionOffline(f"{self.directory}: no checkpoint could be made: {error}") from error

    def end_checkpoint(self, work: CheckpointWork, error: OSError | None) -> None:
        """Conclude a checkpoint; `recovery_point` has moved and is to be recorded. Raises PartitionOffline.

        After DerivedFileFailed the log is flushed, and the recovery point stays where it is.
        """
        if isinstance(error, DerivedFileFailed):
            self.end_flush(work.flush, None)
            return
        self.end_flush(work.flush, error)
        if self.durability.end_checkpoint(work):
            self._env.hooks.sometimes("checkpoint made")

    def expire_producers(self, mono_ms: int) -> int:
        """Forget producers that have been silent for a day of the monotonic clock; returns how many."""
        return self.producers.expire(mono_ms, self._high_watermark)

    def release_idle(self) -> None:
        """Close files and drop indexes of segments that nobody read since the last call."""
        for segment in self.segments:
            if segment is not self.segments.active:
                segment.release()


def _ignore(offset: int) -> None:
    """No checkpoint file is kept for this log."""
