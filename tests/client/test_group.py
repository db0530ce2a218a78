"""Consumer groups against a real broker: nobody owns what another owns, nothing is lost, nothing is read twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import confluent_kafka
import pytest

from streamlog.client.admin import Admin, NewTopic
from streamlog.client.assignors import Assignor, CooperativeStickyAssignor, RangeAssignor, RoundRobinAssignor
from streamlog.client.cluster import GROUP_COORDINATOR, Cluster
from streamlog.client.config import ConnectionSettings
from streamlog.client.consumer import Consumer
from streamlog.client.producer import Producer
from streamlog.client.values import OffsetAndMetadata, TopicPartition
from streamlog.env import Env
from streamlog.errors import UserError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import LeaveGroupRequest, LeaveGroupResponse
from streamlog.wire.messages.leave_group import MemberIdentity
from tests.brokers import BrokerUnderTest

PARTITIONS = 6

ASSIGNORS: dict[str, type[RangeAssignor | RoundRobinAssignor | CooperativeStickyAssignor]] = {
    "range": RangeAssignor,
    "roundrobin": RoundRobinAssignor,
    "cooperative-sticky": CooperativeStickyAssignor,
}


@pytest.fixture
async def wide(admin: Admin, name: Callable[[str], str]) -> str:
    """A topic with six partitions."""
    made = name("wide")
    await admin.create_topics([NewTopic(made, partitions=PARTITIONS, replication_factor=1)])
    return made


class Ownership:
    """Who owns what, as the members' callbacks tell it; a partition with two owners fails the test."""

    def __init__(self) -> None:
        self.owner: dict[TopicPartition, str] = {}
        self.assigned = 0  # callbacks
        self.revoked = 0
        self.lost = 0
        self.failures: list[BaseException] = []  # of workers

    def take(self, who: str, partitions: Sequence[TopicPartition]) -> None:
        self.assigned += 1
        for one in partitions:
            assert one not in self.owner, f"{one} was given to {who} while {self.owner[one]} had it"
            self.owner[one] = who

    def give(self, who: str, partitions: Sequence[TopicPartition], *, lost: bool = False) -> None:
        self.revoked += not lost
        self.lost += lost
        for one in partitions:
            assert self.owner.pop(one) == who

    def shares(self) -> list[int]:
        return sorted(Counter(self.owner.values()).values())


class Worker:
    """A member that records what it processed and commits every batch."""

    def __init__(
        self, who: str, consumer: Consumer, ownership: Ownership, seen: dict[TopicPartition, list[int]]
    ) -> None:
        self.who = who
        self.consumer = consumer
        self.ownership = ownership
        self.seen = seen
        self.stopping = False

    def subscribe(self, topics: Sequence[str]) -> None:
        self.consumer.subscribe(
            topics,
            on_assigned=lambda partitions: self.ownership.take(self.who, partitions),
            on_revoked=self._on_revoked,
            on_lost=lambda partitions: self.ownership.give(self.who, partitions, lost=True),
        )

    async def _on_revoked(self, partitions: list[TopicPartition]) -> None:
        await asyncio.sleep(0.01)  # a commit or a flush of the application
        self.ownership.give(self.who, partitions)

    async def work(self) -> None:
        try:
            await self._work()
        except Exception as failure:
            self.ownership.failures.append(failure)
            raise

    async def _work(self) -> None:
        while not self.stopping:
            for batch in await self.consumer.fetch(timeout_ms=100, records_max=50):
                partition = TopicPartition(batch.topic, batch.partition)
                assert self.ownership.owner[partition] == self.who, "records of a partition that is another's"
                self.seen.setdefault(partition, []).extend(batch.columns.offsets)
                await asyncio.sleep(0.001)
                await self.consumer.commit({partition: OffsetAndMetadata(batch.next_offset, batch.leader_epoch)})


