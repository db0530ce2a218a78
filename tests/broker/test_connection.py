"""The connection by itself: a transport that writes down what it is told, a dispatcher that answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

import pytest

from streamlog.broker import limits
from streamlog.broker.connection import Answer, Connection, Parts, Shared, Waiting
from streamlog.env import Buffer
from streamlog.errors import RemoteProtocolError

REQUEST_BYTES_MAX = 100 * 1024 * 1024


class WrittenTransport(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.gathered: list[bytes] = []  # the parts of `writes`
        self.reading = True
        self.closed = False
        self.aborted = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 1) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: Buffer) -> None:
        self.writes.append(bytes(data))
        self.gathered.append(bytes(data))

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        self.gathered += [bytes(data) for data in list_of_data]
        self.writes.append(b"".join(list_of_data))

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


class ScriptedDispatcher:
    """Echoes a request's body in brackets; a body that begins with `wait` waits for `release`."""

    def __init__(self) -> None:
        self.handled: list[bytes] = []
        self.waiting: list[asyncio.Future[None]] = []
        self.scripted: list[Parts] = []

    def serve(self, connection: Connection, frame: memoryview) -> Answer:
        body = bytes(frame[2:])
        self.handled.append(body)
        if self.scripted:
            return self.scripted.pop(0)
        if body.startswith(b"bad"):
            raise RemoteProtocolError("garbage")
        if body.startswith(b"quiet"):
            return None
        parts: Parts = [b"[" + body + b"]"]
        if not body.startswith(b"wait"):
            return parts
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        return Waiting(future, partial(_give, parts))

    async def release(self, number: int) -> None:
        self.waiting[number].set_result(None)
        for _ in range(3):
            await asyncio.sleep(0)


def _give(parts: Parts) -> Parts:
    return parts


def is_reading(transport: WrittenTransport) -> bool:
    return transport.reading


def frame(body: bytes, api_key: int = 1) -> bytes:
    """A request whose first two bytes are an API key."""
    return (len(body) + 2).to_bytes(4, "big") + api_key.to_bytes(2, "big") + body


class Bench:
    """One connection, its transport and its dispatcher."""

    def __init__(self) -> None:
        self.dispatcher = ScriptedDispatcher()
        self.shared = Shared(
            self.dispatcher, REQUEST_BYTES_MAX, admit=lambda connection: None, forget=lambda connection: None, tick_ms=0
        )
        self.transports: dict[Connection, WrittenTransport] = {}
        self.connection, self.transport = self.connect()

    def connect(self) -> tuple[Connection, WrittenTransport]:
        connection, transport = Connection(self.shared, id(object()), "PLAINTEXT"), WrittenTransport()
        connection.connection_made(transport)
        self.transports[connection] = transport
        return connection, transport

    def receive(self, data: bytes, connection: Connection | None = None) -> None:
        """What the event loop does: read into the connection's buffer as long as there is something."""
        connection = connection or self.connection
        transport = self.transports[connection]
        rest = memoryview(data)
        while rest and transport.reading:
            buffer = connection.get_buffer(-1)
            count = min(len(buffer), len(rest))
            assert count, "a connection that reads offers room"
            buffer[:count] = rest[:count]
            rest = rest[count:]
            connection.buffer_updated(count)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_requests_of_one_read_are_answered_in_one_write(bench: Bench) -> None:
    """Pipelining is cheap: three requests, one write."""
    bench.receive(frame(b"a") + frame(b"b") + frame(b"c"))
    assert bench.transport.writes == [b"[a][b][c]"]


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7])
async def test_frames_are_put_together_however_they_are_cut(bench: Bench, step: int) -> None:
    """TCP knows no frames."""
    data = b"".join(frame(b"request %d" % number) for number in range(20))
    for start in range(0, len(data), step):
        bench.receive(data[start : start + step])
    assert bench.dispatcher.handled == [b"request %d" % number for number in range(20)]
    assert bench.shared.held_bytes == 0


async def test_a_large_frame_arrives_whole(bench: Bench) -> None:
    """Five megabytes through a buffer that doubles, and the memory is given back."""
    body = bytes(range(256)) * 20_000
    bench.receive(frame(b"x") + frame(body) + frame(b"y"))
    assert bench.dispatcher.handled == [b"x", body, b"y"]
    assert bench.shared.held_bytes == 0


