"""Transactions against a real broker, in both versions of the protocol: all of it or nothing, once, and one owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from streamlog.client.admin import Admin, NewTopic
from streamlog.client.config import ConnectionSettings, parse_bootstrap
from streamlog.client.connection import connect
from streamlog.client.consumer import Consumer
from streamlog.client.failures import ProducerFenced
from streamlog.client.fetched import IsolationLevel
from streamlog.client.producer import Producer
from streamlog.client.values import GroupMetadata, OffsetAndMetadata, TopicPartition
from streamlog.env import Env
from streamlog.errors import LocalProtocolError, UserError
from streamlog.wire.apis import ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from tests.brokers import BrokerUnderTest
from tests.kafka_node import KafkaNode, kafka_libs
from tests.proxy import Proxy


@pytest.fixture(scope="module")
def old_kafka() -> Iterator[KafkaNode]:
    """A cluster that speaks the protocol before KIP-890."""
    libs = kafka_libs()
    if libs is None:
        pytest.skip("no Apache Kafka here; set STREAMLOG_KAFKA_LIBS to a directory with its jars")
    with KafkaNode(libs, features={"transaction.version": 0}) as node:
        yield node


@pytest.fixture(params=["now", "before KIP-890"])
async def cluster(request: pytest.FixtureRequest, env: Env) -> str:
    """The address of a cluster with transactions."""
    if request.param != "now":
        node = request.getfixturevalue("old_kafka")
        assert isinstance(node, KafkaNode)
        return node.bootstrap
    bootstrap = request.getfixturevalue("bootstrap")
    assert isinstance(bootstrap, str)
    await need_transactions(bootstrap, env)
    return bootstrap


async def need_transactions(bootstrap: str, env: Env) -> None:
    (address,) = parse_bootstrap(bootstrap)
    connection = await connect(address, ConnectionSettings(), env.clock, lambda _: None)
    served = connection.supports(ApiKey.END_TXN)
    connection.close()
    await asyncio.sleep(0)
    if not served:
        pytest.skip("this broker has no transactions")


@pytest.fixture
async def target(cluster: str, env: Env, name: Callable[[str], str]) -> AsyncIterator[str]:
    """A new topic with two partitions on that cluster."""
    made = name("target")
    async with Admin(cluster, env=env, timeout_ms=20_000) as admin:
        await admin.create_topics([NewTopic(made, partitions=2, replication_factor=1)])
        yield made


async def visible(
    bootstrap: str, env: Env, topic: str, isolation_level: IsolationLevel = "read_committed"
) -> list[bytes | None]:
    """The values a consumer sees, partition by partition."""
    found: dict[int, list[bytes | None]] = {}
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest", isolation_level=isolation_level) as consumer:
        partitions = await consumer.partitions_for(topic)
        ends = await consumer.end_offsets(partitions)
        async with asyncio.timeout(30):  # a commit is decided before its markers are in the partitions
            while ends != await consumer.end_offsets(partitions, isolation_level="read_uncommitted"):
                ends = await consumer.end_offsets(partitions)
        consumer.assign(partitions)
        async with asyncio.timeout(30):
            while any((consumer.position(one) or 0) < ends[one] for one in partitions):
                for batch in await consumer.fetch(timeout_ms=500):
                    found.setdefault(batch.partition, []).extend(batch.columns.values)
    return [value for number in sorted(found) for value in found[number]]


async def test_committed_records_are_seen_and_aborted_ones_are_not(
    cluster: str, env: Env, target: str, name: Callable[[str], str]
) -> None:
    """Several transactions of one producer, over several partitions."""
    async with Producer(cluster, env=env, transactional_id=name("tx")) as producer:
        await producer.init_transactions()
        for what, commit in ((b"a", True), (b"b", False), (b"c", True)):
            producer.begin_transaction()
            producer.append(target, 0, None, what + b"0", env.clock.wall_ms())
            sent = producer.send_nowait(target, what + b"1", partition=1)
            if commit:
                await producer.commit_transaction()
                assert (await sent).partition == 1
            else:
                await asyncio.sleep(0.05)
                await producer.abort_transaction()
                await asyncio.gather(sent, return_exceptions=True)
    assert await visible(cluster, env, target) == [b"a0", b"c0", b"a1", b"c1"]


async def test_an_empty_transaction_costs_nothing(cluster: str, env: Env, name: Callable[[str], str]) -> None:
    """Commit and abort without anything sent."""
    async with Producer(cluster, env=env, transactional_id=name("tx")) as producer:
        await producer.init_transactions()
        for _ in range(3):
            producer.begin_transaction()
            await producer.commit_transaction()
            producer.begin_transaction()
            await producer.abort_transaction()


async def test_the_block_form_commits_or_aborts(
    cluster: str, env: Env, target: str, name: Callable[[str], str]
) -> None:
    """An exception in the block aborts and passes on."""
    async with Producer(cluster, env=env, transactional_id=name("tx")) as producer:
        await producer.init_transactions()
        async with producer.transaction():
            await producer.send(target, b"good", partition=0)
        with pytest.raises(ZeroDivisionError):
            await fail_in_the_middle(producer, target)
        async with producer.transaction():
            await producer.send(target, b"better", partition=0)
    assert await visible(cluster, env, target) == [b"good", b"better"]


async def fail_in_the_middle(producer: Producer, topic: str) -> None:
    async with producer.transaction():
        await producer.send(topic, b"bad", partition=0)
        raise ZeroDivisionError


async def test_offsets_are_committed_with_the_records(
    cluster: str, env: Env, target: str, name: Callable[[str], str]
) -> None:
    """Those of an aborted transaction are not."""
    group, zero = name("group"), TopicPartition(target, 0)
    me = GroupMetadata(group, -1, "", None)
    async with Producer(cluster, env=env, transactional_id=name("tx")) as producer:
        await producer.init_transactions()
        async with producer.transaction():
            await producer.send_offsets({zero: OffsetAndMetadata(5)}, me)
        producer.begin_transaction()
        await producer.send_offsets({zero: OffsetAndMetadata(9)}, me)
        await producer.abort_transaction()
    async with Consumer(cluster, env=env, group_id=group) as consumer:
        assert await consumer.committed([zero]) == {zero: OffsetAndMetadata(5)}


async def test_a_newer_producer_fences_the_older(
    cluster: str, env: Env, target: str, name: Callable[[str], str]
) -> None:
    """The open transaction of the older one is aborted; it can do nothing any more, and says why."""
    transactional_id = name("tx")
    async with Producer(cluster, env=env, transactional_id=transactional_id) as older:
        await older.init_transactions()
        older.begin_transaction()
        await older.send(target, b"zombie", partition=0)
        async with Producer(cluster, env=env, transactional_id=transactional_id) as newer:
            await newer.init_transactions()
            async with newer.transaction():
                await newer.send(target, b"alive", partition=0)
        with pytest.raises(ProducerFenced, match=f"took over the transactional id '{transactional_id}'"):
            await older.commit_transaction()
        with pytest.raises(ProducerFenced):
            older.begin_transaction()
        assert isinstance(older.fatal, ProducerFenced)
        assert newer.fatal is None
    assert await visible(cluster, env, target) == [b"alive"]


async def test_a_record_that_is_refused_breaks_the_transaction(
    cluster: str, env: Env, target: str, name: Callable[[str], str]
) -> None:
    """Committing says so, aborting is the way on, and the next transaction works."""
    async with Producer(cluster, env=env, transactional_id=name("tx"), request_size_bytes_max=4_000_000) as producer:
        await producer.init_transactions()
        producer.begin_transaction()
        await producer.send(target, b"small", partition=0)
        with pytest.raises(KafkaError) as refused:
            await producer.send(target, b"x" * 2_000_000, partition=0)
        assert refused.value.code is ErrorCode.MESSAGE_TOO_LARGE
        with pytest.raises(KafkaError, match="has to be aborted") as refused:
            await producer.commit_transaction()
        assert refused.value.code is ErrorCode.TRANSACTION_ABORTABLE
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send(target, b"next", partition=0)
    assert await visible(cluster, env, target) == [b"next"]


async def test_a_record_that_is_refused_at_once_is_no_part_of_the_transaction(
    cluster: str, env: Env, target: str, name: Callable[[str], str]
) -> None:
    """Whoever sent it was told before anything was taken: the rest may be committed."""
    async with Producer(cluster, env=env, transactional_id=name("tx")) as producer:
        await producer.init_transactions()
        async with producer.transaction():
            await producer.send(target, b"small", partition=0)
            with pytest.raises(KafkaError, match="request_size_bytes_max"):
                await producer.send(target, b"x" * 2_000_000, partition=0)
            with pytest.raises(LocalProtocolError, match="before 1970"):
                await producer.send(target, b"old", partition=0, timestamp_ms=-2)
    assert await visible(cluster, env, target) == [b"small"]


async def test_a_member_of_the_past_cannot_commit_in_a_transaction(
    cluster: str, env: Env, target: str, name: Callable[[str], str]
) -> None:
    """KIP-447: the group's generation fences the zombie, whatever its transactional id."""
    zero = TopicPartition(target, 0)
    async with (
        Consumer(cluster, env=env, group_id=name("group")) as consumer,
        Producer(cluster, env=env, transactional_id=name("tx")) as producer,
    ):
        consumer.subscribe([target])
        async with asyncio.timeout(20):
            while not consumer.assignment():
                await consumer.fetch(timeout_ms=50)
        now = consumer.group_metadata()
        past = GroupMetadata(now.group_id, now.generation_id - 1, now.member_id, None)
        await producer.init_transactions()
        producer.begin_transaction()
        with pytest.raises(KafkaError) as refused:
            await producer.send_offsets({zero: OffsetAndMetadata(3)}, past)
        assert refused.value.code is ErrorCode.ILLEGAL_GENERATION
        with pytest.raises(KafkaError, match="has to be aborted"):
            await producer.commit_transaction()
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_offsets({zero: OffsetAndMetadata(4)}, now)
        assert await consumer.committed([zero]) == {zero: OffsetAndMetadata(4)}


