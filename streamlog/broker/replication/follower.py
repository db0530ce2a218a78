"""How one partition follows its leader: where to fetch, and what an answer means for the log. Decides only.

A follower says where its log ends and which leader's epoch its last record has. The leader compares with its own
history (KIP-595 brought that into Fetch): when the two pasts part, it answers the end of the greatest epoch it has that
is not above ours, and the follower cuts there, or lower, and asks again. Each round drops at least one epoch, so
the common past is found in as many rounds as there are epochs that the leader never saw; nothing that both have is ever
cut (KIP-101, KIP-279).

What an answer asks for is a `Step`, which the driver performs before it asks again:

    APPEND       bytes of the leader that follow ours
    TRUNCATE     cut the log at `offset`
    FIND_RANGE   our end lies outside of the leader's log: ask where that begins and ends
    START_OVER   throw everything away and begin at `offset`, the leader's log start
    RETRY        the leader, or its disk, needs a moment
    WAIT         we are behind the metadata, or the leader is none: wait for the metadata

RETRY waits longer each time, and so does a step that the disk did not take; only one that was performed resets that.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from streamlog.broker.log.epochs import UNDEFINED_OFFSET, EpochCache
from streamlog.wire.error_codes import ErrorCode

RETRY_MS_MIN: Final = 20
"""A new leader that has not heard of its office yet hears of it in about this time."""

NEVER: Final = 2**62


class StepKind(Enum):
    APPEND = "append"
    TRUNCATE = "truncate"
    FIND_RANGE = "find range"
    START_OVER = "start over"
    RETRY = "retry"
    WAIT = "wait"


class Step(NamedTuple):
    kind: StepKind
    offset: int = UNDEFINED_OFFSET
    """Where TRUNCATE cuts and START_OVER begins."""


APPEND: Final = Step(StepKind.APPEND)
FIND_RANGE: Final = Step(StepKind.FIND_RANGE)
RETRY: Final = Step(StepKind.RETRY)
WAIT: Final = Step(StepKind.WAIT)


def truncation_offset(epochs: EpochCache, log_end_offset: int, leader_epoch: int, leader_end_offset: int) -> int:
    """Where to cut when the leader says that the greatest epoch it has, not above ours, ends at `leader_end_offset`."""
    if leader_end_offset < 0:
        return log_end_offset
    found, own_end_offset = epochs.end_offset_for(leader_epoch, log_end_offset)
    if own_end_offset == UNDEFINED_OFFSET:
        return min(leader_end_offset, log_end_offset)
    if found != leader_epoch:
        # We have nothing of that epoch. Everything above the epochs below it goes; then ask again.
        return min(own_end_offset, log_end_offset)
    return min(own_end_offset, leader_end_offset, log_end_offset)


class FollowerState:
    """One partition that follows one leader in one leader epoch. A new epoch gets a new one."""

    __slots__ = ("_backoff_ms_max", "_failures", "is_looking_for_range", "leader_epoch", "leader_id", "retry_at_ms")

    def __init__(self, leader_id: int, leader_epoch: int, backoff_ms_max: int) -> None:
        self.leader_id = leader_id
        self.leader_epoch = leader_epoch
        self.retry_at_ms = -NEVER  # do not fetch before
        self.is_looking_for_range = False
        self._failures = 0  # in a row, since a step was performed
        self._backoff_ms_max = backoff_ms_max

    def is_due(self, now_ms: int) -> bool:
        return self.retry_at_ms <= now_ms

    def on_answer(self, code: ErrorCode, now_ms: int) -> Step:
        """The leader has answered for this partition, without a diverging epoch."""
        if code is ErrorCode.NONE:
            return APPEND
        if code is ErrorCode.OFFSET_OUT_OF_RANGE:
            self.is_looking_for_range = True
            return FIND_RANGE
        if code is ErrorCode.FENCED_LEADER_EPOCH:
            self.retry_at_ms = now_ms + self._backoff_ms_max  # the metadata replaces us before
            return WAIT
        return self.on_failure(now_ms)

    def on_diverging(self, epochs: EpochCache, log_end_offset: int, epoch: int, end_offset: int) -> Step:
        """The leader has another past than we have."""
        return Step(StepKind.TRUNCATE, truncation_offset(epochs, log_end_offset, epoch, end_offset))

    def on_range(self, log_end_offset: int, leader_start_offset: int, leader_end_offset: int) -> Step:
        """Where the leader's log begins and ends, for a follower that was outside."""
        self.is_looking_for_range = False
        if log_end_offset > leader_end_offset:
            return Step(StepKind.TRUNCATE, leader_end_offset)
        if log_end_offset < leader_start_offset:
            return Step(StepKind.START_OVER, leader_start_offset)
        return APPEND  # it has come into range meanwhile

    def on_performed(self) -> None:
        """What the last step asked for is done."""
        self._failures = 0

    def on_failure(self, now_ms: int) -> Step:
        """No answer, or one that will be another soon, or a step that could not be performed."""
        self._failures += 1
        pause_ms = min(RETRY_MS_MIN << min(self._failures - 1, 10), self._backoff_ms_max)
        self.retry_at_ms = now_ms + pause_ms
        return RETRY