async def test_an_announced_size_costs_nothing_until_the_bytes_arrive(bench: Bench) -> None:
    """A peer that says 90 MB and stalls holds what it has sent."""
    bench.receive((90 * 1024 * 1024).to_bytes(4, "big") + b"\x00\x01")
    assert bench.connection.held_bytes <= limits.READ_BUFFER_BYTES_MIN


async def test_a_growing_buffer_never_holds_more_than_twice_what_arrived(bench: Bench) -> None:
    """Memory follows bytes received."""
    bench.receive((50 * 1024 * 1024).to_bytes(4, "big"))
    sent = 4
    for _ in range(100):
        bench.receive(bytes(50_000))
        sent += 50_000
        assert bench.connection.held_bytes <= max(2 * sent, limits.READ_BUFFER_BYTES_MIN)


async def test_an_idle_connection_holds_no_buffer(bench: Bench) -> None:
    """After its last whole frame only the shared scratch buffer is left."""
    bench.receive(frame(b"x" * 300_000))
    bench.connection.release_idle_buffer(limits.SWEEP_MS + 1)
    assert bench.connection.held_bytes == 0


@pytest.mark.parametrize("size", [-1, -(2**31), REQUEST_BYTES_MAX + 1, 2**31 - 1])
async def test_an_impossible_size_closes_the_connection(bench: Bench, size: int) -> None:
    """Row 1: no reply, no allocation."""
    bench.receive(frame(b"first") + size.to_bytes(4, "big", signed=True) + b"rest")
    assert bench.transport.writes == [b"[first]"]
    assert bench.transport.closed
    assert bench.shared.rejected == 1


async def test_garbage_closes_the_connection_after_the_answers_before_it(bench: Bench) -> None:
    """What was asked properly is answered."""
    bench.receive(frame(b"a") + frame(b"bad") + frame(b"never"))
    assert bench.transport.writes == [b"[a]"]
    assert bench.transport.closed
    assert bench.dispatcher.handled == [b"a", b"bad"]


async def test_garbage_behind_a_waiting_request_closes_once_that_is_answered(bench: Bench) -> None:
    """A produce request that waits for the disk is still acknowledged."""
    bench.receive(frame(b"wait", 0) + (-1).to_bytes(4, "big", signed=True))
    assert bench.transport.writes == []
    await bench.dispatcher.release(0)
    assert bench.transport.writes == [b"[wait]"]
    assert bench.transport.closed


async def test_a_request_behind_a_waiting_one_is_not_handled_yet(bench: Bench) -> None:
    """One request of a connection at a time, as in Kafka."""
    bench.receive(frame(b"wait") + frame(b"next"))
    assert bench.dispatcher.handled == [b"wait"]
    await bench.dispatcher.release(0)
    assert bench.dispatcher.handled == [b"wait", b"next"]
    assert b"".join(bench.transport.writes) == b"[wait][next]"


async def test_produce_requests_wait_for_the_disk_together(bench: Bench) -> None:
    """Appending the second does not wait for the sync of the first; the answers keep their order."""
    bench.receive(frame(b"wait1", 0) + frame(b"wait2", 0) + frame(b"now", 0))
    assert bench.dispatcher.handled == [b"wait1", b"wait2", b"now"]
    await bench.dispatcher.release(1)
    assert bench.transport.writes == []
    await bench.dispatcher.release(0)
    assert bench.transport.writes == [b"[wait1][wait2][now]"]


async def test_another_request_waits_behind_overlapping_produce_requests(bench: Bench) -> None:
    """A fetch behind two produce requests sees both of them stored."""
    bench.receive(frame(b"wait1", 0) + frame(b"wait2", 0) + frame(b"fetch", 1))
    await bench.dispatcher.release(0)
    assert bench.dispatcher.handled == [b"wait1", b"wait2"]
    await bench.dispatcher.release(1)
    assert bench.dispatcher.handled == [b"wait1", b"wait2", b"fetch"]


async def test_a_produce_request_waits_behind_another_request(bench: Bench) -> None:
    """Only produce requests overlap, and only with each other."""
    bench.receive(frame(b"wait", 1) + frame(b"produce", 0))
    assert bench.dispatcher.handled == [b"wait"]


async def test_a_request_without_answer_leaves_no_hole(bench: Bench) -> None:
    """acks=0."""
    bench.receive(frame(b"quiet", 0) + frame(b"b"))
    assert bench.transport.writes == [b"[b]"]


