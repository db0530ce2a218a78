"""The producer against a real broker: what is written is what was sent, once, in order, whatever breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from streamlog.client.admin import Admin, NewTopic
from streamlog.client.config import ConnectionSettings
from streamlog.client.consumer import Consumer
from streamlog.client.failures import BrokerUnreachable, BufferFull, DeliveryUnknown, NotDelivered
from streamlog.client.partitioner import partition_for_key
from streamlog.client.producer import CompressionName, Producer
from streamlog.client.values import ConsumerRecord, RecordMetadata, TopicPartition
from streamlog.env import Env
from streamlog.errors import LocalProtocolError, UserError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from tests.brokers import BrokerUnderTest
from tests.kafka_node import free_port
from tests.proxy import Proxy

NOW_MS = time.time_ns() // 1_000_000
"""Brokers refuse records from the future, and retention takes those from the past."""


async def read_all(bootstrap: str, env: Env, topic: str) -> dict[int, list[ConsumerRecord]]:
    """Everything in a topic, by partition."""
    found: dict[int, list[ConsumerRecord]] = {}
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        partitions = await consumer.partitions_for(topic)
        ends = await consumer.end_offsets(partitions)
        consumer.assign(partitions)
        while any((consumer.position(one) or 0) < ends[one] for one in partitions):
            for batch in await consumer.fetch(timeout_ms=5_000):
                for row in batch.columns.rows():
                    record = ConsumerRecord(batch.topic, batch.partition, *row, batch.leader_epoch)
                    found.setdefault(batch.partition, []).append(record)
    return found


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_records_come_back_as_they_were_sent(
    bootstrap: str, env: Env, topic: str, compression: CompressionName
) -> None:
    """Keys, values, nulls, headers and timestamps survive, under every compression."""
    sent = [
        (b"key", b"value", NOW_MS, (("h", b"1"), ("h", None), ("ü", b""))),
        (None, b"", NOW_MS + 1, ()),
        (b"", None, NOW_MS + 2, ()),
        (b"k" * 1_000, b"v" * 100_000, NOW_MS - 1, ()),
    ]
    async with Producer(bootstrap, env=env, compression=compression) as producer:
        written = await asyncio.gather(
            *(
                producer.send(topic, value, key=key, partition=1, timestamp_ms=at_ms, headers=headers)
                for key, value, at_ms, headers in sent
            )
        )
    assert [one.offset for one in written] == [0, 1, 2, 3]
    assert [one.timestamp_ms for one in written] == [at_ms for _, _, at_ms, _ in sent]
    records = (await read_all(bootstrap, env, topic))[1]
    assert [(one.key, one.value, one.timestamp_ms, tuple(one.headers)) for one in records] == sent


async def test_keys_decide_the_partition_as_in_java(bootstrap: str, env: Env, topic: str) -> None:
    """A record with a key goes where Java's partitioner puts it."""
    keys = [f"key-{index}".encode() for index in range(50)]
    async with Producer(bootstrap, env=env) as producer:
        written = await asyncio.gather(*(producer.send(topic, b"v", key=key) for key in keys))
        assert [producer.partition_for(topic, key) for key in keys] == [one.partition for one in written]
    assert [one.partition for one in written] == [partition_for_key(key, 3) for key in keys]


async def test_records_without_key_use_every_partition(bootstrap: str, env: Env, topic: str) -> None:
    """Without a key, partitions take turns of a batch each."""
    async with Producer(bootstrap, env=env, batch_size_bytes=1_000) as producer:
        written = await asyncio.gather(*(producer.send(topic, b"v" * 100) for _ in range(200)))
    assert {one.partition for one in written} == {0, 1, 2}


@pytest.mark.parametrize("acks", [0, 1])
async def test_fewer_acks_without_idempotence(bootstrap: str, env: Env, topic: str, acks: int) -> None:
    """acks=1 tells the offset, acks=0 tells nothing; both are written."""
    async with Producer(bootstrap, env=env) as producer:
        await producer.send(topic, b"0", partition=0)  # from here on the broker knows that it leads
    async with Producer(bootstrap, env=env, acks=1 if acks else 0, idempotent=False) as producer:
        written = await asyncio.gather(*(producer.send(topic, b"%d" % index, partition=0) for index in range(1, 10)))
    assert [one.offset for one in written] == (list(range(1, 10)) if acks else [-1] * 9)
    records: list[ConsumerRecord] = []
    async with asyncio.timeout(20):
        while len(records) < 10:  # without acks nobody says when the broker is done
            records = (await read_all(bootstrap, env, topic)).get(0, [])
    assert [one.value for one in records] == [b"%d" % index for index in range(10)]


