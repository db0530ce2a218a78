"""Opening a partition's directory: finish what a crash interrupted, find the end, rebuild what is derived.

The recovery point is the promise everything here leans on: below it, the log, its indexes, the epoch file and one
producer snapshot are on disk and synced. Above it nothing is believed: batches are walked with their
checksums, the tail is cut after the last whole one, and epochs, indexes and producer state are told again batch by
batch. So a restart reads what was written since the last checkpoint and not more.

Cutting is for tails only. When the log turns out to end below the recovery point, or misses a stretch between two
segments, then bytes are gone that were promised: that is damage, the partition stays offline and nothing is cut.

Recovery can itself be interrupted anywhere and started again. What of other files a crash may leave: interrupted.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from streamlog.broker.log.checkpoint import (
    LEADER_EPOCH_FILE,
    PARTITION_METADATA_FILE,
    DamagedCheckpoint,
    decode_epochs,
)
from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.epochs import EpochCache
from streamlog.broker.log.file_names import LOG_SUFFIX, SNAPSHOT_SUFFIX, TRANSACTION_INDEX_SUFFIX, offsets_in
from streamlog.broker.log.interrupted import finish_interrupted
from streamlog.broker.log.offset_index import RELATIVE_OFFSET_MAX
from streamlog.broker.log.producer_state import ProducerState
from streamlog.broker.log.replay import aborted_of, marker_in, rebuild_aborted, rebuild_producers, remove_snapshots
from streamlog.broker.log.segment import DamagedLog, Segment
from streamlog.broker.log.segments import SegmentList
from streamlog.broker.log.transaction_index import AbortedTransaction
from streamlog.broker.log.walk import walk_batches
from streamlog.env import File, Storage
from streamlog.wire.records import BatchHeader, CorruptBatch, NeedMoreData, verify_crc

WRITE_BACK_BYTES = 1 << 20
"""How much of a recovered log is written over itself at a time."""


@dataclass(slots=True)
class RecoveryReport:
    """What opening had to do, for one log line."""

    walked_bytes: int = 0
    cut_bytes: int = 0
    cut_at: str = ""
    """File and position of the cut; empty: nothing was cut."""
    finished: list[str] = field(default_factory=list)
    """Interrupted deletions and swaps that were brought to their end."""
    rebuilt: list[str] = field(default_factory=list)
    """Derived files that were missing or damaged."""


@dataclass(slots=True)
class LoadedLog:
    segments: SegmentList
    epochs: EpochCache
    producers: ProducerState
    report: RecoveryReport
    log_start_offset: int
    was_clean: bool
    """Nothing had to be walked or rebuilt."""


def load(
    storage: Storage,
    directory: str,
    config: LogConfig,
    *,
    recovery_point: int,
    log_start_offset: int,
    clean_shutdown: bool,
    may_have_gaps: bool,
    now_ms: int,
) -> LoadedLog:
    """Open every segment of `directory`, repairing what may be repaired.

    Args:   may_have_gaps: this log is compacted, or once was; then offsets between segments may be missing.
    Raises: DamagedLog: promised bytes are gone or wrong; nothing was cut. OSError.
    """
    report = RecoveryReport()
    # A broker of a thousand partitions starts in the time that their system calls take: one listing each.
    names = storage.list(directory)
    if recovery_point == 0 and set(names) <= {PARTITION_METADATA_FILE}:
        return _begin(storage, directory, config, report, log_start_offset, now_ms)
    names = finish_interrupted(storage, directory, config, now_ms, names, report.finished)
    segments = _open_segments(storage, directory, config, log_start_offset, now_ms, names)
    with _closed_on_failure(segments):
        epochs = _load_epochs(storage, directory, segments, report, LEADER_EPOCH_FILE in names)
        snapshots = offsets_in(names, SNAPSHOT_SUFFIX)
        if not may_have_gaps:
            _check_no_gaps(segments, recovery_point)
        # A clean stop left a log that ends where its checkpoint says. Anything else was not closed by it.
        was_clean = clean_shutdown and _resumes_at(segments.active, recovery_point)
        if was_clean:
            aborted_of(storage, directory, segments, len(segments) - 1)
            end_offset = segments.active.next_offset
            producers = rebuild_producers(storage, directory, segments, end_offset, snapshots=snapshots)
        else:
            epochs.truncate_from_end(recovery_point)
            recovery = _Recovery(storage, directory, segments, epochs, report, recovery_point, may_have_gaps, snapshots)
            producers = recovery.run()
        if segments.active.next_offset < recovery_point:
            raise DamagedLog(
                f"{segments.active.path(LOG_SUFFIX)} ends at offset {segments.active.next_offset}, but everything up "
                f"to {recovery_point} was on disk. Restore the file, or delete the directory to copy it from a replica."
            )
        end_offset = segments.active.next_offset
        # A saved start beyond the end is left from before the log was emptied to follow a leader that starts lower.
        log_start_offset = min(max(log_start_offset, segments[0].base_offset), end_offset)
        epochs.truncate_from_end(end_offset)
        epochs.truncate_from_start(log_start_offset)
        for segment in segments:
            if segment is not segments.active:
                segment.close()
        return LoadedLog(segments, epochs, producers, report, log_start_offset, was_clean and not report.rebuilt)


@contextmanager
def _closed_on_failure(segments: SegmentList) -> Iterator[None]:
    """A log that cannot be opened now may be tried again."""
    try:
        yield
    except BaseException:
        for segment in segments:
            segment.close()
        raise


def _begin(
    storage: Storage, directory: str, config: LogConfig, report: RecoveryReport, log_start_offset: int, now_ms: int
) -> LoadedLog:
    """The log of a directory that holds none yet.

    Recovery would come to the same; but topics come with dozens of partitions, and each would look for what is
    not there.
    """
    segments = _open_segments(storage, directory, config, log_start_offset, now_ms, [])
    producers = ProducerState()
    producers.end_offset = log_start_offset
    return LoadedLog(segments, EpochCache(), producers, report, log_start_offset, was_clean=False)


def _open_segments(
    storage: Storage, directory: str, config: LogConfig, log_start_offset: int, now_ms: int, names: list[str]
) -> SegmentList:
    base_offsets = offsets_in(names, LOG_SUFFIX)
    create = not base_offsets
    segments = [
        Segment(
            storage,
            directory,
            base_offset,
            index_interval_bytes=config.index_interval_bytes,
            now_ms=now_ms,
            create=create,
        )
        for base_offset in base_offsets or [log_start_offset]
    ]
    return SegmentList(segments)


def _resumes_at(active: Segment, recovery_point: int) -> bool:
    try:
        active.resume()
    except DamagedLog:
        return False
    return active.next_offset == recovery_point


def _check_no_gaps(segments: SegmentList, recovery_point: int) -> None:
    """Raise DamagedLog when a segment below the recovery point ends before the next one begins."""
    for number in range(len(segments) - 1):
        next_base_offset = segments[number + 1].base_offset
        if next_base_offset > recovery_point:
            return
        if segments[number].next_offset != next_base_offset:
            raise DamagedLog(
                f"{segments[number].path(LOG_SUFFIX)} ends at offset {segments[number].next_offset}, but the next "
                f"segment starts at {next_base_offset}"
            )


def _load_epochs(
    storage: Storage, directory: str, segments: SegmentList, report: RecoveryReport, has_file: bool
) -> EpochCache:
    path = f"{directory}/{LEADER_EPOCH_FILE}"
    if all(segment.size_bytes == 0 for segment in segments):
        return EpochCache()
    if has_file:
        try:
            return EpochCache(decode_epochs(storage.read_bytes(path)))
        except DamagedCheckpoint:
            report.rebuilt.append(path)
    epochs = EpochCache()
    for segment in segments:
        # The active segment may have a torn tail, which the walk above the recovery point deals with.
        try:
            for _, header, _ in walk_batches(segment.file, 0, segment.size_bytes):
                epochs.assign(header.leader_epoch, header.base_offset)
        except (CorruptBatch, NeedMoreData):
            break
    return epochs


# --- above the recovery point ---


class _Recovery:
    """One pass over everything that is not promised: from the recovery point, and from the newest snapshot."""

    def __init__(
        self,
        storage: Storage,
        directory: str,
        segments: SegmentList,
        epochs: EpochCache,
        report: RecoveryReport,
        recovery_point: int,
        may_have_gaps: bool,
        snapshots: list[int],
    ) -> None:
        self._snapshots = snapshots
        self._storage = storage
        self._directory = directory
        self._segments = segments
        self._epochs = epochs
        self._report = report
        self._recovery_point = recovery_point
        self._may_have_gaps = may_have_gaps
        self._producers = ProducerState()
        self._lost_aborted = False  # the first segment's transaction index cannot be read

    def run(self) -> ProducerState:
        segments = self._segments
        first = segments.number_at(self._recovery_point)
        position = segments[first].rewind_for_recovery(self._recovery_point)
        self._producers = rebuild_producers(
            self._storage,
            self._directory,
            segments,
            self._recovery_point,
            stop_offset=segments[first].next_offset,
            snapshots=self._snapshots,
        )
        number = first
        while number < len(segments):
            segment = segments[number]
            if number > first:
                position = segment.rewind_for_recovery(self._recovery_point)
            whole = self._recover(segment, position)
            number += 1
            if not whole or (number < len(segments) and not _joins(segment, segments[number])):
                self._remove_from(number)
        for segment in list(segments)[first:-1]:
            segment.finish()
        if self._snapshots and self._snapshots[-1] > self._recovery_point:
            remove_snapshots(self._storage, self._directory, above=self._recovery_point)
        self._rebuild_lost_aborted(first)
        return self._producers

    def _recover(self, segment: Segment, start: int) -> bool:
        """Walk one segment; says whether all of it was whole."""
        aborted = self._aborted_below_recovery_point(segment)
        position, end_position = start, segment.file.size()
        problem = ""
        sure_offset = segment.next_offset  # behind the last batch that follows the one before it
        try:
            for at, header, batch in walk_batches(segment.file, start, end_position):
                problem = self._problem_of(segment, header, batch)
                if problem:
                    if header.base_offset < segment.next_offset and not self._may_have_gaps:
                        self._check_sure(segment, sure_offset, problem)
                    break
                if header.base_offset == segment.next_offset:
                    sure_offset = header.next_offset
                self._tell(segment, header, batch, aborted)
                position = at + header.size_bytes
        except (CorruptBatch, NeedMoreData) as error:
            problem = str(error)
        self._report.walked_bytes += position - start
        if problem:
            self._cut(segment, position, end_position, problem)
        _write_back(segment.file, start, position)
        segment.verified_from = min(segment.verified_from, start)
        segment.replace_aborted(aborted)
        return not problem

    def _problem_of(self, segment: Segment, header: BatchHeader, batch: memoryview) -> str:
        """What is wrong with a batch, or nothing. The checksum does not cover the base offset: its place does."""
        expected = segment.next_offset
        if header.base_offset < expected or header.last_offset - segment.base_offset > RELATIVE_OFFSET_MAX:
            return f"offset {header.base_offset} where {expected} was due"
        leaps_over = expected < self._recovery_point < header.next_offset  # which was the end of a batch once
        if leaps_over or (header.base_offset > expected >= self._recovery_point and not self._may_have_gaps):
            return f"offset {header.base_offset} where {expected} was due"
        if expected >= self._recovery_point and 0 <= header.leader_epoch < self._epochs.latest:
            return f"a batch of epoch {header.leader_epoch} behind one of {self._epochs.latest}: truncated bytes"
        return "" if verify_crc(batch, 0, header) else "the batch fails its checksum"

    def _tell(
        self,
        segment: Segment,
        header: BatchHeader,
        batch: memoryview,
        aborted: list[AbortedTransaction],
    ) -> None:
        """Fold one whole batch into everything derived."""
        segment.note_batch(header.size_bytes, header.last_offset, header.max_timestamp_ms)
        if header.base_offset >= self._producers.end_offset:
            entry = self._producers.apply(header, marker_in(batch, header))
            if entry is not None and header.last_offset >= self._recovery_point:
                aborted.append(entry)
        if header.last_offset >= self._recovery_point and header.leader_epoch > self._epochs.latest:
            self._epochs.assign(header.leader_epoch, header.base_offset)

    def _aborted_below_recovery_point(self, segment: Segment) -> list[AbortedTransaction]:
        entries = segment.aborted_before_recovery(self._recovery_point)
        if entries is None and segment.base_offset < self._recovery_point:
            self._lost_aborted = True
        return entries or []

    def _cut(self, segment: Segment, position: int, end_position: int, problem: str) -> None:
        """Cut a torn tail, never below the recovery point. Raises DamagedLog there."""
        self._check_sure(segment, segment.next_offset, problem)
        segment.file.truncate(position)
        segment.file.fdatasync()  # or the torn bytes come back in what may be a closed segment by then
        self._report.cut_bytes += end_position - position
        self._report.cut_at = self._report.cut_at or f"{segment.path(LOG_SUFFIX)}:{position} ({problem})"

    def _check_sure(self, segment: Segment, offset: int, problem: str) -> None:
        """Raise DamagedLog if the log is known only up to `offset`, and more was on disk.

        A batch that comes after a gap may have another offset than it was written with. If the next one goes back then,
        it is the former that is damaged, and the latter nothing to be cut.
        """
        if offset < self._recovery_point:
            raise DamagedLog(
                f"{segment.path(LOG_SUFFIX)}: {problem}, at offset {offset}; everything up to "
                f"{self._recovery_point} was on disk. Nothing was cut. Restore the file, or delete the directory to "
                "copy it from a replica."
            )

    def _rebuild_lost_aborted(self, number: int) -> None:
        """The part of a transaction index below the recovery point, when the file is missing or damaged."""
        if self._lost_aborted:
            rebuild_aborted(self._storage, self._directory, self._segments, number)
            self._report.rebuilt.append(self._segments[number].path(TRANSACTION_INDEX_SUFFIX))

    def _remove_from(self, number: int) -> None:
        """Segments behind a cut cannot be reached any more without a gap."""
        for segment in reversed(list(self._segments)[number:]):
            self._report.cut_bytes += segment.size_bytes
            segment.close()
            self._segments.remove(segment)
            for path in segment.existing_paths():
                self._storage.remove(path)
        self._storage.sync_directory(self._directory)


def _write_back(file: File, start: int, end: int) -> None:
    """Write bytes over themselves, so that the next sync writes them to the disk.

    The process before us may have ended because a sync failed. The kernel then calls the pages clean that it could not
    write, and goes on serving them: they pass every check here, no later sync writes them, and a power cut uncovers
    what is really on the disk.
    """
    for position in range(start, end, WRITE_BACK_BYTES):
        file.pwrite(file.pread(min(WRITE_BACK_BYTES, end - position), position), position)


def _joins(segment: Segment, following: Segment) -> bool:
    """Whether the log goes on in the next segment. Above the recovery point a gap is a lost tail."""
    too_far_for_one = following.base_offset - segment.base_offset > RELATIVE_OFFSET_MAX
    return segment.next_offset == following.base_offset or too_far_for_one
