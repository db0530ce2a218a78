"""Tells callers what became of their records: futures, flushes, who waits for room, the failures of appended ones."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from streamlog.client.accumulator import Accumulator, Verdict
from streamlog.client.cluster import topic_error
from streamlog.client.failures import DeliveryUnknown, NotDelivered, one_line
from streamlog.client.metadata import Metadata
from streamlog.client.producer_queue import PartitionKey
from streamlog.client.transactions import Transactions
from streamlog.client.values import RecordMetadata
from streamlog.errors import LocalProtocolError, StreamlogError
from streamlog.wire.error_codes import ErrorCode, KafkaError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failed:
    """A batch of appended records that the log does not have, or perhaps not."""

    topic: str
    partition: int
    code: ErrorCode
    """The last word about it."""
    failure: StreamlogError
    record_bytes: int | None
    """Its size, when it was a single record. Never too low."""


OnAppendFailure: TypeAlias = Callable[[Failed], None]


class Delivery:
    """See the module's essay. Every waiter is told once."""

    def __init__(self, accumulator: Accumulator, metadata: Metadata, buffer_bytes_max: int) -> None:
        self.transactions: Transactions | None = None  # what fails also breaks the transaction
        self.fatal: StreamlogError | None = None  # nothing can be sent any more
        self.acked: dict[PartitionKey, int] = {}  # exclusive end offset of the last acknowledged batch
        self.append_failure: StreamlogError | None = None  # first failure of a record without a future
        self.on_append_failure: OnAppendFailure | None = None  # who wants to know all of these instead
        self._accumulator = accumulator
        self._metadata = metadata
        self._buffer_bytes_max = buffer_bytes_max
        self._flushes: deque[tuple[int, asyncio.Future[None]]] = deque()  # tickets ascending
        self._room_waiters: deque[asyncio.Future[None]] = deque()

    @property
    def full(self) -> bool:
        """Whether the buffer has no room."""
        return self._accumulator.buffered_bytes >= self._buffer_bytes_max

    async def flushed(self, ticket: int) -> None:
        """Return when everything before the ticket has its answer."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushes.append((ticket, done))
        await done

    async def room(self) -> None:
        """Return when something of the buffer has drained; there may be room or not."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room_waiters.append(waiter)
        await waiter

    def settle(self, verdicts: Sequence[Verdict]) -> None:
        """Tell everybody who waits what became of these batches."""
        if not verdicts:
            return
        for verdict in verdicts:
            if verdict.error_code:
                self._settle_failure(verdict)
            else:
                topic, partition = verdict.key
                base_offset, append_time_ms = verdict.base_offset, verdict.append_time_ms
                if base_offset >= 0:  # not with acks=0, and not for a batch that a retry wrote before
                    self.acked[verdict.key] = base_offset + (verdict.batch.record_count or 0)
                for index, timestamp_ms, waiter in verdict.batch.waiters:
                    if not waiter.done():
                        offset = base_offset + index if base_offset >= 0 else -1
                        time_ms = append_time_ms if append_time_ms >= 0 else timestamp_ms
                        waiter.set_result(RecordMetadata(topic, partition, offset, time_ms))
        while self._flushes and self._accumulator.flushed(self._flushes[0][0]):
            _, done = self._flushes.popleft()
            if not done.done():
                done.set_result(None)
        if self._room_waiters and not self.full:
            waiters, self._room_waiters = self._room_waiters, deque()
            for room in waiters:
                if not room.done():
                    room.set_result(None)

    def _settle_failure(self, verdict: Verdict) -> None:
        failure = self._failure(verdict)
        log.log(logging.DEBUG if self._accumulator.final else logging.WARNING, "%s", one_line(failure))
        if self.transactions is not None:
            self.transactions.fail(failure)
        batch = verdict.batch
        if len(batch.waiters) < (batch.record_count or 1):
            if self.on_append_failure is not None:
                code, alone = ErrorCode.of(verdict.error_code), batch.record_count == 1
                self.on_append_failure(Failed(*verdict.key, code, failure, batch.size_bytes if alone else None))
            elif self.append_failure is None:
                self.append_failure = failure
        for _, _, waiter in batch.waiters:
            if not waiter.done():
                waiter.set_exception(failure)

    def _failure(self, verdict: Verdict) -> StreamlogError:
        topic, partition = verdict.key
        count = verdict.batch.record_count
        what = f"{count} record{'s' if count != 1 else ''} for {topic}-{partition}"
        why = f": {verdict.message}" if verdict.message else ""
        if self.fatal is not None:
            why = f": {one_line(self.fatal)}"
        if verdict.cause is not None and verdict.definite:
            failure = LocalProtocolError(f"{what} could not be sent{why}")
            failure.__cause__ = verdict.cause
            return failure
        if not verdict.definite:
            return DeliveryUnknown(f"{what} may or may not have been written; no answer came in time{why}")
        if verdict.timed_out:
            reason = self._why_not_sent(topic, partition)
            return NotDelivered(f"{what} were not sent in time{why or reason}")
        return KafkaError(ErrorCode.of(verdict.error_code), f"{what} were refused{why}")

    def _why_not_sent(self, topic: str, partition: int) -> str:
        metadata = self._metadata
        if topic in metadata.errors:
            return f": {one_line(topic_error(topic, metadata.errors[topic]))}"
        leader = metadata.leader(topic, partition)
        if leader is None:
            return ": the partition has no leader right now"
        return f": its leader is the broker at {metadata.brokers[leader].address}; check that it runs"