async def test_appended_records_are_known_through_flush(bootstrap: str, env: Env, topic: str) -> None:
    """append has no futures; after flush everything is in the log, in order."""
    async with Producer(bootstrap, env=env) as producer:
        for index in range(20_000):
            producer.append(topic, index % 3, None, b"%d" % index, NOW_MS)
            if index % 1_000 == 0:
                await producer.room()
        await producer.flush()
        records = await read_all(bootstrap, env, topic)
    for partition in range(3):
        assert [one.value for one in records[partition]] == [b"%d" % index for index in range(partition, 20_000, 3)]


async def test_flush_tells_the_first_failure_of_appended_records_once(bootstrap: str, env: Env, topic: str) -> None:
    """A record for a partition that does not exist is refused with a sentence that says so."""
    async with Producer(bootstrap, env=env) as producer:
        producer.append(topic, 7, None, b"lost", NOW_MS)
        with pytest.raises(KafkaError, match=r"has 3 partitions, there is no partition 7") as refused:
            await producer.flush()
        assert refused.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        await producer.flush()


async def test_a_producer_that_was_ended_says_why_to_everybody(bootstrap: str, env: Env, topic: str) -> None:
    """Records that wait were not delivered; whoever comes later is told at once."""
    why = UserError("another one goes on")
    producer = Producer(bootstrap, env=env, linger_ms=60_000)
    await producer.open()
    await producer.partitions(topic)
    waiting = producer.send_nowait(topic, b"v", partition=0)
    producer.end(why)
    with pytest.raises(NotDelivered):
        await waiting
    assert producer.fatal is why
    with pytest.raises(UserError, match="another one goes on"):
        await producer.send(topic, b"v", partition=0)
    with pytest.raises(UserError, match="another one goes on"):
        await producer.close()


async def test_a_topic_that_never_appears_is_named(bootstrap: str, env: Env, name: Callable[[str], str]) -> None:
    """send gives up after max_block_ms and says that the topic does not exist."""
    missing = name("missing")
    async with Producer(bootstrap, env=env, auto_create_topics=False, max_block_ms=500) as producer:
        with pytest.raises(KafkaError, match=f"topic '{missing}' does not exist") as refused:
            await producer.send(missing, b"v")
        assert refused.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_appends_to_a_topic_that_never_appears_are_not_delivered(
    bootstrap: str, env: Env, name: Callable[[str], str]
) -> None:
    """After the delivery timeout the outcome is definite: nothing was sent, and the reason is named."""
    missing = name("missing")
    async with Producer(bootstrap, env=env, auto_create_topics=False, delivery_timeout_ms=700) as producer:
        producer.append(missing, 0, None, b"v", NOW_MS)
        with pytest.raises(NotDelivered, match=f"topic '{missing}' does not exist"):
            await producer.flush()


async def test_large_records_pass_and_too_large_ones_are_refused(bootstrap: str, env: Env, topic: str) -> None:
    """A record near the broker's limit is written; one above it is refused for certain."""
    async with Producer(bootstrap, env=env) as producer:
        written = await producer.send(topic, b"x" * 1_000_000, partition=0)
        assert written.offset == 0
        with pytest.raises(KafkaError) as refused:
            await producer.send(topic, b"x" * 2_000_000, partition=0)
        assert refused.value.code is ErrorCode.MESSAGE_TOO_LARGE
        written = await producer.send(topic, b"after", partition=0)
    assert written.offset == 1
    assert [len(one.value or b"") for one in (await read_all(bootstrap, env, topic))[0]] == [1_000_000, 5]


