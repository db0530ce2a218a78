"""Peers that are broken or mean, while another client works: memory stays bounded, the other one notices nothing."""

from __future__ import annotations

import os
import random
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import confluent_kafka as ck
import pytest
import zstandard
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streamlog.wire.crc import crc32c
from streamlog.wire.frames import decode_response, encode_request
from streamlog.wire.messages.produce import ProduceResponse
from tests.broker.batches import new_batch, produce_request
from tests.broker.running import BrokerProcess

MEMORY_GROWTH_KB_MAX = 120_000
"""What all of one test's misbehaviour may cost. Kafka runs out of a 1 GB heap in several of them."""

METADATA_V9 = struct.pack(">hhih", 3, 9, 1, 0) + b"\x00"
PRODUCE_V9 = struct.pack(">hhih", 0, 9, 1, 0) + b"\x00"
FETCH_V12 = struct.pack(">hhih", 1, 12, 1, 0) + b"\x00"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    data_dir: Path = tmp_path_factory.mktemp("broker")
    with BrokerProcess(data_dir) as running:
        yield running


def connect(broker: BrokerProcess) -> socket.socket:
    host, port = broker.address.split(":")
    return socket.create_connection((host, int(port)), timeout=10)


class Healthy:
    """A client that goes on producing while something else happens; every message has to arrive."""

    def __init__(self, broker: BrokerProcess) -> None:
        self.producer = ck.Producer({"bootstrap.servers": broker.address, "message.timeout.ms": 20_000})
        self.slowest_seconds = 0.0
        self.delivered = 0

    def work(self) -> None:
        errors: list[object] = []
        started = time.monotonic()
        self.producer.produce("healthy", b"x" * 100, on_delivery=lambda error, message: errors.append(error))
        assert self.producer.flush(20) == 0
        assert errors == [None]
        self.delivered += 1
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)


def is_closed(peer: socket.socket) -> bool:
    try:
        while peer.recv(65536):
            pass
    except (ConnectionError, TimeoutError) as error:
        return not isinstance(error, TimeoutError)
    return True


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def huge_count(count: int) -> bytes:
    """A Metadata request that announces `count` topics and has none of them."""
    out = bytearray()
    value = count + 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return framed(METADATA_V9 + bytes(out) + bytes(20))


RANDOM = random.Random(5)