async def test_misuse_has_its_sentence(cluster: str, env: Env, target: str, name: Callable[[str], str]) -> None:
    """Sending outside of a transaction raises; so does every call at the wrong time."""
    async with Producer(cluster, env=env, transactional_id=name("tx")) as producer:
        with pytest.raises(UserError, match="begins with await init_transactions"):
            producer.begin_transaction()
        await producer.init_transactions()
        with pytest.raises(UserError, match="call begin_transaction first"):
            producer.append(target, 0, None, b"v", env.clock.wall_ms())
        with pytest.raises(UserError, match="call begin_transaction first"):
            await producer.commit_transaction()
        producer.begin_transaction()
        with pytest.raises(UserError, match="open already"):
            producer.begin_transaction()
    async with Producer(cluster, env=env) as plain:
        with pytest.raises(UserError, match="no transactional_id"):
            plain.begin_transaction()


async def test_many_short_transactions(cluster: str, env: Env, target: str, name: Callable[[str], str]) -> None:
    """One after another without a pause, records in both partitions."""
    async with Producer(cluster, env=env, transactional_id=name("tx"), linger_ms=0) as producer:
        await producer.init_transactions()
        for number in range(60):
            producer.begin_transaction()
            for partition in (0, 1):
                producer.append(target, partition, None, b"%d" % number, env.clock.wall_ms())
            await (producer.commit_transaction() if number % 3 else producer.abort_transaction())
    expected = [b"%d" % number for number in range(60) if number % 3]
    assert await visible(cluster, env, target) == 2 * expected


