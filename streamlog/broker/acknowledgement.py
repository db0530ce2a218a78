"""Producers that wait for an offset: the disk to reach it, or the high watermark.

Offsets of one partition's appends rise, so whoever waits longest is always in front.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from streamlog.wire.error_codes import ErrorCode

P = TypeVar("P", bound=Hashable)


class Acknowledgement(Generic[P]):
    """What one produce request waits for, in one or more partitions. Completes when all of them have answered.

    It is a `Completion` (connection.py) and calls back at once: a future would cost every request a turn of the loop.
    """

    __slots__ = ("_callback", "_cancelled", "deadline_ms", "failures", "missing")

    def __init__(self, deadline_ms: int) -> None:
        self.deadline_ms = deadline_ms
        self.missing = 0
        self.failures: dict[P, ErrorCode] = {}
        self._callback: Callable[[object], object] | None = None
        self._cancelled = False

    def settle(self, partition: P, code: ErrorCode) -> None:
        self.missing -= 1
        if code is not ErrorCode.NONE:
            self.failures[partition] = code
        if self.missing == 0 and self._callback is not None:
            self._callback(self)

    def add_done_callback(self, callback: Callable[[object], object], /) -> None:
        assert self._callback is None, "one connection waits for an acknowledgement"
        self._callback = callback

    def cancel(self) -> bool:
        """The client has left. What was appended stays."""
        self._callback = None
        self._cancelled = True
        return True

    def cancelled(self) -> bool:
        return self._cancelled


class WaitingProducers(Generic[P]):
    """Everybody who waits for one thing to happen in one partition."""

    __slots__ = ("_partition", "_waiting")

    def __init__(self, partition: P) -> None:
        self._partition = partition
        self._waiting: deque[tuple[int, Acknowledgement[P]]] = deque()
        """Exclusive end offsets; rising, except that a retried batch may wait for less than the one before it."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, end_offset: int, acknowledgement: Acknowledgement[P]) -> None:
        acknowledgement.missing += 1
        self._waiting.append((end_offset, acknowledgement))

    def settle(self, offset: int, code: ErrorCode = ErrorCode.NONE) -> None:
        """It has happened below `offset`."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= offset:
            waiting.popleft()[1].settle(self._partition, code)

    def fail(self, code: ErrorCode) -> None:
        """It will not happen, for anybody."""
        waiting, self._waiting = self._waiting, deque()
        for _, acknowledgement in waiting:
            acknowledgement.settle(self._partition, code)

    def expire(self, now_ms: int) -> None:
        """Answer REQUEST_TIMED_OUT to producers whose time is up; their records may still be stored."""
        if any(acknowledgement.deadline_ms <= now_ms for _, acknowledgement in self._waiting):
            kept: deque[tuple[int, Acknowledgement[P]]] = deque()
            for entry in self._waiting:
                if entry[1].deadline_ms <= now_ms:
                    entry[1].settle(self._partition, ErrorCode.REQUEST_TIMED_OUT)
                else:
                    kept.append(entry)
            self._waiting = kept
