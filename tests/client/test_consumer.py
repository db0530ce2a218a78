"""The consumer on its own against a real broker: positions, resets, gaps, and what ends a fetch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

import confluent_kafka
import pytest

from streamlog.client.admin import Admin, NewTopic
from streamlog.client.config import ConnectionSettings, parse_bootstrap
from streamlog.client.connection import connect
from streamlog.client.consumer import Consumer
from streamlog.client.failures import BrokerUnreachable
from streamlog.client.producer import Producer
from streamlog.client.values import OffsetAndMetadata, TopicPartition
from streamlog.env import Env
from streamlog.errors import UserError
from streamlog.wire.apis import ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from tests.brokers import BrokerUnderTest
from tests.kafka_node import free_port
from tests.proxy import Proxy


async def write(bootstrap: str, env: Env, topic: str, count: int, *, partition: int = 0, size_bytes: int = 10) -> None:
    """Records with the values 0, 1, 2... padded to a size, in batches of a few KiB."""
    async with Producer(bootstrap, env=env, batch_size_bytes=4_000) as producer:
        now_ms = env.clock.wall_ms()
        for number in range(count):
            producer.append(topic, partition, None, b"%0*d" % (size_bytes, number), now_ms + number)


async def values(consumer: Consumer, count: int, *, records_max: int | None = None) -> list[int]:
    """The next `count` values, or more when the last batch has more; the ranges of batches are checked."""
    found: list[int] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            for batch in await consumer.fetch(timeout_ms=1_000, records_max=records_max):
                assert batch.columns.offsets == sorted(batch.columns.offsets)
                assert all(batch.start_offset <= one < batch.next_offset for one in batch.columns.offsets)
                found += [int(value or b"") for value in batch.columns.values]
    return found


async def test_a_fetch_returns_records_in_order_with_exclusive_ends(bootstrap: str, env: Env, topic: str) -> None:
    """Batches of a partition join without gap or overlap, and the position is the end of the last."""
    await write(bootstrap, env, topic, 5_000)
    zero = TopicPartition(topic, 0)
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        consumer.assign([zero])
        position = 0
        while position < 5_000:
            for batch in await consumer.fetch(timeout_ms=5_000, records_max=777):
                assert len(batch.columns) <= 777
                assert batch.start_offset == position == batch.columns.offsets[0]
                position = batch.next_offset
                assert batch.columns.offsets[-1] == position - 1
                assert batch.high_watermark == 5_000
        assert consumer.position(zero) == 5_000
        assert await consumer.fetch(timeout_ms=100) == []


async def test_seek_drops_what_was_buffered(bootstrap: str, env: Env, topic: str) -> None:
    """After a seek the first record is the one that was asked for, forwards and backwards, in the middle of batches."""
    await write(bootstrap, env, topic, 3_000)
    zero = TopicPartition(topic, 0)
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        consumer.assign([zero])
        assert (await values(consumer, 1, records_max=5))[0] == 0
        for offset in (1_234, 7, 2_999, 0):
            consumer.seek(zero, offset)
            assert consumer.position(zero) == offset
            assert (await values(consumer, 1, records_max=5))[0] == offset
        consumer.seek_to_end([zero])
        await asyncio.gather(write(bootstrap, env, topic, 1), expect_position(consumer, zero, 3_000))
        consumer.seek_to_beginning([zero])
        assert (await values(consumer, 1))[0] == 0


async def expect_position(consumer: Consumer, partition: TopicPartition, least: int) -> None:
    async with asyncio.timeout(20):
        while (consumer.position(partition) or 0) < least:
            await consumer.fetch(timeout_ms=50)


async def test_paused_partitions_return_nothing_and_lose_nothing(bootstrap: str, env: Env, topic: str) -> None:
    """Pause stops one partition and not the other; resume goes on where it stopped."""
    await write(bootstrap, env, topic, 1_000, partition=0)
    await write(bootstrap, env, topic, 1_000, partition=1)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        consumer.assign([zero, one])
        seen = {0: 0, 1: 0}
        while seen[0] < 10:
            for batch in await consumer.fetch(timeout_ms=5_000, records_max=10):
                seen[batch.partition] += len(batch.columns)
        consumer.pause([zero])
        assert consumer.paused() == [zero]
        at_pause = seen[0]
        while seen[1] < 1_000:
            for batch in await consumer.fetch(timeout_ms=5_000):
                assert batch.partition == 1
                seen[1] += len(batch.columns)
        assert await consumer.fetch(timeout_ms=50) == []
        consumer.resume([zero])
        while seen[0] < 1_000:
            for batch in await consumer.fetch(timeout_ms=5_000):
                assert batch.start_offset == seen[0] >= at_pause
                seen[0] = batch.next_offset


async def test_where_to_begin_without_an_offset(bootstrap: str, env: Env, topic: str) -> None:
    """earliest begins at the first record, latest after the last, none says that there is no position."""
    await write(bootstrap, env, topic, 10)
    zero = TopicPartition(topic, 0)
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        consumer.assign([zero])
        assert (await values(consumer, 10))[0] == 0
    async with Consumer(bootstrap, env=env, auto_offset_reset="latest") as consumer:
        consumer.assign([zero])
        await expect_position(consumer, zero, 10)
        await write(bootstrap, env, topic, 1)
        assert await values(consumer, 1) == [0]
        assert consumer.position(zero) == 11
    async with Consumer(bootstrap, env=env, auto_offset_reset="none") as consumer:
        consumer.assign([zero])
        with pytest.raises(KafkaError, match=f"{topic}-0 has no position; seek"):
            await consumer.fetch(timeout_ms=10_000)
        consumer.seek(zero, 5)
        assert (await values(consumer, 1))[0] == 5


async def test_deleted_records_reset_the_position_by_policy(bootstrap: str, env: Env, admin: Admin, topic: str) -> None:
    """An offset that retention took away goes to the first record there is, or is said, never skipped in silence."""
    await write(bootstrap, env, topic, 100)
    zero = TopicPartition(topic, 0)
    assert await admin.delete_records({zero: 60}) == {zero: 60}
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        consumer.assign([zero])
        consumer.seek(zero, 10)
        assert (await values(consumer, 1))[0] == 60
    async with Consumer(bootstrap, env=env, auto_offset_reset="none") as consumer:
        consumer.assign([zero])
        consumer.seek(zero, 10)
        with pytest.raises(KafkaError, match=r"offset 10 .* does not exist") as refused:
            await consumer.fetch(timeout_ms=10_000)
        assert refused.value.code is ErrorCode.OFFSET_OUT_OF_RANGE


async def test_read_committed_steps_over_aborted_records_and_markers(bootstrap: str, env: Env, topic: str) -> None:
    """Aborted records are not seen, the position covers them and the markers; read_uncommitted sees all records."""
    if not await serves(bootstrap, env, ApiKey.END_TXN):
        pytest.skip("this broker has no transactions")
    zero = TopicPartition(topic, 0)
    await asyncio.to_thread(transact, bootstrap, topic, [("a", True), ("b", False), ("c", True), ("d", False)])
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest", isolation_level="read_committed") as consumer:
        end = (await consumer.end_offsets([zero]))[zero]
        consumer.assign([zero])
        seen: list[bytes | None] = []
        async with asyncio.timeout(30):
            while consumer.position(zero) != end:
                for batch in await consumer.fetch(timeout_ms=1_000):
                    seen += batch.columns.values
        assert seen == [b"a0", b"a1", b"a2", b"c0", b"c1", b"c2"]
        assert end == 16, "twelve records and four markers"
        assert consumer.last_stable_offset(zero) == 16
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        consumer.assign([zero])
        seen = []
        while consumer.position(zero) != end:
            for batch in await consumer.fetch(timeout_ms=1_000):
                seen += batch.columns.values
        assert len(seen) == 12


async def serves(bootstrap: str, env: Env, api_key: ApiKey) -> bool:
    """Whether the broker advertises an API."""
    (address,) = parse_bootstrap(bootstrap)
    connection = await connect(address, ConnectionSettings(), env.clock, lambda _: None)
    served = connection.supports(api_key)
    connection.close()
    await asyncio.sleep(0)
    return served


def transact(bootstrap: str, topic: str, transactions: Sequence[tuple[str, bool]]) -> None:
    """Write three records in each transaction, with a real client, and commit or abort it."""
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "transactional.id": f"tx-{topic}"})
    producer.init_transactions(30)
    for what, commit in transactions:
        producer.begin_transaction()
        for number in range(3):
            producer.produce(topic, f"{what}{number}".encode(), partition=0)
        producer.flush(30)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)


async def test_compacted_gaps_do_not_hold_the_position_back(
    bootstrap: str, env: Env, admin: Admin, name: Callable[[str], str]
) -> None:
    """Where compaction took records, batches still join: the next begins where the last one ends."""
    compacted = name("compacted")
    configs = {
        "cleanup.policy": "compact",
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "200",
    }
    await admin.create_topics([NewTopic(compacted, partitions=1, replication_factor=1, configs=configs)])
    zero = TopicPartition(compacted, 0)
    async with Producer(bootstrap, env=env) as producer:
        for number in range(200):
            await producer.send(compacted, b"%d" % number, key=b"k%d" % (number % 3), partition=0)
            if number % 50 == 49:
                await asyncio.sleep(0.15)
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        end = (await consumer.end_offsets([zero]))[zero]
        consumer.assign([zero])
        position = 0
        while position < end:
            for batch in await consumer.fetch(timeout_ms=5_000):
                assert batch.start_offset == position
                position = batch.next_offset
        assert position == end == 200


async def test_offsets_by_time_and_at_the_ends(bootstrap: str, env: Env, admin: Admin, topic: str) -> None:
    """offsets_for_times finds the first record at or after a time, and None behind the last."""
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    now_ms = env.clock.wall_ms()
    async with Producer(bootstrap, env=env) as producer:
        for number in range(10):
            producer.append(topic, 0, None, b"v", now_ms + 10 * number)
    async with Consumer(bootstrap, env=env) as consumer:
        found = await consumer.offsets_for_times({zero: now_ms + 35, one: now_ms})
        assert found[one] is None
        answer = found[zero]
        assert answer is not None
        assert (answer.offset, answer.timestamp_ms) == (4, now_ms + 40)
        assert await consumer.offsets_for_times({zero: now_ms + 1_000}) == {zero: None}
        assert await consumer.beginning_offsets([zero, one]) == {zero: 0, one: 0}
        assert await consumer.end_offsets([zero, one]) == {zero: 10, one: 0}
        assert await consumer.partitions_for(topic) == [TopicPartition(topic, number) for number in range(3)]


async def test_a_topic_made_again_starts_over(bootstrap: str, env: Env, admin: Admin, topic: str) -> None:
    """A topic that is deleted and created again is another topic: reading begins at its first record."""
    await write(bootstrap, env, topic, 100)
    zero = TopicPartition(topic, 0)
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        consumer.assign([zero])
        assert len(await values(consumer, 100)) == 100
        await admin.delete_topics([topic])
        async with asyncio.timeout(20):
            while topic in await admin.list_topics():
                await asyncio.sleep(0.05)
        await admin.create_topics([NewTopic(topic, partitions=1, replication_factor=1)])
        await write(bootstrap, env, topic, 150)
        assert (await values(consumer, 150)) == list(range(150))


async def test_large_fetches_come_whole(bootstrap: str, env: Env, topic: str) -> None:
    """Megabytes per answer pass through the connection's buffers without damage."""
    async with Producer(bootstrap, env=env) as producer:
        for number in range(60):
            await producer.send(topic, bytes([number]) * 300_000, partition=number % 3)
    async with Consumer(
        bootstrap, env=env, auto_offset_reset="earliest", max_partition_fetch_bytes=8 << 20
    ) as consumer:
        consumer.assign([TopicPartition(topic, number) for number in range(3)])
        seen = 0
        while seen < 60:
            for batch in await consumer.fetch(timeout_ms=5_000):
                for offset, value in zip(batch.columns.offsets, batch.columns.values, strict=True):
                    assert value == bytes([offset * 3 + batch.partition]) * 300_000
                    seen += 1