@asynccontextmanager
async def worker(
    who: str,
    bootstrap: str,
    env: Env,
    group: str,
    topics: Sequence[str],
    ownership: Ownership,
    seen: dict[TopicPartition, list[int]],
    assignor: Assignor,
    instance: str | None = None,
    session_timeout_ms: int = 6_000,
) -> AsyncIterator[Worker]:
    consumer = Consumer(
        bootstrap,
        env=env,
        client_id=who,
        group_id=group,
        group_instance_id=instance,
        assignors=[assignor],
        auto_offset_reset="earliest",
        heartbeat_interval_ms=100,
        session_timeout_ms=session_timeout_ms,
        rebalance_timeout_ms=10_000,
        fetch_max_wait_ms=50,
    )
    async with consumer:
        made = Worker(who, consumer, ownership, seen)
        made.subscribe(topics)
        task = asyncio.create_task(made.work())
        try:
            yield made
            assert not task.done() or task.exception() is None
        finally:
            made.stopping = True
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], what: str, ownership: Ownership | None = None) -> None:
    try:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)
                if ownership is not None and ownership.failures:
                    raise ownership.failures[0]
    except TimeoutError:
        raise AssertionError(f"not within 30 s: {what}") from None


@pytest.mark.parametrize("strategy", list(ASSIGNORS))
async def test_members_come_and_go_and_every_record_is_processed_once(
    bootstrap: str, env: Env, wide: str, name: Callable[[str], str], strategy: str
) -> None:
    """Three members join and leave while records flow: balanced shares, one owner each, no record lost or doubled."""
    group, ownership, seen = name("group"), Ownership(), dict[TopicPartition, list[int]]()
    made = ASSIGNORS[strategy]
    written = 0
    stop = asyncio.Event()

    async def produce() -> None:
        nonlocal written
        async with Producer(bootstrap, env=env) as producer:
            while not stop.is_set():
                for number in range(60):
                    producer.append(wide, number % PARTITIONS, None, b"v", env.clock.wall_ms())
                written += 10
                await producer.flush()
                await asyncio.sleep(0.005)

    producing = asyncio.create_task(produce())
    arguments = (bootstrap, env, group, [wide], ownership, seen)
    async with worker("a", *arguments, made()):
        await until(lambda: ownership.shares() == [6], "a owns everything", ownership)
        async with worker("b", *arguments, made()):
            await until(lambda: ownership.shares() == [3, 3], "a and b share", ownership)
            async with worker("c", *arguments, made()):
                await until(lambda: ownership.shares() == [2, 2, 2], "all three share", ownership)
                await asyncio.sleep(0.3)
            await until(lambda: ownership.shares() == [3, 3], "c left", ownership)
        await until(lambda: ownership.shares() == [6], "b left", ownership)
        stop.set()
        await producing
        await until(lambda: sum(map(len, seen.values())) >= written * PARTITIONS, "everything is processed", ownership)
    assert ownership.owner == {}, "closing gives everything up"
    assert ownership.lost == 0
    for number in range(PARTITIONS):
        assert seen[TopicPartition(wide, number)] == list(range(written))


async def test_cooperative_members_keep_working_while_others_join(
    bootstrap: str, env: Env, wide: str, name: Callable[[str], str]
) -> None:
    """Under the cooperative protocol a member only hears of the partitions that really move."""
    group, ownership, seen = name("group"), Ownership(), dict[TopicPartition, list[int]]()
    arguments = (bootstrap, env, group, [wide], ownership, seen)
    async with worker("a", *arguments, CooperativeStickyAssignor()):
        await until(lambda: ownership.shares() == [6], "a owns everything", ownership)
        before = dict(ownership.owner)
        async with worker("b", *arguments, CooperativeStickyAssignor()):
            await until(lambda: ownership.shares() == [3, 3], "a and b share", ownership)
            assert ownership.revoked == 1
            moved = [one for one in before if ownership.owner[one] != before[one]]
            assert len(moved) == 3


