"""Which leader wrote which stretch of a partition: (leader epoch, start offset) pairs (KIP-101, KIP-279).

The pairs rise in both columns. A follower asks the leader where an epoch ends and cuts its own log there, which
is how two diverged logs find their common prefix. The file `leader-epoch-checkpoint` is written when the log is
flushed, not on every change: every batch carries its epoch in its header, so what the file lacks is in the
batches that recovery walks anyway. An epoch during which nothing was appended can be forgotten by a crash;
nobody can have asked for data of it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

UNDEFINED_EPOCH = -1
UNDEFINED_OFFSET = -1


class EpochCache:
    __slots__ = ("_epochs", "_start_offsets", "changes", "latest")

    def __init__(self, entries: list[tuple[int, int]] | None = None) -> None:
        self._epochs: list[int] = []  # strictly rising
        self._start_offsets: list[int] = []  # rising, same length
        self.latest = UNDEFINED_EPOCH  # the last of _epochs, read on every append
        self.changes = 0  # counts changes, so that a checkpoint knows whether it is stale
        for epoch, start_offset in entries or []:
            self.assign(epoch, start_offset)
        self.changes = 0

    def entries(self) -> list[tuple[int, int]]:
        return list(zip(self._epochs, self._start_offsets, strict=True))

    def assign(self, epoch: int, start_offset: int) -> bool:
        """Note that `epoch` starts at `start_offset`. Says whether that was news.

        Entries that contradict it (same or later epoch, same or later start) go: they described records that a
        truncation has removed, or an epoch that wrote nothing.
        """
        if epoch < 0 or (epoch == self.latest and start_offset >= self._start_offsets[-1]):
            return False
        while self._epochs and (self._epochs[-1] >= epoch or self._start_offsets[-1] >= start_offset):
            self._epochs.pop()
            self._start_offsets.pop()
        self._epochs.append(epoch)
        self._start_offsets.append(start_offset)
        self._changed()
        return True

    def truncate_from_end(self, end_offset: int) -> None:
        """Forget epochs that start at or after `end_offset`: the log now ends there."""
        keep = bisect_left(self._start_offsets, end_offset)
        if keep < len(self._epochs):
            del self._epochs[keep:], self._start_offsets[keep:]
            self._changed()

    def truncate_from_start(self, start_offset: int) -> None:
        """Forget epochs that end before `start_offset`; the one that spans it now starts there."""
        first = bisect_right(self._start_offsets, start_offset) - 1
        if first < 0 or (first == 0 and self._start_offsets[0] == start_offset):
            return
        del self._epochs[:first], self._start_offsets[:first]
        self._start_offsets[0] = start_offset
        self._changed()

    def clear(self) -> None:
        if self._epochs:
            self._epochs.clear()
            self._start_offsets.clear()
            self._changed()

    def epoch_at(self, offset: int) -> int:
        """The leader epoch that wrote `offset`; -1 when unknown."""
        number = bisect_right(self._start_offsets, offset) - 1
        return UNDEFINED_EPOCH if number < 0 else self._epochs[number]

    def latest_with_records(self, log_end_offset: int) -> int:
        """The leader epoch of the log's last record; -1 when unknown. The latest one may have written nothing."""
        return self.epoch_at(log_end_offset - 1)

    def end_offset_for(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """Answer OffsetForLeaderEpoch: (greatest known epoch not above `epoch`, where that epoch ends, exclusive).

        For the latest epoch the end is the log end. Below every known epoch the answer is the asked epoch and the
        start of the first known one: the data is gone, and a follower restarts there. Above every known epoch, or
        for -1, the answer is (-1, -1).
        """
        if epoch == UNDEFINED_EPOCH or epoch > self.latest:
            return UNDEFINED_EPOCH, UNDEFINED_OFFSET
        if epoch == self.latest:
            return epoch, log_end_offset
        higher = bisect_right(self._epochs, epoch)
        found = epoch if higher == 0 else self._epochs[higher - 1]
        return found, self._start_offsets[higher]

    def _changed(self) -> None:
        self.latest = self._epochs[-1] if self._epochs else UNDEFINED_EPOCH
        self.changes += 1
