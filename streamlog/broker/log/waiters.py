"""Waiting for an offset: one await where Kafka has a purgatory.

A produce request with acks=all waits for the high watermark, a fetch that lacks bytes for the next append. Futures
are kept in offset order, so an advance looks only at those it wakes.
"""

from __future__ import annotations

import asyncio
import heapq
from itertools import count


class OffsetWaiters:
    """Everybody who waits for one offset (a log end, a high watermark, a flush) to move past theirs."""

    __slots__ = ("_failure", "_numbers", "_offset", "_waiting")

    def __init__(self, offset: int) -> None:
        self._offset = offset  # how far it has come; may go back after a truncation
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # heap by offset
        self._numbers = count()  # breaks ties in the heap, so that futures are never compared
        self._failure: BaseException | None = None

    async def reached(self, offset: int) -> None:
        """Return when the watched offset is at least `offset`. Raises what `fail` was given.

        Cancelling leaves nothing behind. There is no timeout: the caller has `asyncio.timeout`.
        """
        if self._offset >= offset:
            return
        if self._failure is not None:
            raise self._failure
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (offset, next(self._numbers), future))
        await future

    def advance(self, offset: int) -> None:
        """The watched offset is now `offset`: wake whom that satisfies."""
        self._offset = offset
        waiting = self._waiting
        while waiting and waiting[0][0] <= offset:
            _, _, future = heapq.heappop(waiting)
            if not future.done():
                future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Nothing will advance any more (leadership lost, partition offline): everybody gets `error`."""
        self._failure = error
        waiting, self._waiting = self._waiting, []
        for _, _, future in sorted(waiting, key=lambda entry: entry[:2]):
            if not future.done():
                future.set_exception(error)

    def fail_above(self, offset: int, error: BaseException) -> None:
        """Whoever waits for more than `offset` waits in vain."""
        kept = [entry for entry in self._waiting if entry[0] <= offset]
        failed = [entry for entry in self._waiting if entry[0] > offset]
        heapq.heapify(kept)
        self._waiting = kept
        for _, _, future in sorted(failed, key=lambda entry: entry[:2]):
            if not future.done():
                future.set_exception(error)

    def __len__(self) -> int:
        return len(self._waiting)