async def test_more_members_than_partitions_is_a_normal_state(
    bootstrap: str, env: Env, topic: str, name: Callable[[str], str]
) -> None:
    """A member without partitions stays in the group and takes over when one is free."""
    group, ownership, seen = name("group"), Ownership(), dict[TopicPartition, list[int]]()
    arguments = (bootstrap, env, group, [topic], ownership, seen)
    async with worker("a", *arguments, RangeAssignor()), worker("b", *arguments, RangeAssignor()):
        async with worker("c", *arguments, RangeAssignor()), worker("d", *arguments, RangeAssignor()) as idle:
            await until(lambda: ownership.shares() == [1, 1, 1], "three of four have one", ownership)
            await until(lambda: idle.consumer.generation_id > 0, "the fourth is a member", ownership)
        await until(lambda: ownership.shares() == [1, 2], "the rest shares", ownership)


async def test_a_static_member_comes_back_without_a_rebalance(
    bootstrap: str, env: Env, wide: str, name: Callable[[str], str]
) -> None:
    """A member with an instance id restarts within its session: the other one notices nothing."""
    group, ownership, seen = name("group"), Ownership(), dict[TopicPartition, list[int]]()
    arguments = (bootstrap, env, group, [wide], ownership, seen)
    async with worker("a", *arguments, RangeAssignor(), "one") as staying:
        async with worker("b", *arguments, RangeAssignor(), "two"):
            await until(lambda: ownership.shares() == [3, 3], "a and b share", ownership)
            generation_id = staying.consumer.generation_id
            mine = sorted(one for one, who in ownership.owner.items() if who == "b")
        async with worker("b", *arguments, RangeAssignor(), "two"):
            await until(lambda: ownership.shares() == [3, 3], "b is back", ownership)
            assert sorted(one for one, who in ownership.owner.items() if who == "b") == mine
            assert staying.consumer.generation_id == generation_id


async def test_a_second_member_with_the_same_instance_id_fences_the_first(
    bootstrap: str, env: Env, wide: str, name: Callable[[str], str]
) -> None:
    """The older one is told so, and its partitions are lost to it, not given back."""
    group = name("group")

    def member() -> Consumer:
        return Consumer(
            bootstrap,
            env=env,
            group_id=group,
            group_instance_id="same",
            heartbeat_interval_ms=100,
            session_timeout_ms=6_000,
            fetch_max_wait_ms=50,
        )

    lost: list[TopicPartition] = []
    async with member() as older, member() as newer:
        older.subscribe([wide], on_lost=lost.extend)
        await until_owned(older, PARTITIONS)
        newer.subscribe([wide])
        await until_owned(newer, PARTITIONS)
        with pytest.raises(KafkaError) as refused:
            await fetch_until_it_raises(older)
        assert refused.value.code is ErrorCode.FENCED_INSTANCE_ID
        assert len(lost) == PARTITIONS
        assert older.assignment() == []


async def fetch_until_it_raises(consumer: Consumer) -> None:
    async with asyncio.timeout(20):
        while True:
            await consumer.fetch(timeout_ms=100)


async def until_owned(consumer: Consumer, count: int) -> None:
    async with asyncio.timeout(30):
        while len(consumer.assignment()) != count:
            await consumer.fetch(timeout_ms=50)


async def test_heartbeats_go_on_while_the_application_works(
    bootstrap: str, env: Env, wide: str, name: Callable[[str], str]
) -> None:
    """Work that takes several session timeouts does not cost the membership."""
    consumer = Consumer(bootstrap, env=env, group_id=name("group"), session_timeout_ms=500, heartbeat_interval_ms=100)
    async with consumer:
        consumer.subscribe([wide])
        await until_owned(consumer, PARTITIONS)
        generation_id = consumer.generation_id
        await asyncio.sleep(2)
        await consumer.fetch(timeout_ms=10)
        await consumer.commit({TopicPartition(wide, 0): OffsetAndMetadata(0)})
        assert consumer.generation_id == generation_id


