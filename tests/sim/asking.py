"""Who asks one node for something again and again, and does not wait long: requests as values, answers as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final
from uuid import UUID

from streamlog.broker.peer import NotOffered, PeerConnection, PeerGone, connect
from streamlog.env import Env
from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.testing.simulator.machine import Machine
from streamlog.testing.simulator.members import CLIENT_PORT
from streamlog.wire.message import Request, Response
from streamlog.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from streamlog.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
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