async def test_reading_stops_while_a_request_waits_and_the_peer_goes_on(bench: Bench) -> None:
    """What piles up behind a waiting request is bounded by the read-ahead."""
    bench.receive(frame(b"wait"))
    for _ in range(1000):
        bench.receive(frame(b"x" * 1000))
    assert bench.connection.held_bytes <= 2 * limits.READ_BUFFER_BYTES_MIN
    assert bench.dispatcher.handled == [b"wait"]
    await bench.dispatcher.release(0)
    assert len(bench.dispatcher.handled) > 60
    assert is_reading(bench.transport)


async def test_a_peer_that_does_not_read_is_not_answered_further(bench: Bench) -> None:
    """The write buffer is full: later requests wait for the peer."""
    bench.connection.pause_writing()
    bench.receive(frame(b"a"))
    assert bench.dispatcher.handled == []
    bench.connection.resume_writing()
    assert bench.dispatcher.handled == [b"a"]


async def test_a_half_frame_has_a_deadline(bench: Bench) -> None:
    """Slowloris: half a header, then silence."""
    bench.receive(b"\x00\x00")
    assert not bench.connection.is_too_slow(limits.FRAME_START_MS_MAX)
    assert bench.connection.is_too_slow(limits.FRAME_START_MS_MAX + 1_000)


async def test_a_frame_that_keeps_coming_has_no_deadline(bench: Bench) -> None:
    """A slow link is not an attack."""
    bench.receive((10 * 1024 * 1024).to_bytes(4, "big") + bytes(limits.FRAME_BYTES_PER_SECOND_MIN * 60))
    assert not bench.connection.is_too_slow(limits.FRAME_START_MS_MAX + 60_000)
    assert bench.connection.is_too_slow(limits.FRAME_START_MS_MAX + 70_000)


async def test_a_wait_of_ours_does_not_count_against_the_peer(bench: Bench) -> None:
    """Bytes behind a waiting request are not a slow frame."""
    bench.receive(frame(b"wait") + b"\x00\x00")
    await bench.dispatcher.release(0)
    bench.receive(frame(b"wait")[2:] + frame(b"next") + b"\x00")
    assert not bench.connection.is_too_slow(10 * limits.FRAME_START_MS_MAX)


async def test_a_frame_waits_for_memory_that_others_hold(bench: Bench) -> None:
    """Past the budget a connection stops reading, and goes on when there is room."""
    bench.shared.held_bytes = limits.READ_MEMORY_BYTES_MAX
    other, transport = bench.connect()
    bench.receive((1024 * 1024).to_bytes(4, "big") + bytes(limits.READ_BUFFER_BYTES_MIN - 4), other)
    assert not is_reading(transport)
    assert not other.feed()
    bench.shared.held_bytes -= 10 * 1024 * 1024
    assert other.feed()
    assert is_reading(transport)
    assert not bench.shared.starved


async def test_losing_the_connection_cancels_what_waits(bench: Bench) -> None:
    """Nobody works for a peer that has left."""
    bench.receive(frame(b"wait"))
    bench.connection.connection_lost(None)
    assert bench.dispatcher.waiting[0].cancelled()


@pytest.mark.parametrize(
    ("head", "hint"), [(b"GET / HTTP/1.1\r\n", "HTTP"), (b"\x16\x03\x01\x02\x00\x01", "TLS"), (b"\xff" * 8, "negative")]
)
async def test_what_knocks_at_the_wrong_door_is_named(
    bench: Bench, caplog: pytest.LogCaptureFixture, head: bytes, hint: str
) -> None:
    """Row 36: the log says what it probably was."""
    with caplog.at_level("INFO", logger="streamlog.broker.connection"):
        bench.receive(head)
    assert bench.transport.closed
    assert hint in caplog.text


async def test_large_parts_are_written_without_being_joined(bench: Bench) -> None:
    """Record batches go out as they are; small parts around them are joined."""
    big = b"z" * (limits.WRITE_JOIN_BYTES_MAX + 1)
    bench.dispatcher.scripted = [[b"a", b"b", big, b"c"], [b"d"]]
    bench.receive(frame(b"1") + frame(b"2"))
    assert bench.transport.gathered == [b"ab", big, b"cd"]