async def test_without_progress_the_partitions_go_to_others_and_come_back(
    bootstrap: str, env: Env, wide: str, name: Callable[[str], str]
) -> None:
    """Past max_poll_interval_ms the member is lost to the group; its commits are refused; fetching again rejoins."""
    group = name("group")
    lost: list[TopicPartition] = []
    slow = Consumer(
        bootstrap,
        env=env,
        group_id=group,
        max_poll_interval_ms=700,
        heartbeat_interval_ms=100,
        session_timeout_ms=6_000,
        fetch_max_wait_ms=50,
    )
    async with slow:
        slow.subscribe([wide], on_lost=lost.extend)
        await until_owned(slow, PARTITIONS)
        for _ in range(4):
            await asyncio.sleep(0.3)
            slow.progress()
        assert len(slow.assignment()) == PARTITIONS
        await until(lambda: len(lost) == PARTITIONS, "everything is lost")
        assert slow.assignment() == []
        await until_owned(slow, PARTITIONS)


async def test_a_commit_for_partitions_of_the_past_is_refused(
    bootstrap: str, env: Env, wide: str, name: Callable[[str], str]
) -> None:
    """A member that the group went on without learns it from its commit, which changes nothing."""
    group = name("group")
    async with Consumer(
        bootstrap, env=env, group_id=group, session_timeout_ms=6_000, heartbeat_interval_ms=2_000
    ) as consumer:
        consumer.subscribe([wide])
        await until_owned(consumer, PARTITIONS)
        await evict(bootstrap, env, group, consumer.member_id)
        with pytest.raises(KafkaError, match="has rebalanced without this consumer") as refused:
            await consumer.commit({TopicPartition(wide, 0): OffsetAndMetadata(5)})
        assert refused.value.code in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION)
        assert await consumer.committed([TopicPartition(wide, 0)]) == {TopicPartition(wide, 0): None}
        await until_owned(consumer, PARTITIONS)


async def evict(bootstrap: str, env: Env, group: str, member_id: str) -> None:
    """Have the broker remove a member, as an operator would."""
    cluster = Cluster(bootstrap, env)
    await cluster.open()
    node_id = await cluster.coordinator(GROUP_COORDINATOR, group)
    request = LeaveGroupRequest(group_id=group, members=[MemberIdentity(member_id=member_id)])
    await cluster.request(node_id, request, LeaveGroupResponse)
    await cluster.close()


async def test_positions_set_when_assigned_count(
    bootstrap: str, env: Env, wide: str, name: Callable[[str], str]
) -> None:
    """A seek in on_assigned decides where reading begins, before anything else is looked up."""
    async with Producer(bootstrap, env=env) as producer:
        for number in range(100):
            producer.append(wide, 0, None, b"%d" % number, env.clock.wall_ms())
    zero = TopicPartition(wide, 0)
    async with Consumer(bootstrap, env=env, group_id=name("group"), auto_offset_reset="earliest") as consumer:
        consumer.subscribe([wide], on_assigned=lambda partitions: consumer.seek(zero, 40))
        first: list[int] = []
        async with asyncio.timeout(20):
            while not first:
                for batch in await consumer.fetch(timeout_ms=500):
                    first += batch.columns.offsets
        assert first == list(range(40, 100))


async def test_an_exception_in_a_callback_ends_the_membership_and_is_told(
    bootstrap: str, env: Env, wide: str, name: Callable[[str], str]
) -> None:
    """A half rebalanced member does not go on: fetch raises what the callback raised."""

    def broken(partitions: list[TopicPartition]) -> None:
        raise ZeroDivisionError("in the callback")

    async with Consumer(bootstrap, env=env, group_id=name("group")) as consumer:
        consumer.subscribe([wide], on_assigned=broken)
        with pytest.raises(ZeroDivisionError, match="in the callback"):
            await fetch_until_it_raises(consumer)
        assert consumer.assignment() == []


async def test_a_callback_that_awaits_something_cancelled_ends_the_membership_too(
    bootstrap: str, env: Env, wide: str, name: Callable[[str], str]
) -> None:
    """It was not the consumer that was cancelled: a member must not wait for its callbacks for ever."""

    async def broken(partitions: list[TopicPartition]) -> None:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer.cancel()
        await answer

    async with Consumer(bootstrap, env=env, group_id=name("group")) as consumer:
        consumer.subscribe([wide], on_assigned=broken)
        with pytest.raises(UserError, match="a callback of the group awaited something that was cancelled"):
            await fetch_until_it_raises(consumer)
        assert consumer.assignment() == []


