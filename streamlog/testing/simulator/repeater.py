"""A producer that does what others do only after an accident: it sends again what is acknowledged, and leaves gaps.

Brokers promise to know the last five batches of an idempotent producer, whatever happened since, and to answer one
that comes again with the offset it has. The production client rarely asks for that, and lives without: it waits for
later answers where a broker has forgotten. Other clients do not. Nor does it send a batch before it knows of the ones
before; a broker has to refuse what does not continue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Final

from streamlog.client.cluster import Cluster
from streamlog.client.failures import BrokerUnreachable
from streamlog.client.links import Lane
from streamlog.env import Clock, Env
from streamlog.testing.simulator.history import Send
from streamlog.testing.simulator.workload import PASSING, TOPIC, Main, Work, persistent
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import (
    InitProducerIdRequest,
    InitProducerIdResponse,
    ProduceRequest,
    ProduceResponse,
)
from streamlog.wire.messages.produce import PartitionProduceData, TopicProduceData
from streamlog.wire.records import BatchBuilder

BATCHES_KNOWN: Final = 5
RECORDS_MAX: Final = 3
PAUSE_S: Final = 0.2
RETRY_S: Final = 0.1
GAP: Final = 1_000_000
"""Further than anybody gets in a run: whenever such a batch arrives, it does not continue what is there."""
VERSION_WITH_NAMES: Final = 12

FORGOTTEN: Final = (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode.UNKNOWN_PRODUCER_ID)
"""What a broker says that does not know the batches before."""


@dataclass(slots=True)
class _Batch:
    sequence: int
    sends: list[Send]
    at_ms: int
    """The timestamp of its records."""
    offset: int = -1
    """As it was acknowledged."""


@dataclass(slots=True)
class _Session:
    work: Work
    cluster: Cluster
    random: Random
    name: str
    partition: int
    clock: Clock
    producer_id: int = -1
    next_sequence: int = 0
    gaps: int = 0
    acked: deque[_Batch] = field(default_factory=lambda: deque(maxlen=BATCHES_KNOWN))

    async def begin(self) -> None:
        async def attempt() -> InitProducerIdResponse:
            request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
            answer = await self.cluster.request_any(request, InitProducerIdResponse)
            if answer.error_code:
                raise KafkaError(ErrorCode.of(answer.error_code))
            return answer

        self.producer_id = (await self.cluster.retrying("getting a producer id", attempt)).producer_id

    def new(self) -> _Batch:
        count = 1 + self.random.randrange(RECORDS_MAX)
        numbers = range(self.next_sequence, self.next_sequence + count)
        self.next_sequence += count
        values = [(f"{self.name}:{number}:".encode(), number) for number in numbers]
        history = self.work.history
        sends = [history.send(value, TOPIC, None, self.name, number) for value, number in values]
        return _Batch(numbers[0], sends, self.clock.wall_ms())

    async def deliver(self, batch: _Batch) -> bool:
        """Send until it is acknowledged. False: it took too long."""
        deadline_ms = self.clock.mono_ms() + self.work.setup.delivery_timeout_ms
        while self.clock.mono_ms() < deadline_ms:
            try:
                offset = await self._attempt(batch)
            except PASSING:
                self.cluster.refresh_nowait()
                await asyncio.sleep(RETRY_S * (0.5 + self.random.random()))
                continue
            if batch.offset < 0:
                batch.offset = offset
                for index, send in enumerate(batch.sends):
                    self.work.history.stored(send, self.partition, offset + index)
                self.acked.append(batch)
            elif offset != batch.offset:
                self._violate(41, f"was acknowledged at {batch.offset} and then at {offset}", batch)
            else:
                self.work.world.sometimes("acknowledged batch repeated")
            return True
        return False

    async def leave_gap(self) -> None:
        """Send something that does not continue what was acknowledged: it has to be refused."""
        self.gaps += 1
        value = f"{self.name}:{self.next_sequence}:gap {self.gaps}".encode()
        send = self.work.history.send(value, TOPIC, None, self.name, self.next_sequence)
        batch = _Batch(self.next_sequence + GAP, [send], self.clock.wall_ms())
        try:
            offset = await self._attempt(batch)
        except KafkaError as refusal:
            if refusal.code in FORGOTTEN:
                self.work.world.sometimes("gap in a producer's numbers refused")
        except BrokerUnreachable:
            self.cluster.refresh_nowait()
        else:
            self._violate(44, f"is stored at {offset}, {GAP} numbers too early", batch)

    async def _attempt(self, batch: _Batch) -> int:
        """Its base offset, from one attempt. Raises BrokerUnreachable, KafkaError."""
        leader = self.cluster.metadata.leader(TOPIC, self.partition)
        if leader is None:
            raise BrokerUnreachable("nobody leads")
        builder = BatchBuilder()
        for send in batch.sends:
            builder.append(None, send.value, batch.at_ms)
        records = builder.build(producer_id=self.producer_id, producer_epoch=0, base_sequence=batch.sequence)
        data = TopicProduceData(
            name=TOPIC, partition_data=[PartitionProduceData(index=self.partition, records=records)]
        )
        request = ProduceRequest(acks=-1, timeout_ms=self.work.setup.request_timeout_ms, topic_data=[data])
        led = self.work.newest_epoch_led(leader, self.partition)
        answer = await self.cluster.request(
            leader, request, ProduceResponse, lane=Lane.PRODUCE, version_max=VERSION_WITH_NAMES
        )
        ((told,),) = ([*topic.partition_responses] for topic in answer.responses)
        code = ErrorCode.of(told.error_code)
        still_led = led is not None and led == self.work.newest_epoch_led(leader, self.partition)
        if code in FORGOTTEN and batch.sequence < GAP and still_led:
            self._violate(41, f"is refused with {code.name}", batch)
        if code is not ErrorCode.NONE:
            raise KafkaError(code)
        return told.base_offset

    def _violate(self, number: int, what: str, batch: _Batch) -> None:
        self.work.history.violate(number, f"{TOPIC}-{self.partition}: {batch.sends[0].value!r} {what}")


def repeater(work: Work, name: str) -> Main:
    """Sends new batches, one at a time, and in between some of the last five again."""

    async def main(env: Env) -> None:
        session_name = f"{name}.{env.process_id}"
        random = Random(f"{work.setup.seed}/{session_name}")
        cluster = Cluster(work.bootstrap, env, work.settings(session_name))
        await cluster.open()
        try:
            await cluster.partition_count(TOPIC)
            partition = random.randrange(work.setup.partitions)
            session = _Session(work, cluster, random, session_name, partition, env.clock)
            await session.begin()
            while not work.stopping:
                if session.acked and random.random() < 0.1:
                    await session.leave_gap()
                again = bool(session.acked) and random.random() < 0.5
                if not await session.deliver(random.choice(session.acked) if again else session.new()):
                    return
                await asyncio.sleep(random.random() * 2 * PAUSE_S)
        finally:
            await cluster.close()

    return persistent(work, main)
