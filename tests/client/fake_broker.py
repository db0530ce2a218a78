"""A broker of one partition whose answers a test writes: for what no healthy cluster does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.frames import decode_request_header, encode_response_parts
from streamlog.wire.message import Request, Response
from streamlog.wire.messages import (
    ApiVersionsResponse,
    FetchRequest,
    FetchResponse,
    FindCoordinatorResponse,
    LeaveGroupResponse,
    ListOffsetsResponse,
    MetadataResponse,
    OffsetForLeaderEpochResponse,
)
from streamlog.wire.messages.api_versions import ApiVersion
from streamlog.wire.messages.fetch import FetchableTopicResponse, PartitionData
from streamlog.wire.messages.find_coordinator import Coordinator
from streamlog.wire.messages.leave_group import MemberResponse
from streamlog.wire.messages.list_offsets import ListOffsetsPartitionResponse, ListOffsetsTopicResponse
from streamlog.wire.messages.metadata import MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic
from streamlog.wire.messages.offset_for_leader_epoch import EpochEndOffset, OffsetForLeaderTopicResult
from streamlog.wire.records import encode_batch

TOPIC_ID = UUID(int=77)
SERVED = (
    ApiKey.API_VERSIONS,
    ApiKey.METADATA,
    ApiKey.FETCH,
    ApiKey.LIST_OFFSETS,
    ApiKey.OFFSET_FOR_LEADER_EPOCH,
    ApiKey.FIND_COORDINATOR,
    ApiKey.JOIN_GROUP,
    ApiKey.LEAVE_GROUP,
)


def batch(base_offset: int, count: int, *, leader_epoch: int = 0) -> bytes:
    """Records whose values are their offsets."""
    values: list[bytes | None] = [b"%d" % (base_offset + index) for index in range(count)]
    keys: list[bytes | None] = [None] * count
    return bytes(
        encode_batch(
            keys=keys,
            values=values,
            timestamps_ms=[1_000] * count,
            base_offset=base_offset,
            leader_epoch=leader_epoch,
        )
    )


class FakeBroker:
    """State that a test sets while it runs."""

    def __init__(self) -> None:
        self.port = 0
        self.leader_epoch = 0
        self.batches: dict[int, bytes] = {}  # fetch offset -> what is answered there
        self.error_code = ErrorCode.NONE  # of the next fetches
        self.epoch_end: tuple[int, int] = (0, 0)  # answer of OffsetForLeaderEpoch: epoch, end offset
        self.mute = False  # takes connections and answers nothing, as a stopped process does
        self.fetches = 0
        self.joined = asyncio.Event()  # set when a JoinGroup has come; it is never answered
        self.leave_codes: list[ErrorCode] = []  # of the next LeaveGroups
        self._transports: list[asyncio.Transport] = []

    def answer(self, request: Request) -> Response | None:
        """None: no answer yet (a fetch that waits)."""
        if self.mute:
            return None
        match request.api_key:
            case ApiKey.API_VERSIONS:
                keys = [API_TABLE[key] for key in SERVED]
                return ApiVersionsResponse(
                    api_keys=[
                        ApiVersion(api_key=api.key, min_version=api.min_version, max_version=api.stable_max_version)
                        for api in keys
                    ]
                )
            case ApiKey.METADATA:
                partition = MetadataResponsePartition(partition_index=0, leader_id=1, leader_epoch=self.leader_epoch)
                return MetadataResponse(
                    brokers=[MetadataResponseBroker(node_id=1, host="127.0.0.1", port=self.port)],
                    topics=[MetadataResponseTopic(name="t", topic_id=TOPIC_ID, partitions=[partition])],
                )
            case ApiKey.LIST_OFFSETS:
                offset = ListOffsetsPartitionResponse(partition_index=0, offset=0, timestamp=-1)
                return ListOffsetsResponse(topics=[ListOffsetsTopicResponse(name="t", partitions=[offset])])
            case ApiKey.OFFSET_FOR_LEADER_EPOCH:
                epoch, end_offset = self.epoch_end
                end = EpochEndOffset(partition=0, leader_epoch=epoch, end_offset=end_offset)
                return OffsetForLeaderEpochResponse(topics=[OffsetForLeaderTopicResult(topic="t", partitions=[end])])
            case ApiKey.FIND_COORDINATOR:
                where = Coordinator(key="g", node_id=1, host="127.0.0.1", port=self.port)
                return FindCoordinatorResponse(coordinators=[where])
            case ApiKey.JOIN_GROUP:
                self.joined.set()
                return None
            case ApiKey.LEAVE_GROUP:
                return LeaveGroupResponse(members=[MemberResponse(error_code=self.leave_codes.pop(0))])
            case _:
                assert isinstance(request, FetchRequest)
                return self._fetch(request)

    def _fetch(self, request: FetchRequest) -> FetchResponse | None:
        self.fetches += 1
        if not request.topics:
            return FetchResponse() if request.max_wait_ms == 0 else None
        asked = request.topics[0].partitions[0]
        offset, error_code = asked.fetch_offset, self.error_code
        if 0 <= asked.current_leader_epoch < self.leader_epoch:
            error_code = ErrorCode.FENCED_LEADER_EPOCH  # as every leader answers who was not told of it
        data = PartitionData(partition_index=0, high_watermark=1_000, error_code=error_code)
        if not error_code:
            records = self.batches.get(offset)
            if records is None:
                return None
            data.records = records
        # Session 0: every request carries everything.
        return FetchResponse(responses=[FetchableTopicResponse(topic_id=TOPIC_ID, partitions=[data])])

    def close_connections(self) -> None:
        """As a broker does that restarts."""
        for transport in self._transports:
            transport.abort()
        self._transports.clear()


class _Protocol(asyncio.Protocol):
    def __init__(self, broker: FakeBroker, gone: Callable[[], None]) -> None:
        self._broker = broker
        self._gone = gone
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._broker._transports.append(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._received += data
        while len(self._received) >= 4:
            end = 4 + int.from_bytes(self._received[:4], "big")
            if len(self._received) < end:
                return
            frame = bytes(self._received[4:end])
            del self._received[:end]
            header, position = decode_request_header(frame)
            version = header.request_api_version
            request = API_TABLE[header.request_api_key].request.decode(frame, version, position)
            response = self._broker.answer(request)
            if response is not None:
                self._transport.writelines(
                    encode_response_parts(header.request_api_key, version, header.correlation_id, response)
                )


@asynccontextmanager
async def fake_broker() -> AsyncIterator[FakeBroker]:
    """A listening one; its connections are gone afterwards."""
    broker = FakeBroker()
    gone: list[asyncio.Event] = []

    def make() -> _Protocol:
        event = asyncio.Event()
        gone.append(event)
        return _Protocol(broker, event.set)

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    broker.port = server.sockets[0].getsockname()[1]
    try:
        yield broker
    finally:
        server.close()
        broker.close_connections()
        for event in gone:
            await event.wait()
        await server.wait_closed()