@pytest.mark.parametrize("seed", range(8))
async def test_full_buffers_never_stop_the_others(
    bootstrap: str, env: Env, admin: Admin, name: Callable[[str], str], seed: int
) -> None:
    """Many partitions, small limits and a reader of changing appetite: everything arrives without a pause."""
    random, wide = Random(seed), name("wide")
    await admin.create_topics([NewTopic(wide, partitions=16, replication_factor=1)])
    async with Producer(bootstrap, env=env, batch_size_bytes=2_000) as producer:
        now_ms = env.clock.wall_ms()
        for number in range(32_000):
            producer.append(wide, number % 16, None, b"x" * 50, now_ms)
    async with Consumer(
        bootstrap,
        env=env,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=random.choice([5_000, 50_000]),
        fetch_max_bytes=random.choice([20_000, 1_000_000]),
        fetch_max_wait_ms=5_000,
    ) as consumer:
        consumer.assign([TopicPartition(wide, number) for number in range(16)])
        seen = 0
        while seen < 32_000:
            async with asyncio.timeout(4):
                batches = await consumer.fetch(timeout_ms=60_000, records_max=random.choice([None, None, 100]))
            seen += sum(len(batch.columns) for batch in batches)
        assert seen == 32_000


async def test_who_becomes_wanted_does_not_wait_for_others_without_data(bootstrap: str, env: Env, topic: str) -> None:
    """While a fetch waits at the broker, partitions that are sought, resumed or assigned are read at once."""
    await write(bootstrap, env, topic, 10, partition=0)
    await write(bootstrap, env, topic, 10, partition=1)
    idle, zero, one = (TopicPartition(topic, number) for number in (2, 0, 1))
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest", fetch_max_wait_ms=30_000) as consumer:
        consumer.assign([idle, zero])
        async with asyncio.timeout(10):
            assert await values(consumer, 10) == list(range(10))
            assert await consumer.fetch(timeout_ms=300) == []
            consumer.seek(zero, 4)
            assert await values(consumer, 6) == list(range(4, 10))
            consumer.assign([idle, zero, one])
            assert await values(consumer, 10) == list(range(10))
            consumer.pause([one])
            consumer.seek(one, 8)
            assert await consumer.fetch(timeout_ms=50) == []
            consumer.resume([one])
            assert await values(consumer, 2) == [8, 9]


