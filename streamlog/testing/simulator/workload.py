"""What clients do in a simulated run: production clients on machines of their own, and a history of what they saw.

Each function makes the main coroutine of a program. A program that is killed leaves its sends unanswered; started
again it is another producer, with a session and a name of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeAlias

from streamlog.client.admin import Admin, NewTopic
from streamlog.client.config import ConnectionSettings
from streamlog.client.consumer import Consumer
from streamlog.client.failures import BrokerUnreachable, DeliveryUnknown, NotDelivered
from streamlog.client.fetcher import FetchedBatch
from streamlog.client.producer import Producer
from streamlog.client.values import OffsetAndMetadata, RecordMetadata, TopicPartition
from streamlog.env import Env
from streamlog.testing.simulator.history import History, PartitionKey, Send
from streamlog.testing.simulator.setup import Setup
from streamlog.testing.simulator.trim_watch import Trim
from streamlog.testing.simulator.world import World
from streamlog.wire.error_codes import KafkaError

Main: TypeAlias = Callable[[Env], Coroutine[Any, Any, object]]

TOPIC: Final = "events"
TABLE: Final = "table"
"""The compacted topic."""
GROUP: Final = "group"

PROMISES: Final = ("streamlog.flush", "min.insync.replicas")
"""What a topic's configs say about what is acknowledged."""

KEYS: Final = 5
BURST_MAX: Final = 6
CHURN_PAUSE_S: Final = 0.7
TRIM_PAUSE_S: Final = 2.0
TIMES_ASKED: Final = 5
PLACES_READ: Final = 4
FETCH_BYTES_MAX: Final = 50_000
"""What a slow link carries within the shortest request timeout; an answer that takes longer would never arrive."""
DAWDLE_S: Final = 1.5

PASSING: Final = (BrokerUnreachable, KafkaError)
"""What clients may be told while something is wrong. A UserError or a RemoteProtocolError would be a bug."""


@dataclass(slots=True)
class Work:
    """What all programs of a run share."""

    world: World
    setup: Setup
    bootstrap: str
    history: History
    stopping: bool = False
    """Producers finish what they have and end."""
    log_ends: dict[TopicPartition, int] = field(default_factory=dict)
    """Where the logs end, once producers have ended; consumers end when they are there."""
    reached: dict[tuple[str, TopicPartition], int] = field(default_factory=dict)
    """How far each consumer program has come."""
    on_committed: Callable[[Mapping[TopicPartition, int], int], None] = lambda offsets, began_ns: None
    """Told of offsets that the coordinator has just acknowledged, and when they were sent."""

    begin_trim: Callable[[PartitionKey], Trim | None] = lambda key: None
    end_trim: Callable[[Trim, int | None], None] = lambda trim, start_offset: None
    """Told of DeleteRecords before it is sent, and where the partition begins then; None: nobody knows."""

    newest_epoch_led: Callable[[int, int], int | None] = lambda node_id, partition: None
    """The epoch in which this node leads the partition of the topic now; None when another knows of a later one."""

    def settings(self, name: str, patience_ms: int = 60_000) -> ConnectionSettings:
        request_ms = self.setup.request_timeout_ms
        return ConnectionSettings(
            client_id=name,
            request_timeout_ms=request_ms,
            connect_timeout_ms=min(request_ms, 2_000),
            api_timeout_ms=patience_ms,
        )

    def is_done(self, name: str, partitions: Iterable[TopicPartition]) -> bool:
        """Whether a program has read all there will ever be of these partitions."""
        return bool(self.log_ends) and all(self.reached.get((name, one), 0) >= self.log_ends[one] for one in partitions)


