"""How much of a partition is on disk, and the work that moves it.

    recovery point <= flushed <= log end

Below `flushed_offset` the log's own files are synced; below `recovery_point` everything that is derived from them too,
so that recovery need not look there. Work is prepared and concluded on the event loop and runs in a thread (flush.py).
"""

from __future__ import annotations

from contextlib import suppress

from streamlog.broker.log.checkpoint import LEADER_EPOCH_FILE, PARTITION_METADATA_FILE, encode_epochs
from streamlog.broker.log.epochs import EpochCache
from streamlog.broker.log.file_names import SEGMENT_SUFFIXES, SNAPSHOT_SUFFIX, file_name
from streamlog.broker.log.flush import CheckpointWork, FlushWork
from streamlog.broker.log.producer_state import ProducerState
from streamlog.broker.log.replay import snapshot_offsets
from streamlog.broker.log.segments import SegmentList
from streamlog.env import Storage

CHECKPOINT_BYTES = 16 * 1024 * 1024
"""A checkpoint is due when this much was appended since the last: recovery walks at most that and a little more,
0.3 s for records of 100 bytes that came one by one, 20 ms for full batches."""


class Durability:
    __slots__ = (
        "_checkpointed_bytes",
        "_directory",
        "_epochs_saved",
        "_storage",
        "_unsynced_directories",
        "_unsynced_paths",
        "appended_bytes",
        "flushed_offset",
        "generation",
        "recovery_point",
    )

    def __init__(
        self, storage: Storage, directory: str, log_end_offset: int, recovery_point: int, *, epochs_saved: bool
    ) -> None:
        """`epochs_saved`: the epoch file holds what the log says."""
        self._storage = storage
        self._directory = directory
        self.flushed_offset = min(log_end_offset, recovery_point)
        self.recovery_point = recovery_point
        self.generation = 0
        """Counts truncations: work begun before one does not conclude after it."""
        self.appended_bytes = 0
        """Since opening."""
        self._checkpointed_bytes = 0  # how many of them lie below the recovery point
        self._epochs_saved = 0 if epochs_saved else -1  # epochs.changes that the epoch file holds
        # What the next flush has to sync besides the logs: the directory entries of new segments, and at first
        # those of the partition itself, which whoever created it has not synced.
        self._unsynced_paths = [f"{directory}/{PARTITION_METADATA_FILE}"]
        self._unsynced_directories = [directory, directory.rpartition("/")[0] or "."]

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether a restart would have much to walk."""
        return self.appended_bytes - self._checkpointed_bytes >= CHECKPOINT_BYTES

    def note_new_names(self) -> None:
        """The next flush has to sync the directory."""
        if self._directory not in self._unsynced_directories:
            self._unsynced_directories.append(self._directory)

    def note_cut_back(self, path: str) -> None:
        """What a failed append left in this file is cut off. The next flush has to sync it, even if it is closed then:
        a power cut could bring the bytes back in front of the next segment."""
        if path not in self._unsynced_paths:
            self._unsynced_paths.append(path)

    def on_cut(self, offset: int) -> None:
        """The log is about to be cut to `offset`, below the recovery point perhaps."""
        self.generation += 1
        self.recovery_point = min(self.recovery_point, offset)
        self.flushed_offset = min(self.flushed_offset, offset)

    def snapshot_path(self, offset: int) -> str:
        """Where the producer snapshot at `offset` belongs."""
        return f"{self._directory}/{file_name(offset, SNAPSHOT_SUFFIX)}"

    # --- flush ---

    def begin_flush(self, segments: SegmentList, log_end_offset: int) -> FlushWork | None:
        """What a thread has to do so that everything appended so far is on disk; None when it is."""
        if self.flushed_offset >= log_end_offset and not self._unsynced_directories:
            return None
        grown = segments.between(self.flushed_offset, max(log_end_offset, self.flushed_offset + 1))
        paths, self._unsynced_paths = self._unsynced_paths, []
        directories, self._unsynced_directories = self._unsynced_directories, []
        files = [segment.pin() for segment in grown]
        return FlushWork(self._storage, log_end_offset, self.generation, grown, files, paths, directories)

    def end_flush(self, work: FlushWork) -> None:
        """The work is done, and succeeded."""
        if work.generation == self.generation:
            self.flushed_offset = max(self.flushed_offset, work.end_offset)

    # --- checkpoint ---

    def begin_checkpoint(
        self, segments: SegmentList, epochs: EpochCache, producers: ProducerState, log_end_offset: int
    ) -> CheckpointWork | None:
        """What a thread has to do so that recovery may start at the log end; None when it already may.

        Raises OSError.
        """
        if self.recovery_point == log_end_offset and self._epochs_saved == epochs.changes:
            return None
        grown = segments.between(self.recovery_point, max(log_end_offset, self.recovery_point + 1))
        segments.active.finish()
        replaced = [(self.snapshot_path(log_end_offset), producers.encode_snapshot())]
        if self._epochs_saved != epochs.changes:
            replaced.append((f"{self._directory}/{LEADER_EPOCH_FILE}", encode_epochs(epochs.entries())))
        stale_paths = self._stale_snapshots(segments, log_end_offset)
        self.note_new_names()
        flush = self.begin_flush(segments, log_end_offset)
        assert flush is not None, "a flush that has to sync the directory is not nothing"
        index_paths = [segment.path(suffix) for segment in grown for suffix in SEGMENT_SUFFIXES[1:]]
        return CheckpointWork(flush, index_paths, replaced, stale_paths, epochs.changes, self.appended_bytes)

    def _stale_snapshots(self, segments: SegmentList, end_offset: int) -> list[str]:
        """Snapshots that serve nobody: recovery uses the one at the recovery point, rebuilding those at segment starts.

        The one at the present recovery point stays until the next checkpoint: the new point is not yet recorded.
        """
        kept = {segment.base_offset for segment in segments} | {self.recovery_point, end_offset}
        offsets = snapshot_offsets(self._storage, self._directory)
        return [self.snapshot_path(offset) for offset in offsets if offset not in kept]

    def end_checkpoint(self, work: CheckpointWork) -> bool:
        """The work is done, and succeeded. Says whether the recovery point moved, which is to be recorded then."""
        if work.flush.generation == self.generation:
            self.recovery_point = work.end_offset
            self._epochs_saved = work.epoch_changes
            self._checkpointed_bytes = work.appended_bytes
            return True
        # The snapshot that the thread has written tells of records that are gone.
        with suppress(FileNotFoundError):
            self._storage.remove(work.replaced_files[0][0])
        return False