async def test_nothing_is_torn_when_connections_break(
    bootstrap: str, env: Env, topic: str, proxy: Proxy, name: Callable[[str], str]
) -> None:
    """What was committed is there once and whole, what was aborted is not, however often connections are cut."""
    await need_transactions(bootstrap, env)
    settings = ConnectionSettings(reconnect_backoff_ms=5, reconnect_backoff_ms_max=20, retry_backoff_ms=5)

    async def cut() -> None:
        while True:
            await asyncio.sleep(0.04)
            proxy.cut()

    committed: list[int] = []
    async with Producer(
        proxy.bootstrap, env=env, transactional_id=name("tx"), linger_ms=1, batch_size_bytes=500, connection=settings
    ) as producer:
        await producer.init_transactions()
        cutting = asyncio.create_task(cut())
        for number in range(60):
            producer.begin_transaction()
            for index in range(30):
                producer.append(topic, index % 3, None, b"%d" % number, env.clock.wall_ms())
            if number % 4:
                await producer.commit_transaction()
                committed.append(number)
            else:
                await producer.abort_transaction()
        cutting.cancel()
    assert proxy.connections > 20
    expected = [b"%d" % number for number in committed for _ in range(10)]
    assert await visible(bootstrap, env, topic) == 3 * expected


async def test_a_transaction_survives_a_broker_restart(
    broker: BrokerUnderTest, bootstrap: str, env: Env, topic: str, name: Callable[[str], str]
) -> None:
    """Records before and after the restart are committed together."""
    await need_transactions(bootstrap, env)
    async with Producer(bootstrap, env=env, transactional_id=name("tx")) as producer:
        await producer.init_transactions()
        producer.begin_transaction()
        await producer.send(topic, b"before", partition=0)
        await asyncio.to_thread(broker.stop)
        await asyncio.to_thread(broker.start)
        await producer.send(topic, b"after", partition=0)
        await producer.commit_transaction()
    assert await visible(bootstrap, env, topic) == [b"before", b"after"]
