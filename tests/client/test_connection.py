"""A connection against peers that do not behave: the damage ends with the connection."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamlog.client.config import Address, ConnectionSettings
from streamlog.client.connection import Connection, connect
from streamlog.client.failures import BrokerUnreachable
from streamlog.env import Env, real_env
from streamlog.errors import RemoteProtocolError, StreamlogError
from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.frames import decode_request_header, encode_response_parts
from streamlog.wire.message import Response
from streamlog.wire.messages import (
    ApiVersionsResponse,
    FetchRequest,
    FetchResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    MetadataRequest,
    MetadataResponse,
)
from streamlog.wire.messages.api_versions import ApiVersion
from streamlog.wire.messages.fetch import FetchableTopicResponse, PartitionData

Answer = Callable[[int, int, int], bytes]
"""(API key, version, correlation id) -> what the peer writes."""


def reply(api_key: int, version: int, correlation_id: int, message: Response) -> bytes:
    return b"".join(encode_response_parts(api_key, version, correlation_id, message))


def api_versions() -> ApiVersionsResponse:
    return ApiVersionsResponse(
        api_keys=[
            ApiVersion(api_key=api.key, min_version=api.min_version, max_version=api.max_version)
            for api in API_TABLE.values()
        ]
    )


def honest(api_key: int, version: int, correlation_id: int) -> bytes:
    messages: dict[int, Response] = {
        ApiKey.API_VERSIONS: api_versions(),
        ApiKey.HEARTBEAT: HeartbeatResponse(),
        ApiKey.METADATA: MetadataResponse(),
    }
    return reply(api_key, version, correlation_id, messages[api_key])


class Peer(asyncio.Protocol):
    """One connection of a server that answers each request with what `answer` says, in pieces of a given size."""

    def __init__(self, answer: Answer, chunk_bytes: int, all_of_them: list[Peer]) -> None:
        self.gone = asyncio.Event()
        self.lost: Exception | None = None  # how it ended, once it has
        self.transport: asyncio.Transport | None = None
        self._answer = answer
        self._chunk_bytes = chunk_bytes
        self._received = bytearray()
        all_of_them.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc
        self.gone.set()

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self._received += data
        while len(self._received) >= 4:
            end = 4 + int.from_bytes(self._received[:4], "big")
            if len(self._received) < end:
                return
            header, _ = decode_request_header(bytes(self._received[4:end]))
            del self._received[:end]
            answer = self._answer(header.request_api_key, header.request_api_version, header.correlation_id)
            for start in range(0, len(answer), self._chunk_bytes):
                self.transport.write(answer[start : start + self._chunk_bytes])


@asynccontextmanager
async def peer(answer: Answer, *, chunk_bytes: int = 1 << 30) -> AsyncIterator[Address]:
    """A server of such peers."""
    peers: list[Peer] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Peer(answer, chunk_bytes, peers), "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield Address(host, port)
    finally:
        server.close()
        for one in peers:
            if one.transport is not None:
                one.transport.abort()
                await one.gone.wait()
        await server.wait_closed()


@asynccontextmanager
async def connected(
    answer: Answer, *, chunk_bytes: int = 1 << 30, settings_: ConnectionSettings | None = None
) -> AsyncIterator[Connection]:
    async with peer(answer, chunk_bytes=chunk_bytes) as address:
        connection = await connect(address, settings_ or ConnectionSettings(), real_env().clock, lambda _: None)
        try:
            yield connection
        finally:
            connection.close()
            await asyncio.sleep(0)


async def test_answers_come_in_order_however_they_are_cut(env: Env) -> None:
    """Many requests at once, answers in pieces of seven bytes."""
    async with connected(honest, chunk_bytes=7) as connection:
        answers = await asyncio.gather(
            *(connection.request(HeartbeatRequest(), HeartbeatResponse) for _ in range(50)),
            connection.request(MetadataRequest(), MetadataResponse),
        )
    assert len(answers) == 51
    assert connection.in_flight == 0


@pytest.mark.parametrize("size_bytes", [1_000, 70_000, 9_000_000, 20_000_000])
async def test_fetched_records_outlive_the_next_answers(env: Env, size_bytes: int) -> None:
    """Record batches are views; no later answer may write over them."""
    content = os.urandom(1_000) * (size_bytes // 1_000)

    def answer(api_key: int, version: int, correlation_id: int) -> bytes:
        if api_key != ApiKey.FETCH:
            return honest(api_key, version, correlation_id)
        partition = PartitionData(partition_index=correlation_id, records=content)
        topic = FetchableTopicResponse(topic="t", partitions=[partition])
        return reply(api_key, version, correlation_id, FetchResponse(responses=[topic]))

    async with connected(answer) as connection:
        responses = [await connection.request(FetchRequest(), FetchResponse, version_max=12) for _ in range(3)]
        for _ in range(5):
            await connection.request(HeartbeatRequest(), HeartbeatResponse)
        for response in responses:
            records = response.responses[0].partitions[0].records
            assert records is not None
            assert bytes(records) == content


Broken = Callable[[int, int, int], bytes]

HOSTILE: dict[str, Broken] = {
    "a frame of two gigabytes": lambda api_key, version, correlation_id: struct.pack(">i", 0x7FFFFFFF) + bytes(100),
    "a frame of negative size": lambda api_key, version, correlation_id: struct.pack(">i", -5) + bytes(100),
    "an empty frame": lambda api_key, version, correlation_id: bytes(4),
    "another correlation id": lambda api_key, version, correlation_id: honest(api_key, version, correlation_id + 1),
    "a truncated message": lambda api_key, version, correlation_id: struct.pack(">ii", 6, correlation_id) + bytes(2),
    "an answer too many": lambda api_key, version, correlation_id: 2 * honest(api_key, version, correlation_id),
    "HTTP": lambda api_key, version, correlation_id: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a huge array": lambda api_key, version, correlation_id: (
        struct.pack(">ii", 13, correlation_id) + b"\x00" + bytes(4) + b"\xff\xff\xff\xff"
    ),
}


@pytest.mark.parametrize("what", list(HOSTILE))
async def test_bytes_that_are_no_protocol_close_the_connection(env: Env, what: str) -> None:
    """The request gets an error, the next one is refused at once, and nothing hangs."""

    def answer(api_key: int, version: int, correlation_id: int) -> bytes:
        if api_key == ApiKey.API_VERSIONS:
            return honest(api_key, version, correlation_id)
        return HOSTILE[what](api_key, version, correlation_id)

    async with connected(answer) as connection, asyncio.timeout(10):
        if what == "an answer too many":
            await connection.request(MetadataRequest(), MetadataResponse)
        else:
            with pytest.raises(RemoteProtocolError):
                await connection.request(MetadataRequest(), MetadataResponse)
        while connection.closed is None:
            await asyncio.sleep(0.001)
        with pytest.raises(BrokerUnreachable):
            await connection.request(MetadataRequest(), MetadataResponse)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_random_damage_never_hangs_or_escapes(seed: int) -> None:
    """Answers with flipped bytes are answers, errors of the protocol, or a closed connection; nothing else."""
    random = Random(seed)

    def damaged(api_key: int, version: int, correlation_id: int) -> bytes:
        data = bytearray(honest(api_key, version, correlation_id))
        for _ in range(random.randint(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        return bytes(data)

    async def attempt() -> None:
        short = ConnectionSettings(connect_timeout_ms=300, request_timeout_ms=300)
        try:
            async with asyncio.timeout(5), connected(damaged, settings_=short) as connection:
                await connection.request(MetadataRequest(), MetadataResponse)
        except StreamlogError:
            pass

    asyncio.run(attempt())


async def test_a_peer_that_never_answers_is_left_after_the_timeout(env: Env) -> None:
    """The message names the address and what was waited for."""

    def answer(api_key: int, version: int, correlation_id: int) -> bytes:
        return honest(api_key, version, correlation_id) if api_key == ApiKey.API_VERSIONS else b""

    async with connected(answer) as connection:
        with pytest.raises(BrokerUnreachable, match=r"127.0.0.1:\d+ sent no MetadataResponse in time"):
            await connection.request(MetadataRequest(), MetadataResponse, timeout_ms=100)


async def test_a_peer_that_accepts_and_says_nothing_is_no_broker(env: Env) -> None:
    """Connecting has a timeout of its own."""
    async with peer(lambda *_: b"") as address:
        with pytest.raises(BrokerUnreachable, match="no broker answered at"):
            await connect(address, ConnectionSettings(connect_timeout_ms=100), env.clock, lambda _: None)


async def test_an_idle_connection_is_closed(env: Env) -> None:
    """Before the broker would do it in the middle of a request."""
    lost: asyncio.Event = asyncio.Event()
    async with peer(honest) as address:
        short = ConnectionSettings(connections_max_idle_ms=50, connect_timeout_ms=500)
        connection = await connect(address, short, env.clock, lambda _: lost.set())
        await asyncio.wait_for(lost.wait(), 5)
        assert isinstance(connection.closed, BrokerUnreachable)


async def test_an_old_broker_is_asked_again_in_its_own_version(env: Env) -> None:
    """KIP-511: it answers in version 0 and says what it speaks."""
    asked: list[int] = []

    def answer(api_key: int, version: int, correlation_id: int) -> bytes:
        asked.append(version)
        supported = [
            ApiVersion(api_key=ApiKey.API_VERSIONS, min_version=0, max_version=1),
            ApiVersion(api_key=ApiKey.METADATA, min_version=0, max_version=5),
        ]
        if version > 1:
            refusal = ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=supported)
            return reply(api_key, 0, correlation_id, refusal)
        return reply(api_key, version, correlation_id, ApiVersionsResponse(api_keys=supported))

    async with connected(answer) as connection:
        assert asked == [4, 1]
        assert connection.version_of(ApiKey.METADATA) == 5
        with pytest.raises(KafkaError, match="speaks no Fetch we know"):
            connection.version_of(ApiKey.FETCH)


async def test_a_request_the_protocol_cannot_carry_harms_nobody(env: Env) -> None:
    """It raises where it was made; the connection goes on."""
    async with connected(honest) as connection:
        with pytest.raises(StreamlogError):
            await connection.request(HeartbeatRequest(group_instance_id="x"), HeartbeatResponse, version_max=2)
        await connection.request(HeartbeatRequest(), HeartbeatResponse)


async def test_what_got_no_answer_in_time_does_not_arrive_later(env: Env) -> None:
    """The peer reads nothing for a while, as when a cable is out: then it finds a reset, not the rest of a request."""
    peers: list[Peer] = []
    server = await asyncio.get_running_loop().create_server(lambda: Peer(honest, 1 << 30, peers), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    connection = await connect(Address(host, port), ConnectionSettings(), env.clock, lambda _: None)
    (far,) = peers
    assert far.transport is not None
    far.transport.pause_reading()
    answer = asyncio.ensure_future(connection.request(HeartbeatRequest(), HeartbeatResponse, timeout_ms=100))
    with pytest.raises(BrokerUnreachable, match="sent no HeartbeatResponse in time"):
        await answer
    assert connection.closed is not None
    far.transport.resume_reading()
    async with asyncio.timeout(10):
        await far.gone.wait()
    assert isinstance(far.lost, ConnectionResetError)
    server.close()
    await server.wait_closed()