def producer(work: Work, name: str) -> Main:
    async def main(env: Env) -> None:
        setup, session = work.setup, f"{name}.{env.process_id}"
        random = Random(f"{setup.seed}/{session}")
        async with Producer(
            work.bootstrap,
            env=env,
            linger_ms=setup.linger_ms,
            batch_size_bytes=setup.batch_size_bytes,
            delivery_timeout_ms=setup.delivery_timeout_ms,
            connection=work.settings(session),
            auto_create_topics=False,
        ) as client:
            number = 0
            pause_s = setup.safety_ms / 1000 * (1 + BURST_MAX) / 2 / setup.sends
            while not work.stopping:
                for _ in range(1 + random.randrange(BURST_MAX)):
                    _send(work, client, random, session, number)
                    number += 1
                await client.room()
                await asyncio.sleep(random.random() * 2 * pause_s)
                if _one_in(random, setup.restarts_one_in):
                    return

    return persistent(work, main)


def _send(work: Work, client: Producer, random: Random, session: str, number: int) -> None:
    setup, history = work.setup, work.history
    topic = TABLE if setup.compacted and random.random() < 0.3 else TOPIC
    key = b"key %d" % random.randrange(KEYS) if topic == TABLE or random.random() < 0.7 else None
    value = f"{session}:{number}:".encode()
    value += b"." * random.randrange(setup.value_bytes)
    send = history.send(value, topic, key, session, number)
    done = client.send_nowait(topic, value, key=key)
    done.add_done_callback(lambda answered: _on_answer(work, send, answered))


def _on_answer(work: Work, send: Send, answered: asyncio.Future[RecordMetadata]) -> None:
    if answered.cancelled():
        return
    error = answered.exception()
    if error is not None:
        work.world.note(send.producer, f"{send.number} failed: {error}")
        work.history.failed(send, error)
        if isinstance(error, DeliveryUnknown):
            work.world.sometimes("delivery unknown")
        elif isinstance(error, NotDelivered):
            work.world.sometimes("record not delivered")
        return
    told = answered.result()
    if told.offset >= 0:
        work.world.note(send.producer, f"{send.number} is {send.topic}-{told.partition}@{told.offset}")
        work.history.stored(send, told.partition, told.offset)


def persistent(work: Work, main: Main) -> Main:
    """A program that ends, to be started again, when it cannot go on for a passing reason."""

    async def run(env: Env) -> None:
        try:
            await main(env)
        except PASSING as error:
            work.world.note("client", f"ends: {error}")

    return run


def member(work: Work, name: str) -> Main:
    """A consumer that shares the topic with its group."""

    async def main(env: Env) -> None:
        setup, history = work.setup, work.history
        session = f"{name}.{env.process_id}"
        random = Random(f"{setup.seed}/{session}")
        async with Consumer(
            work.bootstrap,
            env=env,
            group_id=GROUP,
            auto_offset_reset="earliest",
            session_timeout_ms=setup.session_timeout_ms,
            heartbeat_interval_ms=setup.session_timeout_ms // 4,
            rebalance_timeout_ms=5_000,
            fetch_max_wait_ms=200,
            fetch_max_bytes=FETCH_BYTES_MAX,
            connection=work.settings(session, setup.patience_ms),
        ) as consumer:
            positions: dict[TopicPartition, int] = {}

            def on_assigned(partitions: Iterable[TopicPartition]) -> None:
                history.own(consumer.generation_id, [(one.topic, one.partition) for one in partitions], session)
                work.world.note(session, f"owns {_names(partitions)} in generation {consumer.generation_id}")
                for one in partitions:
                    positions.pop(one, None)

            def on_gone(partitions: Iterable[TopicPartition]) -> None:
                work.world.note(session, f"gives up {_names(partitions)}")

            consumer.subscribe([TOPIC], on_assigned=on_assigned, on_revoked=on_gone, on_lost=on_gone)
            while not work.is_done(GROUP, list(work.log_ends)):
                batches = await consumer.fetch(timeout_ms=300, records_max=1 + random.randrange(50))
                for batch in batches:
                    _note_batch(work, session, batch, positions)
                _step_over_deleted(work, consumer, positions)
                if batches and not work.stopping and _one_in(random, setup.dawdles_one_in):
                    await asyncio.sleep(random.random() * 2 * DAWDLE_S)  # and the group may go on meanwhile
                if (batches and random.random() < 0.5) or work.log_ends:
                    await _commit(work, consumer, dict(positions))
                if not work.stopping and _one_in(random, setup.leaves_one_in):
                    return  # it leaves the group, and comes again

    return persistent(work, main)