async def test_new_partitions_are_found_and_assigned(
    bootstrap: str, env: Env, admin: Admin, topic: str, name: Callable[[str], str]
) -> None:
    """When a topic grows, the leader notices with the next metadata and the group rebalances."""
    settings = ConnectionSettings(metadata_max_age_ms=200)
    async with Consumer(bootstrap, env=env, group_id=name("group"), connection=settings) as consumer:
        consumer.subscribe([topic])
        await until_owned(consumer, 3)
        await admin.create_partitions({topic: 5})
        await until_owned(consumer, 5)


async def test_changing_the_subscription_changes_the_assignment(
    bootstrap: str, env: Env, wide: str, topic: str, name: Callable[[str], str]
) -> None:
    """subscribe can be called again: what is no longer wanted is revoked, what is new is assigned."""
    revoked: list[TopicPartition] = []
    async with Consumer(bootstrap, env=env, group_id=name("group"), heartbeat_interval_ms=100) as consumer:
        consumer.subscribe([wide])
        await until_owned(consumer, PARTITIONS)
        consumer.subscribe([topic], on_revoked=revoked.extend)
        async with asyncio.timeout(20):
            while consumer.assignment() != [TopicPartition(topic, number) for number in range(3)]:
                await consumer.fetch(timeout_ms=50)
        assert {one.topic for one in revoked} == {wide}


async def test_auto_commit_commits_what_was_processed_and_nothing_more(
    bootstrap: str, env: Env, topic: str, name: Callable[[str], str]
) -> None:
    """Records that were returned but not yet followed by another fetch are not committed by the clock."""
    async with Producer(bootstrap, env=env) as producer:
        for number in range(100):
            producer.append(topic, 0, None, b"%d" % number, env.clock.wall_ms())
    zero, group = TopicPartition(topic, 0), name("group")
    consumer = Consumer(
        bootstrap,
        env=env,
        group_id=group,
        auto_offset_reset="earliest",
        auto_commit=True,
        auto_commit_interval_ms=50,
    )
    async with consumer:
        consumer.subscribe([topic])
        async with asyncio.timeout(20):
            while not await consumer.fetch(timeout_ms=500, records_max=10):
                pass
        await asyncio.sleep(0.3)
        committed = (await consumer.committed([zero]))[zero]
        assert committed is None or committed.offset == 0, "ten records are still in hand"
        await consumer.fetch(timeout_ms=500, records_max=10)
        async with asyncio.timeout(20):
            while (await consumer.committed([zero]))[zero] != OffsetAndMetadata(10, 0):
                await asyncio.sleep(0.02)
    async with Consumer(bootstrap, env=env, group_id=group) as later:
        committed = (await later.committed([zero]))[zero]
    assert committed is not None
    assert committed.offset == 20, "closing says that everything returned is done"


@pytest.mark.parametrize("assignor", [RangeAssignor, CooperativeStickyAssignor])
async def test_positions_that_nothing_was_read_from_are_committed_as_well(
    bootstrap: str, env: Env, wide: str, name: Callable[[str], str], assignor: type[Assignor]
) -> None:
    """As Java does: otherwise `latest` passes over what comes while a partition changes hands, or between two runs."""
    group = name("group")
    everything = {TopicPartition(wide, number) for number in range(PARTITIONS)}

    def member() -> Consumer:
        return Consumer(bootstrap, env=env, group_id=group, assignors=[assignor()], auto_commit=True)

    async def produce(partitions: Iterable[TopicPartition]) -> None:
        async with Producer(bootstrap, env=env) as producer:
            for partition in partitions:
                producer.append(partition.topic, partition.partition, None, b"v", env.clock.wall_ms())

    async def read(consumer: Consumer, partitions: Iterable[TopicPartition]) -> None:
        left = set(partitions)
        async with asyncio.timeout(20):
            while left:
                left -= {TopicPartition(one.topic, one.partition) for one in await consumer.fetch(timeout_ms=50)}

    async with member() as first:
        first.subscribe([wide])
        async with asyncio.timeout(20):
            while {one for one in first.assignment() if first.position(one) == 0} != everything:
                assert await first.fetch(timeout_ms=20) == []
        async with member() as second:
            second.subscribe([wide], on_assigned=produce)  # nobody knows yet where the new owner begins
            async with asyncio.timeout(20):
                while len(second.assignment()) != PARTITIONS / 2:
                    assert await first.fetch(timeout_ms=20) == []
            handed_over = second.assignment()
            await read(second, handed_over)
    await produce(everything.difference(handed_over))
    async with member() as third:
        third.subscribe([wide])
        await read(third, everything.difference(handed_over))