async def test_reading_goes_on_through_broken_connections(bootstrap: str, env: Env, topic: str, proxy: Proxy) -> None:
    """Connections are reset all the time; every record comes once and in order."""
    await write(bootstrap, env, topic, 20_000, size_bytes=100)
    settings = ConnectionSettings(reconnect_backoff_ms=5, reconnect_backoff_ms_max=20, retry_backoff_ms=5)
    zero = TopicPartition(topic, 0)
    async with Consumer(
        proxy.bootstrap, env=env, auto_offset_reset="earliest", max_partition_fetch_bytes=10_000, connection=settings
    ) as consumer:
        consumer.assign([zero])
        seen: list[int] = []
        while len(seen) < 20_000:
            seen += await values(consumer, 1)
            if len(seen) % 7 == 0:
                proxy.cut()
        assert seen == list(range(20_000))


async def test_reading_goes_on_after_a_broker_restart(
    broker: BrokerUnderTest, bootstrap: str, env: Env, topic: str
) -> None:
    """The consumer waits for the broker to come back and goes on where it was."""
    await write(bootstrap, env, topic, 100)
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        assert len(await values(consumer, 100)) == 100
        await asyncio.to_thread(broker.stop)
        assert await consumer.fetch(timeout_ms=200) == []
        await asyncio.to_thread(broker.start)
        await write(bootstrap, env, topic, 50)
        assert await values(consumer, 50) == list(range(50))