def _one_in(random: Random, count: int) -> bool:
    return count > 0 and random.randrange(count) == 0


async def _commit(work: Work, consumer: Consumer, positions: dict[TopicPartition, int]) -> None:
    mine = {one: offset for one, offset in positions.items() if one in consumer.assignment()}
    if not mine:
        return
    commits = [work.history.begin_commit((one.topic, one.partition), offset) for one, offset in mine.items()]
    began_ns = work.world.loop.now_ns
    try:
        await consumer.commit({one: OffsetAndMetadata(offset) for one, offset in mine.items()})
    except PASSING as error:
        work.world.note("group", f"commit failed: {error}")
        work.world.sometimes("commit failed")
        return
    work.world.note("group", " ".join(f"{one}={offset}" for one, offset in mine.items()) + " committed")
    work.on_committed(mine, began_ns)
    for commit, (one, offset) in zip(commits, mine.items(), strict=True):
        commit.ended_ns = work.world.loop.now_ns
        work.reached[GROUP, one] = max(offset, work.reached.get((GROUP, one), 0))


def reader(work: Work, name: str) -> Main:
    """A consumer on its own that follows all partitions from their beginnings."""

    async def main(env: Env) -> None:
        session = f"{name}.{env.process_id}"
        async with Consumer(
            work.bootstrap,
            env=env,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            fetch_max_bytes=FETCH_BYTES_MAX,
            connection=work.settings(session),
        ) as consumer:
            partitions = [TopicPartition(TOPIC, number) for number in range(work.setup.partitions)]
            consumer.assign(partitions)
            positions: dict[TopicPartition, int] = {}
            while not work.is_done(session, partitions):
                for batch in await consumer.fetch(timeout_ms=300):
                    _note_batch(work, session, batch, positions)
                _step_over_deleted(work, consumer, positions)
                for one, offset in positions.items():
                    work.reached[session, one] = max(offset, work.reached.get((session, one), 0))

    return persistent(work, main)


def _note_batch(work: Work, session: str, batch: FetchedBatch, positions: dict[TopicPartition, int]) -> None:
    one = TopicPartition(batch.topic, batch.partition)
    expected = None if work.setup.forgets else positions.get(one)
    if expected is not None and not _may_follow(work, one, expected, batch.start_offset):
        work.history.violate(63, f"{session} is at {expected} of {one} and gets {batch.start_offset}")
    positions[one] = batch.next_offset
    values = batch.columns.values
    if values:
        work.world.note(session, f"reads {one} {batch.start_offset} to {batch.next_offset}")
    for offset, value in zip(batch.columns.offsets, values, strict=True):
        assert value is not None, "nobody writes tombstones here"
        work.history.read(session, batch.topic, batch.partition, offset, value)


def _step_over_deleted(work: Work, consumer: Consumer, positions: dict[TopicPartition, int]) -> None:
    """Where a consumer had not read what was deleted, there may be no batch that says where it is now."""
    setup, asked = work.setup, work.history.trims_asked
    for one in consumer.assignment() if setup.expires or setup.trims else ():
        position = consumer.position(one)
        if position is not None and (setup.expires or position <= asked.get((one.topic, one.partition), 0)):
            positions[one] = max(position, positions.get(one, 0))


def _may_follow(work: Work, one: TopicPartition, expected: int, offset: int) -> bool:
    """Whether a consumer at `expected` may get the record at `offset` next: some between may be deleted."""
    deleted = offset if work.setup.expires else work.history.trims_asked.get((one.topic, one.partition), 0)
    return offset == expected or expected < offset <= deleted