async def test_a_group_survives_the_restart_of_its_coordinator(
    broker: BrokerUnderTest, bootstrap: str, env: Env, wide: str, name: Callable[[str], str]
) -> None:
    """Its log remembers the members: they go on in the generation they have, no commit is refused, none reads twice."""
    group, ownership, seen = name("group"), Ownership(), dict[TopicPartition, list[int]]()
    arguments = (bootstrap, env, group, [wide], ownership, seen)

    async def produce(count: int) -> None:
        async with Producer(bootstrap, env=env) as producer:
            for number in range(count * PARTITIONS):
                producer.append(wide, number % PARTITIONS, None, b"v", env.clock.wall_ms())

    await produce(100)
    async with (
        worker("a", *arguments, CooperativeStickyAssignor()) as one,
        worker("b", *arguments, CooperativeStickyAssignor()) as two,
    ):
        await until(lambda: ownership.shares() == [3, 3], "a and b share", ownership)
        await until(lambda: sum(map(len, seen.values())) >= 600, "the first records", ownership)
        generations = one.consumer.generation_id, two.consumer.generation_id
        await asyncio.to_thread(broker.stop)
        await asyncio.to_thread(broker.start)
        await produce(100)
        await until(lambda: all(max(one) == 199 for one in seen.values()), "the rest", ownership)
        assert (one.consumer.generation_id, two.consumer.generation_id) == generations
        assert ownership.lost == 0
    for offsets in seen.values():
        assert offsets == list(range(200))


@pytest.mark.parametrize("strategy", list(ASSIGNORS))
async def test_a_group_of_ours_and_of_librdkafka(
    bootstrap: str, env: Env, wide: str, name: Callable[[str], str], strategy: str
) -> None:
    """Both clients share a group under each strategy, whoever leads; together they own every partition once."""
    group = name("group")
    theirs = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "partition.assignment.strategy": strategy,
            "session.timeout.ms": 6_000,
            "heartbeat.interval.ms": 100,
        }
    )
    ours = Consumer(
        bootstrap,
        env=env,
        group_id=group,
        assignors=[ASSIGNORS[strategy]()],
        heartbeat_interval_ms=100,
        fetch_max_wait_ms=50,
    )

    async def until_shared(mine: int, other: int) -> None:
        async with asyncio.timeout(30):
            while len(ours.assignment()) != mine or len(await asyncio.to_thread(theirs.assignment)) != other:
                await ours.fetch(timeout_ms=50)
                await asyncio.to_thread(theirs.poll, 0.05)

    try:
        async with ours:
            ours.subscribe([wide])  # ours leads
            await until_owned(ours, PARTITIONS)
            theirs.subscribe([wide])
            await until_shared(3, 3)
            owned = {(one.topic, one.partition) for one in ours.assignment()}
            assert owned.isdisjoint((one.topic, one.partition) for one in theirs.assignment())
        async with asyncio.timeout(30):
            while len(await asyncio.to_thread(theirs.assignment)) != PARTITIONS:
                await asyncio.to_thread(theirs.poll, 0.05)
        ours = Consumer(  # now librdkafka leads
            bootstrap,
            env=env,
            group_id=group,
            assignors=[ASSIGNORS[strategy]()],
            heartbeat_interval_ms=100,
            fetch_max_wait_ms=50,
        )
        async with ours:
            ours.subscribe([wide])
            await until_shared(3, 3)
    finally:
        await asyncio.to_thread(theirs.close)