async def test_records_one_by_one(bootstrap: str, env: Env, topic: str) -> None:
    """async for gives records with all they have."""
    async with Producer(bootstrap, env=env) as producer:
        await producer.send(topic, b"v", key=b"k", partition=2, timestamp_ms=env.clock.wall_ms(), headers=[("h", b"x")])
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, number) for number in range(3)])
        async for record in consumer:
            assert (record.topic, record.partition, record.offset) == (topic, 2, 0)
            assert (record.key, record.value, tuple(record.headers)) == (b"k", b"v", (("h", b"x"),))
            break


async def test_offsets_of_a_group_without_membership(
    bootstrap: str, env: Env, topic: str, name: Callable[[str], str]
) -> None:
    """With a group id and assigned partitions, commits and starting points are the group's, and nobody rebalances."""
    await write(bootstrap, env, topic, 100)
    zero, group = TopicPartition(topic, 0), name("group")
    async with Consumer(bootstrap, env=env, group_id=group, auto_offset_reset="earliest") as consumer:
        consumer.assign([zero])
        assert await consumer.committed([zero]) == {zero: None}
        assert (await values(consumer, 30, records_max=30)) == list(range(30))
        await consumer.commit()
        await consumer.commit({TopicPartition(topic, 1): OffsetAndMetadata(0, metadata="note")})
    async with Consumer(bootstrap, env=env, group_id=group, auto_offset_reset="earliest") as consumer:
        committed = await consumer.committed([zero, TopicPartition(topic, 1)])
        assert committed[zero] == OffsetAndMetadata(30, 0)
        assert committed[TopicPartition(topic, 1)] == OffsetAndMetadata(0, -1, "note")
        consumer.assign([zero])
        assert (await values(consumer, 1))[0] == 30