def churn(work: Work, name: str) -> Main:
    """Makes topics and deletes them, and remembers those that are to stay."""

    async def main(env: Env) -> None:
        random = Random(f"{work.setup.seed}/{name}.{env.process_id}")
        async with Admin(work.bootstrap, env=env, connection=work.settings(name)) as admin:
            number = 0
            while not work.stopping:
                topic = f"churn-{env.process_id}-{number}"
                number += 1
                if await _tried(
                    work, admin.create_topics([NewTopic(topic, 1 + random.randrange(3), work.setup.replicas)])
                ):
                    if random.random() < 0.5:
                        work.history.topics[topic] = None
                    else:
                        await _tried(work, admin.delete_topics([topic]))
                await asyncio.sleep(random.random() * 2 * CHURN_PAUSE_S)

    return persistent(work, main)


def trimmer(work: Work, name: str) -> Main:
    """Deletes the oldest records now and then."""

    async def main(env: Env) -> None:
        setup, history = work.setup, work.history
        random = Random(f"{setup.seed}/{name}.{env.process_id}")
        async with Admin(work.bootstrap, env=env, connection=work.settings(name)) as admin:
            while not work.stopping:
                await asyncio.sleep(random.random() * 2 * TRIM_PAUSE_S)
                key = (TOPIC, random.randrange(setup.partitions))
                stored = [send.offset for send in history.sends.values() if (send.topic, send.partition) == key]
                if not stored:
                    continue
                offset = 1 + random.randrange(1 + max(stored))
                history.trim(key, offset)
                trim = work.begin_trim(key)
                start_offset: int | None = None
                try:
                    told = await admin.delete_records({TopicPartition(*key): offset})
                    start_offset = told[TopicPartition(*key)]
                    history.trimmed(key, start_offset)
                    work.world.note("admin", f"{key[0]}-{key[1]} begins at {start_offset}")
                except PASSING as error:
                    work.world.note("admin", f"failed: {error}")
                if trim is not None:
                    work.end_trim(trim, start_offset)

    return persistent(work, main)


async def _tried(work: Work, attempt: Coroutine[Any, Any, None]) -> bool:
    try:
        await attempt
    except PASSING as error:
        work.world.note("admin", f"failed: {error}")
        return False
    return True


async def make_topics(work: Work, env: Env) -> None:
    setup = work.setup
    topics = [NewTopic(TOPIC, setup.partitions, setup.replicas, dict(setup.topic))]
    if setup.compacted:
        configs = {"cleanup.policy": "compact", "segment.ms": "300", "min.cleanable.dirty.ratio": "0.01"}
        if setup.shape == "cluster":  # what is promised for one topic is promised for both
            configs |= {name: setup.topic[name] for name in PROMISES if name in setup.topic}
        topics.append(NewTopic(TABLE, 1, setup.replicas, configs))
    async with Admin(work.bootstrap, env=env, connection=work.settings("maker")) as admin:
        await admin.create_topics(topics)


def _names(partitions: Iterable[TopicPartition]) -> str:
    return ",".join(str(one) for one in partitions) or "nothing"


@dataclass(slots=True)
class Everything:
    """What is there in the end, as an ordinary client sees it."""

    logs: dict[TopicPartition, list[tuple[int, bytes]]]
    starts: dict[TopicPartition, int]
    ends: dict[TopicPartition, int]
    committed: dict[tuple[str, int], int | None]
    topics: list[str]
    times: dict[tuple[str, int, int], tuple[int | None, int | None]]
    """(topic, partition, a timestamp) -> the first record that is as new, as it was told and as it was read."""


async def log_ends(work: Work, env: Env) -> dict[TopicPartition, int]:
    """Where the topics end now."""
    async with Consumer(work.bootstrap, env=env, connection=work.settings("ends")) as consumer:
        return await consumer.end_offsets(_all_partitions(work.setup))