async def test_batches_too_large_for_the_topic_are_split(
    bootstrap: str, env: Env, admin: Admin, name: Callable[[str], str]
) -> None:
    """When the topic's limit is below the batch size, halves are sent until they fit; order and offsets hold."""
    small = name("small")
    configs = {"max.message.bytes": "2000"}
    await admin.create_topics([NewTopic(small, partitions=1, replication_factor=1, configs=configs)])
    async with Producer(bootstrap, env=env, linger_ms=50) as producer:
        written = await asyncio.gather(*(producer.send(small, b"%03d" % n * 50, partition=0) for n in range(100)))
    assert [one.offset for one in written] == list(range(100))
    records = (await read_all(bootstrap, env, small))[0]
    assert [one.value for one in records] == [b"%03d" % n * 50 for n in range(100)]


async def test_nothing_is_lost_or_doubled_when_connections_break(
    bootstrap: str, env: Env, topic: str, proxy: Proxy
) -> None:
    """Connections are reset every few milliseconds; every record is in the log once, in order."""
    settings = ConnectionSettings(reconnect_backoff_ms=5, reconnect_backoff_ms_max=20, retry_backoff_ms=5)

    async def cut() -> None:
        while True:
            await asyncio.sleep(0.02)
            proxy.cut()

    async with Producer(proxy.bootstrap, env=env, linger_ms=1, batch_size_bytes=2_000, connection=settings) as producer:
        cutting = asyncio.create_task(cut())
        futures: list[asyncio.Future[RecordMetadata]] = []
        while proxy.connections < 25 or len(futures) < 3_000:
            for _ in range(20):
                index = len(futures)
                futures.append(producer.send_nowait(topic, b"%d" % index, partition=index % 3))
            await asyncio.sleep(0.002)
        written = await asyncio.gather(*futures)
        cutting.cancel()
    count = len(written)
    records = await read_all(bootstrap, env, topic)
    for partition in range(3):
        assert [one.value for one in records[partition]] == [b"%d" % n for n in range(partition, count, 3)]
        known = [one.offset for one in written if one.partition == partition and one.offset >= 0]
        assert known == sorted(known)


async def test_a_cancelled_send_is_sent_once_it_was_taken_and_not_before(bootstrap: str, env: Env, topic: str) -> None:
    """It waits for the topic to be known, then for room in the buffer, then for the answer."""

    async def cancelled(send: asyncio.Task[RecordMetadata]) -> None:
        await asyncio.sleep(0)
        send.cancel()
        with pytest.raises(asyncio.CancelledError):
            await send

    async with Producer(bootstrap, env=env, linger_ms=60_000, buffer_bytes_max=10_000) as producer:
        await cancelled(asyncio.create_task(producer.send(topic, b"topic not known", partition=None)))
        await producer.partitions(topic)
        await cancelled(asyncio.create_task(producer.send(topic, b"taken", partition=0)))
        producer.append(topic, 0, None, b"x" * 11_000, NOW_MS)
        assert producer.full
        await cancelled(asyncio.create_task(producer.send(topic, b"no room", partition=0)))
    records = await read_all(bootstrap, env, topic)
    assert [one.value for some in records.values() for one in some] == [b"taken", b"x" * 11_000]


async def test_an_answer_that_never_comes_is_an_unknown_outcome(env: Env, topic: str, proxy: Proxy) -> None:
    """What was sent and not answered in time may be in the log: the error says that nobody knows."""
    async with Producer(proxy.bootstrap, env=env, linger_ms=0, delivery_timeout_ms=500) as producer:
        await producer.send(topic, b"first", partition=0)
        proxy.swallowing = True
        with pytest.raises(DeliveryUnknown, match="may or may not have been written"):
            await producer.send(topic, b"second", partition=0)
        proxy.swallowing = False
        proxy.cut()
        assert (await producer.send(topic, b"third", partition=0)).offset in (1, 2)


async def test_what_was_never_sent_is_certainly_not_delivered(env: Env, topic: str, proxy: Proxy) -> None:
    """While no connection can be made nothing is sent; the timeout is then a definite failure that names the broker."""
    async with Producer(proxy.bootstrap, env=env, linger_ms=0, delivery_timeout_ms=500) as producer:
        await producer.send(topic, b"first", partition=0)
        proxy.refusing = True
        proxy.cut()
        await asyncio.sleep(0.1)  # until the producer has noticed; before that, sending to a dead socket is unknown
        with pytest.raises(NotDelivered, match=r"its leader is the broker at .*; check that it runs"):
            await producer.send(topic, b"second", partition=0)
        proxy.refusing = False
        assert (await producer.send(topic, b"third", partition=0)).offset == 1