async def test_what_makes_no_sense_is_said(bootstrap: str, env: Env, topic: str) -> None:
    """Each misuse has its own sentence."""
    with pytest.raises(UserError, match="subscribe needs a group_id"):
        Consumer(bootstrap, env=env).subscribe([topic])
    with pytest.raises(UserError, match=r"write subscribe\(\['t'\]\)"):
        Consumer(bootstrap, env=env, group_id="g").subscribe("t")
    with pytest.raises(UserError, match="not open"):
        await Consumer(bootstrap, env=env).fetch(timeout_ms=1)
    async with Consumer(bootstrap, env=env) as consumer:
        with pytest.raises(UserError, match="is not assigned"):
            consumer.seek(TopicPartition(topic, 0), 1)
        with pytest.raises(UserError, match="commit needs a group_id"):
            await consumer.commit()


async def test_nobody_at_the_address_is_said_in_one_sentence(env: Env) -> None:
    """open names the address and says what to check."""
    port = free_port()
    consumer = Consumer(f"127.0.0.1:{port}", env=env, connection=ConnectionSettings(api_timeout_ms=300))
    with pytest.raises(BrokerUnreachable, match=rf"no broker answered at 127.0.0.1:{port} within 0.3 s.*check that"):
        await consumer.open()


async def test_a_topic_that_does_not_exist_is_waited_for(
    bootstrap: str, env: Env, admin: Admin, name: Callable[[str], str]
) -> None:
    """Partitions of a topic that is created later are read from their beginning."""
    later = name("later")
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(later, 0)])
        assert await consumer.fetch(timeout_ms=200) == []
        await admin.create_topics([NewTopic(later, partitions=1, replication_factor=1)])
        await write(bootstrap, env, later, 10)
        assert await values(consumer, 10) == list(range(10))
