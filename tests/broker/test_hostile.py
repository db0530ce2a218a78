"""Peers that are broken or mean, while another client works: memory stays bounded, the other one notices nothing."""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import confluent_kafka as ck
import pytest

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