async def test_a_broker_restart_in_the_middle_loses_nothing(
    broker: BrokerUnderTest, bootstrap: str, env: Env, topic: str
) -> None:
    """Sending goes on through an orderly restart and through kill -9 of a broker that keeps its disk."""
    futures = []
    async with Producer(bootstrap, env=env, linger_ms=1) as producer:
        for index in range(3_000):
            futures.append(producer.send_nowait(topic, b"%d" % index, partition=0))
            if index in (500, 1_500):
                await asyncio.to_thread(broker.stop, kill=index == 1_500)
                await asyncio.to_thread(broker.start)
            if index % 50 == 0:
                await asyncio.sleep(0.001)
        written = await asyncio.gather(*futures)
    records = (await read_all(bootstrap, env, topic))[0]
    assert [one.offset for one in written if one.offset >= 0] == [n for n in range(3_000) if written[n].offset >= 0]
    assert [(one.offset, one.value) for one in records] == [(index, b"%d" % index) for index in range(3_000)]


async def test_the_buffer_is_bounded(bootstrap: str, env: Env, topic: str) -> None:
    """A full buffer refuses at once, and room() returns when the broker has taken some."""
    async with Producer(bootstrap, env=env, linger_ms=60_000, buffer_bytes_max=100_000) as producer:
        await producer.partitions(topic)
        for _ in range(90):
            producer.send_nowait(topic, b"x" * 1_000, partition=0)
        producer.send_nowait(topic, b"x" * 10_000, partition=0)
        with pytest.raises(BufferFull):
            producer.send_nowait(topic, b"x", partition=0)
        await asyncio.wait_for(producer.room(), 20)
        producer.send_nowait(topic, b"z", partition=0)


async def test_a_value_that_is_not_bytes_is_refused_and_the_rest_goes_on(bootstrap: str, env: Env, topic: str) -> None:
    """A record the format cannot carry raises where it is handed over."""
    async with Producer(bootstrap, env=env) as producer:
        with pytest.raises(LocalProtocolError):
            producer.append(topic, 0, None, "text", NOW_MS)  # type: ignore[arg-type]  # the point of the test
        assert (await producer.send(topic, b"fine", partition=0)).offset == 0


async def test_nobody_at_the_address_is_said_in_one_sentence(env: Env) -> None:
    """open names the address and says what to check."""
    port = free_port()
    producer = Producer(f"127.0.0.1:{port}", env=env, connection=ConnectionSettings(api_timeout_ms=300))
    with pytest.raises(BrokerUnreachable, match=rf"no broker answered at 127.0.0.1:{port} within 0.3 s.*check that"):
        await producer.open()
    await producer.close()


async def test_settings_that_make_no_sense_are_refused(env: Env) -> None:
    """Each contradiction has its own sentence."""
    with pytest.raises(UserError, match="is not a broker address"):
        Producer("localhost:port", env=env)
    with pytest.raises(UserError, match="needs acks='all'"):
        Producer("localhost", env=env, acks=1)
    with pytest.raises(UserError, match="not open"):
        await Producer("localhost", env=env).send("t", b"v")


async def test_sends_in_flight_when_the_producer_closes_have_their_answer(bootstrap: str, env: Env, topic: str) -> None:
    """Leaving the context sends what is buffered; no future is left without an answer."""
    async with Producer(bootstrap, env=env, linger_ms=5_000) as producer:
        futures = [producer.send_nowait(topic, b"v", partition=0) for _ in range(100)]
    assert [one.result().offset for one in futures] == list(range(100))


async def test_two_producers_do_not_disturb_each_other(bootstrap: str, env: Env, topic: str) -> None:
    """Each has its own identity: both write all they have."""
    async with Producer(bootstrap, env=env) as one, Producer(bootstrap, env=env) as two:
        await asyncio.gather(*(producer.send(topic, b"v", partition=0) for producer in (one, two) for _ in range(500)))
        async with Consumer(bootstrap, env=env) as consumer:
            ends = await consumer.end_offsets([TopicPartition(topic, 0)])
    assert ends == {TopicPartition(topic, 0): 1_000}
