"""Who asks one node for something again and again, and does not wait long: requests as values, answers as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from streamlog.broker.peer import NotOffered, PeerConnection, PeerGone, connect
from streamlog.env import Env
from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.testing.simulator.machine import Machine
from streamlog.testing.simulator.members import CLIENT_PORT
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.message import Request, Response
from streamlog.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
from streamlog.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from streamlog.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from streamlog.wire.messages.produce import PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData
from streamlog.wire.records import encode_batch

ASK_PAUSE_S: Final = 0.03
ASK_S_MAX: Final = 0.3
"""Who is asked and says nothing for so long is asked anew, by another connection."""


async def answers(env: Env, machine: Machine, make: Callable[[], Request]) -> AsyncIterator[tuple[int, Response]]:
    """For ever: (when the request was sent, in monotonic milliseconds; its answer)."""
    connection: PeerConnection | None = None
    while True:
        sent_ms = env.clock.mono_ms()
        try:
            async with asyncio.timeout(ASK_S_MAX):
                if connection is None:
                    connection = await connect(env, machine.host, CLIENT_PORT, "asker")
                answer = await connection.request(make())
            yield sent_ms, answer
        except (PeerGone, NotOffered, RemoteProtocolError, LocalProtocolError, TimeoutError):
            if connection is not None:
                connection.close()
            connection = None
        await asyncio.sleep(ASK_PAUSE_S)


def produce(env: Env, topic: str, topic_id: UUID, partition: int) -> ProduceRequest:
    records = encode_batch(keys=[None], values=[b"x"], timestamps_ms=[env.clock.wall_ms()])
    data = PartitionProduceData(index=partition, records=bytes(records))
    return ProduceRequest(
        acks=-1,
        timeout_ms=10_000,
        topic_data=[TopicProduceData(name=topic, topic_id=topic_id, partition_data=[data])],
    )


def commit(group: str, topic: str, topic_id: UUID) -> OffsetCommitRequest:
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=1)
    asked = OffsetCommitRequestTopic(name=topic, topic_id=topic_id, partitions=[partition])
    return OffsetCommitRequest(group_id=group, topics=[asked])


@dataclass(frozen=True, slots=True)
class Claims:
    """What a node says of itself to a client that asks: that it leads, that it coordinates."""

    topic: str
    topic_id: UUID
    group: str
    node_id: int
    partitions: range

    def of(self, machine: Machine) -> Callable[[Env], Coroutine[Any, Any, list[str]]]:
        async def ask(env: Env) -> list[str]:
            return await self._claims(env, machine)

        return ask

    async def _claims(self, env: Env, machine: Machine) -> list[str]:
        async def asked(request: Request) -> Response:
            """By a connection for each: some are closed behind the answer."""
            connection = await connect(env, machine.host, CLIENT_PORT, "visitor")
            try:
                return await connection.request(request)
            finally:
                connection.close()

        found: list[str] = []
        connection = await connect(env, machine.host, CLIENT_PORT, "visitor")
        metadata = await connection.request(MetadataRequest(topics=[MetadataRequestTopic(name=self.topic)]))
        await asyncio.sleep(ASK_PAUSE_S)
        if connection.closed is None:
            found.append("whoever is connected may go on asking it")
        assert isinstance(metadata, MetadataResponse), "the answer is of the request's API"
        for told in metadata.topics[0].partitions:
            if told.leader_id == self.node_id:
                found.append(f"it leads {self.topic}-{told.partition_index}")
        coordinator = await asked(FindCoordinatorRequest(coordinator_keys=[self.group]))
        assert isinstance(coordinator, FindCoordinatorResponse), "the answer is of the request's API"
        if coordinator.coordinators[0].node_id == self.node_id:
            found.append(f"it coordinates {self.group}")
        for number in self.partitions:
            written = await asked(produce(env, self.topic, self.topic_id, number))
            assert isinstance(written, ProduceResponse), "the answer is of the request's API"
            code = written.responses[0].partition_responses[0].error_code
            if code != ErrorCode.NOT_LEADER_OR_FOLLOWER:
                found.append(f"{ErrorCode.of(code).name} to a Produce for {self.topic}-{number}")
        committed = await asked(commit(self.group, self.topic, self.topic_id))
        assert isinstance(committed, OffsetCommitResponse), "the answer is of the request's API"
        code = committed.topics[0].partitions[0].error_code
        if code != ErrorCode.NOT_COORDINATOR:
            found.append(f"{ErrorCode.of(code).name} to a commit of {self.group}")
        return found