GARBAGE: dict[str, Callable[[], bytes]] = {
    "random bytes": lambda: RANDOM.randbytes(RANDOM.randrange(1, 2000)),
    "random bodies": lambda: framed(RANDOM.randbytes(RANDOM.randrange(0, 500))),
    "a negative size": lambda: struct.pack(">i", -RANDOM.randrange(1, 2**31)),
    "an enormous size": lambda: struct.pack(">i", 2**31 - 1 - RANDOM.randrange(1000)),
    "an unknown API": lambda: framed(struct.pack(">hhih", RANDOM.choice([-1, 4, 500]), 0, 1, -1)),
    "an unknown version": lambda: framed(struct.pack(">hhih", 3, 200, 1, -1)),
    "a header cut short": lambda: framed(METADATA_V9[: RANDOM.randrange(len(METADATA_V9))]),
    "two billion topics": lambda: huge_count(RANDOM.choice([2**31 - 2, 2**30, 10**6])),
    "two billion tags": lambda: framed(METADATA_V9 + b"\x01\x01\x00\x00" + b"\xff\xff\xff\xff\x07" + bytes(20)),
    "random produce": lambda: framed(PRODUCE_V9 + RANDOM.randbytes(300)),
    "random fetch": lambda: framed(FETCH_V12 + RANDOM.randbytes(100)),
    "HTTP": lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_closes_its_connection_and_no_other(broker: BrokerProcess, kind: str) -> None:
    """Rows 1, 3, 6 to 9, 36: thirty peers each; nobody else is disturbed."""
    healthy = Healthy(broker)
    healthy.work()
    before_kb = broker.memory_kb
    for _ in range(30):
        with closing(connect(broker)) as peer:
            peer.sendall(GARBAGE[kind]())
            peer.shutdown(socket.SHUT_WR)
            assert is_closed(peer)
    healthy.work()
    assert broker.memory_kb - before_kb < MEMORY_GROWTH_KB_MAX
    assert broker.process.poll() is None


def test_peers_that_announce_90_mb_and_stall_cost_nothing(broker: BrokerProcess) -> None:
    """Two hundred of them: Apache Kafka runs out of memory here."""
    healthy = Healthy(broker)
    healthy.work()
    before_kb = broker.memory_kb
    with ExitStack() as stack:
        for _ in range(200):
            peer = stack.enter_context(closing(connect(broker)))
            peer.sendall(struct.pack(">i", 90_000_000) + PRODUCE_V9 + bytes(1000))
        for _ in range(20):
            healthy.work()
        assert broker.memory_kb - before_kb < MEMORY_GROWTH_KB_MAX
        assert healthy.delivered == 21


def test_peers_that_send_most_of_a_large_frame_share_a_budget(broker: BrokerProcess) -> None:
    """Together they may hold READ_MEMORY_BYTES_MAX; the rest of them waits, and the healthy one does not."""
    healthy = Healthy(broker)
    healthy.work()
    before_kb = broker.memory_kb
    with ExitStack() as stack:
        for _ in range(12):
            peer = stack.enter_context(closing(connect(broker)))
            peer.setblocking(False)
            rest = memoryview(struct.pack(">i", 90_000_000) + PRODUCE_V9 + bytes(60_000_000))
            deadline = time.monotonic() + 0.5
            while rest and time.monotonic() < deadline:
                try:
                    rest = rest[peer.send(rest) :]
                except (BlockingIOError, ConnectionError):
                    time.sleep(0.01)
        healthy.work()
        assert broker.memory_kb - before_kb < 256 * 1024 + MEMORY_GROWTH_KB_MAX


def test_peers_that_never_read_do_not_fill_the_memory(broker: BrokerProcess) -> None:
    """Each asks again and again for a topic's data and takes none of it."""
    healthy = Healthy(broker)
    value = os.urandom(500_000)
    producer = ck.Producer({"bootstrap.servers": broker.address})
    for _ in range(20):
        producer.produce("large", value)
        producer.flush(20)
    before_kb = broker.memory_kb
    fetch = FETCH_V12 + struct.pack(">iiiibii", -1, 0, 1, 2**31 - 1, 0, 0, -1)
    fetch += b"\x02" + b"\x06large" + b"\x02" + struct.pack(">iiqiqi", 0, -1, 0, -1, -1, 2**31 - 1) + b"\x00\x00"
    fetch += b"\x01\x01\x00"
    with ExitStack() as stack:
        for _ in range(10):
            peer = stack.enter_context(closing(connect(broker)))
            peer.sendall(framed(fetch) * 50)
        for _ in range(10):
            healthy.work()
        assert broker.memory_kb - before_kb < MEMORY_GROWTH_KB_MAX + 10 * 11_000


def test_a_thousand_connections_come_and_go(broker: BrokerProcess) -> None:
    """A flood of connections leaves no descriptors and no memory behind."""
    healthy = Healthy(broker)
    healthy.work()
    fds_before = len(os.listdir(f"/proc/{broker.process.pid}/fd"))
    before_kb = broker.memory_kb
    for _ in range(10):
        with ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(closing(connect(broker))).sendall(b"\x00\x00")
            healthy.work()
    deadline = time.monotonic() + 10
    while len(os.listdir(f"/proc/{broker.process.pid}/fd")) > fds_before + 5:
        assert time.monotonic() < deadline, "descriptors of closed connections stay open"
        time.sleep(0.05)
    assert broker.memory_kb - before_kb < MEMORY_GROWTH_KB_MAX


def test_connections_per_address_are_limited(tmp_path: Path) -> None:
    """Row 11: max.connections.per.ip closes what is above it."""
    with BrokerProcess(tmp_path, "max.connections.per.ip=3") as limited, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(closing(connect(limited)))
        fourth = stack.enter_context(closing(connect(limited)))
        assert is_closed(fourth)


def test_idle_connections_are_closed(tmp_path: Path) -> None:
    """Row 10: connections.max.idle.ms."""
    with BrokerProcess(tmp_path, "connections.max.idle.ms=500") as limited, closing(connect(limited)) as peer:
        assert is_closed(peer)


def unsigned_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def header(api_key: int, version: int) -> bytes:
    return struct.pack(">hhih", api_key, version, 1, -1) + b"\x00"


def repeated(element: bytes, total_bytes: int = 4_000_000) -> bytes:
    """A compact array that really has as many elements as it announces."""
    count = total_bytes // len(element)
    return unsigned_varint(count + 1) + element * count


ONE_TOPIC = unsigned_varint(2) + b"\x02a"

SWARMS: dict[str, Callable[[], bytes]] = {
    "Metadata": lambda: header(3, 9) + repeated(b"\x02a\x00") + b"\x01\x00\x00\x00",
    "FindCoordinator": lambda: header(10, 4) + b"\x00" + repeated(b"\x02a") + b"\x00",
    "DescribeGroups": lambda: header(15, 5) + repeated(b"\x02a") + b"\x00\x00",
    "DeleteGroups": lambda: header(42, 2) + repeated(b"\x02a") + b"\x00",
    "DeleteTopics": lambda: header(20, 5) + repeated(b"\x02a") + struct.pack(">i", 100) + b"\x00",
    "DescribeConfigs": lambda: header(32, 4) + repeated(b"\x02\x02a\x00\x00") + b"\x00\x00\x00",
    "ListOffsets": lambda: (
        header(2, 7) + struct.pack(">ib", -1, 0) + ONE_TOPIC + repeated(struct.pack(">iiqb", 0, -1, -1, 0)) + bytes(2)
    ),
    "OffsetFetch": lambda: header(9, 8) + b"\x02\x02g" + ONE_TOPIC + repeated(struct.pack(">i", 0)) + bytes(4),
    "Produce": lambda: (
        PRODUCE_V9 + b"\x00" + struct.pack(">hi", 1, 1000) + ONE_TOPIC + repeated(bytes(4) + b"\x01\x00") + bytes(2)
    ),
    "JoinGroup": lambda: (
        header(11, 7)
        + (b"\x02g" + struct.pack(">ii", 10000, 10000) + b"\x01\x00" + b"\x02c")
        + (repeated(b"\x02a\x01\x00") + b"\x00")
    ),
    "OffsetCommit": lambda: (
        header(8, 8)
        + (b"\x02g" + struct.pack(">i", -1) + b"\x01\x00" + ONE_TOPIC)
        + (repeated(struct.pack(">iqi", 0, 1, -1) + b"\x01\x00") + bytes(2))
    ),
}


@pytest.mark.parametrize("kind", SWARMS)
def test_millions_of_tiny_elements_cost_what_their_bytes_are_worth(broker: BrokerProcess, kind: str) -> None:
    """Row 8, CVE-2026-111108 and -111115: whether it is answered or closed, memory stays in proportion."""
    healthy = Healthy(broker)
    healthy.work()
    before_kb = broker.memory_kb
    for _ in range(3):
        with closing(connect(broker)) as peer:
            peer.sendall(framed(SWARMS[kind]()))
            peer.shutdown(socket.SHUT_WR)
            assert is_closed(peer)
        healthy.work()
    assert broker.memory_kb - before_kb < MEMORY_GROWTH_KB_MAX
    assert healthy.slowest_seconds < 10


BOMB_BYTES = 1_000_000_000


def gzip_bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(bytes(10_000_000)) for _ in range(BOMB_BYTES // 10_000_000)), packer.flush()])


def zstd_bomb() -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return b"".join([*(packer.compress(bytes(10_000_000)) for _ in range(BOMB_BYTES // 10_000_000)), packer.flush()])


BOMBS: dict[str, Callable[[], bytes]] = {"gzip": gzip_bomb, "zstd": zstd_bomb}


@pytest.mark.parametrize("codec", BOMBS)
def test_a_decompression_bomb_is_refused_where_records_are_read(broker: BrokerProcess, codec: str) -> None:
    """Row 21: a compacted topic's keys are looked at, so its batches are opened; a gigabyte of zeros is not."""
    admin = AdminClient({"bootstrap.servers": broker.address})
    topic = f"bombed-{codec}"
    configs = {"cleanup.policy": "compact", "max.message.bytes": "10000000"}
    admin.create_topics([NewTopic(topic, 1, 1, config=configs)])[topic].result(10)
    healthy = Healthy(broker)
    healthy.work()
    batch = bytearray(new_batch(b"x", key=b"k")[:61] + BOMBS[codec]())
    batch[8:12] = struct.pack(">i", len(batch) - 12)
    batch[21:23] = struct.pack(">h", {"gzip": 1, "zstd": 4}[codec])
    batch[17:21] = crc32c(bytes(batch[21:])).to_bytes(4, "big")
    before_kb = broker.memory_kb
    with closing(connect(broker)) as peer:
        peer.sendall(encode_request(produce_request(topic, bytes(batch)), 9, 1, "bomber"))
        size = struct.unpack(">i", peer.recv(4, socket.MSG_WAITALL))[0]
        _, answer = decode_response(ProduceResponse, 9, peer.recv(size, socket.MSG_WAITALL))
    healthy.work()
    assert answer.responses[0].partition_responses[0].error_code in (2, 10, 87)
    assert broker.memory_kb - before_kb < MEMORY_GROWTH_KB_MAX
    assert healthy.slowest_seconds < 10


def test_frames_that_trickle_in_are_cut_off(broker: BrokerProcess) -> None:
    """Row 10: a byte now and then keeps no connection; whoever sends whole frames keeps his."""
    healthy = Healthy(broker)
    with ExitStack() as stack:
        peers = [stack.enter_context(closing(connect(broker))) for _ in range(50)]
        for peer in peers:
            peer.sendall(struct.pack(">i", 1000))
        deadline = time.monotonic() + 30
        while peers:
            assert time.monotonic() < deadline, "half frames are kept for ever"
            healthy.work()
            time.sleep(0.2)
            for peer in list(peers):
                try:
                    peer.sendall(b"\x00")
                except ConnectionError:
                    peers.remove(peer)
