"""The runtime appends before it applies, applies before it answers, and answers only what is committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from streamlog.broker.coordinator.runtime import ShardRuntime
from streamlog.broker.coordinator.shard import Applied, Caller, Decision, Now, Refuse, Reply
from streamlog.broker.coordinator.shard_log import BATCH_BYTES_MAX, encode_batches
from streamlog.env import RealClock, Scope
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.records import ControlType, encode_control_batch, iter_batch_headers
from tests.broker.coordinator.memory_log import MemoryLog


@dataclass(frozen=True)
class Added:
    name: str
    amount: int


class AddedCodec:
    def encode(self, record: Added) -> tuple[bytes, bytes | None]:
        return record.name.encode(), str(record.amount).encode()

    def decode(self, key: bytes, value: bytes | None) -> Added | None:
        assert value is not None
        return None if key.startswith(b"?") else Added(key.decode(), int(value))


class Sums:
    """A shard that adds. Requests: "name+3" adds, "name" reads, "name@50" is parked and answered in 50 ms,
    "boom" breaks, "no" is refused.
    """

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.sums: dict[str, int] = {}
        self.markers: list[tuple[int, bool]] = []
        self.parked: list[tuple[int, str, Caller]] = []

    def handle(self, request: str, caller: Caller, now: Now) -> Decision[Added]:
        if request == "boom":
            raise RuntimeError("boom")
        if request == "no":
            return Decision(replies=[Refuse(caller.token, ErrorCode.INVALID_REQUEST, "no")])
        name, plus, amount = request.partition("+")
        if plus:
            total = self.sums.get(name, 0) + int(amount)
            return Decision([Added(name, int(amount))], [Reply(caller.token, total)], [f"{name} grows"])
        name, at, delay_ms = request.partition("@")
        if at:
            self.parked.append((now.mono_ms + int(delay_ms), name, caller))
            return Decision()
        return Decision(replies=[Reply(caller.token, self.sums.get(name, 0))])

    def next_deadline_ms(self) -> int | None:
        return min((due_ms for due_ms, _, _ in self.parked), default=None)

    def on_deadline(self, now: Now) -> Decision[Added]:
        due = [(name, caller) for due_ms, name, caller in self.parked if due_ms <= now.mono_ms]
        self.parked = [entry for entry in self.parked if entry[0] > now.mono_ms]
        return Decision(replies=[Reply(caller.token, self.sums.get(name, 0)) for name, caller in due])

    def apply(self, applied: Applied[Added]) -> None:
        record = applied.record
        self.sums[record.name] = self.sums.get(record.name, 0) + record.amount

    def apply_marker(self, producer_id: int, committed: bool) -> None:
        self.markers.append((producer_id, committed))

    def on_loaded(self, now: Now) -> Decision[Added]:
        return Decision()


class Stage:
    """A runtime over one memory log."""

    def __init__(self, scope: Scope) -> None:
        self.log = MemoryLog()
        self.shards: list[Sums] = []
        self.runtime: ShardRuntime[str, Added] = ShardRuntime(
            "sums", self._make, AddedCodec(), RealClock(), scope, commit_timeout_ms=100, reload_pause_ms=0
        )

    def _make(self, partition: int) -> Sums:
        self.shards.append(Sums(partition))
        return self.shards[-1]

    def load(self) -> None:
        self.runtime.load(0, self.log)

    async def loaded(self) -> None:
        while 0 not in self.runtime.partitions():
            await asyncio.sleep(0.001)

    def ask(self, request: str, partition: int = 0) -> asyncio.Future[object]:
        return self.runtime.ask(partition, request, api_version=0)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    async with Scope("test") as scope:
        made = Stage(scope)
        made.load()
        await made.loaded()
        yield made
        await made.runtime.close()


def code(future: asyncio.Future[object]) -> ErrorCode:
    error = future.exception()
    assert isinstance(error, KafkaError)
    return error.code


async def test_a_committed_write_is_answered_at_once() -> None:
    """No task, no turn of the loop."""
    async with stage() as one:
        future = one.ask("a+3")
        assert future.done()
        assert future.result() == 3
        assert one.ask("a").result() == 3
        assert one.log.end_offset == 1


async def test_replies_wait_for_the_log_reads_too() -> None:
    """A read that saw an uncommitted write waits for that write."""
    async with stage() as one:
        one.log.hold()
        write, read = one.ask("a+3"), one.ask("a")
        await asyncio.sleep(0)
        assert not write.done()
        assert not read.done()
        one.log.release()
        assert await read == 3
        assert write.result() == 3


async def test_replies_leave_in_the_order_of_their_decisions() -> None:
    """The queue is the order of the log."""
    async with stage() as one:
        one.log.hold()
        order: list[str] = []
        futures = {one.ask(f"{name}+1"): name for name in "abc"}
        for future in futures:
            future.add_done_callback(lambda done: order.append(futures[done]))
        one.log.release()
        await asyncio.wait(futures)
        assert order == ["a", "b", "c"]


async def test_another_broker_may_coordinate() -> None:
    """A partition that was never loaded here, or no longer is."""
    async with stage() as one:
        assert code(one.ask("a", partition=1)) is ErrorCode.NOT_COORDINATOR
        one.runtime.unload(0)
        assert code(one.ask("a")) is ErrorCode.NOT_COORDINATOR


async def test_a_coordinator_that_is_cut_off_sends_everybody_away() -> None:
    """And is one again if nobody has taken its place: its shard is what it was."""
    async with stage() as one:
        one.ask("a+3")
        one.log.is_cut_off = True
        assert code(one.ask("a")) is ErrorCode.NOT_COORDINATOR
        one.log.is_cut_off = False
        assert one.ask("a").result() == 3


async def test_nothing_is_answered_from_a_half_loaded_shard() -> None:
    """Until the log is folded the answer is to come again."""
    async with stage() as one:
        one.ask("a+3")
        one.log.reading.clear()
        one.load()
        await asyncio.sleep(0)
        assert code(one.ask("a")) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        assert one.runtime.is_loading()
        one.log.reading.set()
        await one.loaded()
        assert one.ask("a").result() == 3


async def test_losing_the_partition_answers_everybody() -> None:
    """Parked requests and those that wait for the log."""
    async with stage() as one:
        parked = one.ask("a@60000")
        one.log.hold()
        write = one.ask("a+3")
        one.runtime.unload(0)
        assert code(parked) is ErrorCode.NOT_COORDINATOR
        assert code(write) is ErrorCode.NOT_COORDINATOR


async def test_closing_answers_everybody() -> None:
    """Clients find another coordinator."""
    async with Scope("test") as scope:
        one = Stage(scope)
        one.load()
        await one.loaded()
        parked = one.ask("a@60000")
        await one.runtime.close()
        assert code(parked) is ErrorCode.COORDINATOR_NOT_AVAILABLE


async def test_a_refused_append_drops_the_shard_and_folds_the_log_anew() -> None:
    """What was not written did not happen."""
    async with stage() as one:
        one.ask("a+3")
        parked = one.ask("a@60000")
        one.log.refuses = ErrorCode.NOT_ENOUGH_REPLICAS
        assert code(one.ask("a+4")) is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert code(parked) is ErrorCode.COORDINATOR_NOT_AVAILABLE
        await one.loaded()
        assert len(one.shards) == 2
        assert one.ask("a").result() == 3


async def test_a_lost_log_is_not_folded_again() -> None:
    """Whoever leads it now will."""
    async with stage() as one:
        one.log.refuses = ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert code(one.ask("a+4")) is ErrorCode.NOT_COORDINATOR
        assert len(one.shards) == 1
        assert code(one.ask("a")) is ErrorCode.NOT_COORDINATOR


async def test_a_log_that_a_full_disk_refused_is_folded_anew() -> None:
    """Clients look for another coordinator and find this one again, which serves as soon as there is room."""
    async with stage() as one:
        one.ask("a+3")
        one.log.refuses = ErrorCode.KAFKA_STORAGE_ERROR
        assert code(one.ask("a+4")) is ErrorCode.NOT_COORDINATOR
        await one.loaded()
        assert one.ask("a").result() == 3


async def test_a_mistake_of_ours_is_contained() -> None:
    """The shard may be half changed, so it goes; the log stays."""
    async with stage() as one:
        one.ask("a+3")
        assert code(one.ask("boom")) is ErrorCode.UNKNOWN_SERVER_ERROR
        await one.loaded()
        assert one.ask("a").result() == 3


async def test_a_damaged_log_is_not_served() -> None:
    """Half of the commits would be worse than none."""
    async with stage() as one:
        one.ask("a+3")
        one.log.data[-1] ^= 1
        one.load()
        while one.runtime.is_loading():
            await asyncio.sleep(0)
        assert code(one.ask("a")) is ErrorCode.COORDINATOR_NOT_AVAILABLE


async def test_a_commit_that_takes_too_long_is_refused_and_stays_in_the_log() -> None:
    """Like a produce request that timed out: it may be committed later."""
    async with stage() as one:
        one.log.hold()
        future = one.ask("a+3")
        with pytest.raises(KafkaError, match="COORDINATOR_NOT_AVAILABLE"):
            await future
        one.log.release()
        assert await one.ask("a") == 3


async def test_a_client_that_goes_away_harms_nobody() -> None:
    """Its future is cancelled; the reply finds nobody."""
    async with stage() as one:
        parked = one.ask("a@20")
        parked.cancel()
        assert await one.ask("a@30") == 0


async def test_deadlines_fire_also_when_an_earlier_one_comes_later() -> None:
    """One timer serves all."""
    async with stage() as one:
        late, early = one.ask("a@60"), one.ask("a@20")
        assert await early == 0
        assert not late.done()
        assert await late == 0


async def test_a_refusal_is_an_error_with_its_message() -> None:
    """Shards may refuse a request as a whole."""
    async with stage() as one:
        with pytest.raises(KafkaError, match="INVALID_REQUEST: no"):
            await one.ask("no")


async def test_markers_and_foreign_records_are_folded_or_stepped_over() -> None:
    """A log written by Kafka holds both."""
    async with stage() as one:
        one.ask("?foreign+1")
        one.ask("a+3")
        for kind in (ControlType.COMMIT, ControlType.ABORT, ControlType.LEADER_CHANGE):
            one.log.append(encode_control_batch(kind, b"\0\0\0\0\0\0", timestamp_ms=0, producer_id=9), 0)
        one.load()
        await one.loaded()
        assert one.shards[-1].markers == [(9, True), (9, False)]
        assert one.shards[-1].sums == {"a": 3}


def test_large_decisions_become_several_batches() -> None:
    """No batch is larger than topics accept, unless one record is."""
    records = [Added("x" * 100_000, number) for number in range(12)]
    batches = list(encode_batches(records, AddedCodec(), 0))
    assert [count for _, count in batches] == [5, 5, 2]
    for batch, count in batches:
        assert len(batch) <= BATCH_BYTES_MAX
        ((_, header),) = list(iter_batch_headers(batch))
        assert header.record_count == count