async def read_everything(work: Work, env: Env) -> Everything:
    partitions = _all_partitions(work.setup)
    logs: dict[TopicPartition, list[tuple[int, bytes]]] = {one: [] for one in partitions}
    async with Consumer(
        work.bootstrap,
        env=env,
        group_id=GROUP,
        auto_offset_reset="earliest",
        fetch_max_bytes=FETCH_BYTES_MAX,
        connection=work.settings("auditor"),
    ) as consumer:
        committed = await consumer.committed([one for one in partitions if one.topic == TOPIC])
        starts = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        consumer.assign(partitions)
        for one in partitions:
            consumer.seek(one, starts[one])
        positions = dict(starts)
        times_ms: dict[TopicPartition, list[tuple[int, int]]] = {one: [] for one in partitions}
        while any(positions[one] < ends[one] for one in partitions):
            for batch in await consumer.fetch(timeout_ms=1_000):
                one = TopicPartition(batch.topic, batch.partition)
                if work.setup.expires and batch.start_offset > positions[one]:
                    logs[one].clear()  # what stood before that has expired while it was read
                positions[one] = batch.next_offset
                times_ms[one] += zip(batch.columns.offsets, batch.columns.timestamps_ms, strict=True)
                for offset, value in zip(batch.columns.offsets, batch.columns.values, strict=True):
                    assert value is not None, "nobody writes tombstones here"
                    logs[one].append((offset, value))
                    work.history.read("auditor", one.topic, one.partition, offset, value)
            read = dict(positions)
            _step_over_deleted(work, consumer, positions)
            for one in partitions:
                if work.setup.expires and positions[one] > read[one]:
                    logs[one].clear()
        if not work.setup.expires:
            await _begin_anywhere(work, consumer, logs)
        times = {} if work.setup.expires else await _ask_for_times(work, consumer, times_ms)
    async with Admin(work.bootstrap, env=env, connection=work.settings("auditor")) as admin:
        topics = await admin.list_topics()
    offsets = {(one.topic, one.partition): at.offset if at is not None else None for one, at in committed.items()}
    return Everything(logs, starts, ends, offsets, topics, times)


async def _begin_anywhere(
    work: Work, consumer: Consumer, logs: Mapping[TopicPartition, list[tuple[int, bytes]]]
) -> None:
    """Read from some offsets, which brokers find through their indexes. Before times are asked for, which mend them."""
    random = Random(f"{work.setup.seed}/places")
    for one, log in logs.items():
        for _ in range(PLACES_READ if log and one.topic == TOPIC else 0):
            wanted = random.choice(log)[0]
            consumer.seek(one, wanted)
            found: list[int] = []
            while not found:
                batches = await consumer.fetch(timeout_ms=1_000, records_max=1)
                found = [
                    offset for batch in batches if batch.partition == one.partition for offset in batch.columns.offsets
                ]
            if found[0] != wanted:
                work.history.violate(21, f"{one}: a read from {wanted} begins at {found[0]}")


async def _ask_for_times(
    work: Work, consumer: Consumer, times_ms: Mapping[TopicPartition, list[tuple[int, int]]]
) -> dict[tuple[str, int, int], tuple[int | None, int | None]]:
    random = Random(f"{work.setup.seed}/times")
    answers: dict[tuple[str, int, int], tuple[int | None, int | None]] = {}
    for one, read in times_ms.items():
        for _ in range(TIMES_ASKED if read and one.topic == TOPIC else 0):
            wanted_ms = random.choice(read)[1] + random.choice((0, 0, 1))
            found = (await consumer.offsets_for_times({one: wanted_ms}))[one]
            first = next((offset for offset, time_ms in read if time_ms >= wanted_ms), None)
            answers[one.topic, one.partition, wanted_ms] = (found.offset if found is not None else None), first
    return answers


def _all_partitions(setup: Setup) -> list[TopicPartition]:
    return [TopicPartition(TOPIC, number) for number in range(setup.partitions)] + (
        [TopicPartition(TABLE, 0)] if setup.compacted else []
    )
