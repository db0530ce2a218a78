"""One bad record is refused where it is handed over, and everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from streamlog.client.admin import Admin, NewTopic
from streamlog.client.delivery import Failed
from streamlog.client.failures import DeliveryUnknown
from streamlog.client.producer import Producer
from streamlog.client.values import Headers
from streamlog.env import Env
from streamlog.errors import LocalProtocolError, StreamlogError, UserError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from tests.brokers import broker_kind
from tests.client.test_producer import NOW_MS, read_all


async def test_a_time_before_1970_is_refused_and_the_next_records_are_sent(
    bootstrap: str, env: Env, topic: str
) -> None:
    """Kafka's times are not negative: send raises at once, append as well, and nobody else notices."""
    async with Producer(bootstrap, env=env) as producer:
        await producer.partitions(topic)
        with pytest.raises(LocalProtocolError, match="timestamp -5000 ms is before 1970"):
            producer.send_nowait(topic, b"bad", partition=0, timestamp_ms=-5_000)
        with pytest.raises(LocalProtocolError, match="timestamp -1 ms is before 1970"):
            producer.append(topic, 0, None, b"bad", -1)
        async with asyncio.timeout(20):
            assert (await producer.send(topic, b"fine", partition=0)).offset == 0
            producer.append(topic, 0, None, b"fine too", NOW_MS)
            await producer.flush()
    assert [one.value for one in (await read_all(bootstrap, env, topic))[0]] == [b"fine", b"fine too"]


async def test_a_record_above_the_request_limit_is_refused_and_its_neighbours_are_sent(
    bootstrap: str, env: Env, topic: str
) -> None:
    """Such a record raises at once with both sizes; the open batch it met goes out without it, in order."""
    async with Producer(bootstrap, env=env, linger_ms=50, request_size_bytes_max=10_000) as producer:
        await producer.partitions(topic)
        sent = [producer.send_nowait(topic, b"%d" % index, partition=0) for index in range(3)]
        with pytest.raises(KafkaError, match=r"10\d\d\d bytes .*request_size_bytes_max.* 10000") as refused:
            producer.send_nowait(topic, b"x" * 10_000, partition=0)
        assert refused.value.code is ErrorCode.MESSAGE_TOO_LARGE
        sent.append(producer.send_nowait(topic, b"y" * 9_900, partition=0))
        async with asyncio.timeout(20):
            assert [one.offset for one in await asyncio.gather(*sent)] == [0, 1, 2, 3]
    assert [len(one.value or b"") for one in (await read_all(bootstrap, env, topic))[0]] == [1, 1, 1, 9_900]


BAD: list[tuple[str, bytes | None, int | None, Headers, str]] = [
    ("a header with a lone surrogate", b"v", 0, (("\ud800", b"1"),), "no UTF-8"),
    ("a header whose value is text", b"v", 0, (("h", "text"),), "bytes or None"),  # type: ignore[list-item]  # the point
    ("a value that is text", "text", 0, (), "bytes or None"),  # type: ignore[list-item]  # the point
    ("a negative partition", b"v", -1, (), "partition -1"),
    ("a partition that is text", b"v", "0", (), "partition '0'"),  # type: ignore[list-item]  # the point
]


@pytest.mark.parametrize(
    ("value", "partition", "headers", "why"), [one[1:] for one in BAD], ids=[one[0] for one in BAD]
)
@pytest.mark.parametrize("known", [True, False])
async def test_what_no_record_can_be_is_refused_at_once(
    bootstrap: str,
    env: Env,
    topic: str,
    value: bytes | None,
    partition: int | None,
    headers: Headers,
    why: str,
    known: bool,
) -> None:
    """Whether or not the topic's partitions are known yet; the producer goes on."""
    async with Producer(bootstrap, env=env) as producer:
        if known:
            await producer.partitions(topic)
        elif partition == 0:
            partition = None
        with pytest.raises(StreamlogError, match=why):
            producer.send_nowait(topic, value, partition=partition, headers=headers)
        async with asyncio.timeout(20):
            assert (await producer.send(topic, b"fine", partition=0)).offset == 0


@pytest.mark.parametrize("bad", ["", ".", "no spaces", "x" * 250, "lone \ud800 surrogate", "x" * 40_000], ids=range(6))
async def test_a_name_that_no_topic_can_have_is_refused_at_once(bootstrap: str, env: Env, topic: str, bad: str) -> None:
    """Asking brokers about such a name could end in an answer about nothing else any more."""
    async with Producer(bootstrap, env=env) as producer:
        with pytest.raises(UserError, match="is not a topic name"):
            producer.send_nowait(bad, b"v")
        with pytest.raises(UserError, match="is not a topic name"):
            producer.append(bad, 0, None, b"v", NOW_MS)
        with pytest.raises(UserError, match="is not a topic name"):
            await producer.partitions(bad)
        async with asyncio.timeout(20):
            assert (await producer.send(topic, b"fine", partition=0)).offset == 0


async def test_a_compression_level_that_does_not_exist_is_refused_by_the_producer(env: Env) -> None:
    """Not by every batch later on."""
    with pytest.raises(UserError, match="gzip has no compression level 77"):
        Producer("localhost", env=env, compression="gzip", compression_level=77)


async def test_bad_records_for_a_topic_in_the_making_do_not_hold_up_the_good_ones(
    bootstrap: str, env: Env, name: Callable[[str], str]
) -> None:
    """While the topic is being created records wait without a partition: bad ones do not join them."""
    made = name("made")
    async with Producer(bootstrap, env=env) as producer:
        first = producer.send_nowait(made, b"first")
        with pytest.raises(LocalProtocolError, match="before 1970"):
            producer.send_nowait(made, b"bad", timestamp_ms=-1)
        with pytest.raises(KafkaError, match="request_size_bytes_max"):
            producer.send_nowait(made, b"x" * 2_000_000)
        async with asyncio.timeout(20):
            assert (await first).offset == 0


async def test_flush_does_not_wait_for_the_linger_of_records_whose_topic_was_not_known(
    bootstrap: str, env: Env, topic: str
) -> None:
    """They are routed first and sent then; one whose caller gave up meanwhile holds nothing up."""
    async with Producer(bootstrap, env=env, linger_ms=600_000) as producer:
        first, given_up = producer.send_nowait(topic, b"1"), producer.send_nowait(topic, b"2")
        given_up.cancel()
        async with asyncio.timeout(20):
            await producer.flush()
        assert first.result().offset == 0


async def test_a_topics_own_limit_goes_before_the_producers(bootstrap: str, env: Env, topic: str) -> None:
    """What the topic does not take is refused at once and by name; what it takes is sent, however large."""
    async with Admin(bootstrap, env=env) as admin:
        await admin.create_topics([NewTopic("large", 1, configs={"max.message.bytes": "3000000"})])
    async with Producer(bootstrap, env=env, request_size_bytes_max=10_000) as producer:
        producer.limit_topic("large", 3_000_000)
        producer.limit_topic(topic, 500)
        await producer.partitions(topic)
        producer.append(topic, 0, b"k", b"fits", NOW_MS)
        with pytest.raises(KafkaError, match=rf"for {topic}-0 with the key 'k' .*max.message.bytes of 500") as refused:
            producer.append(topic, 0, b"k", b"x" * 450, NOW_MS)
        assert refused.value.code is ErrorCode.MESSAGE_TOO_LARGE
        producer.append(topic, 0, b"k", b"fits too", NOW_MS)
        async with asyncio.timeout(20):
            assert (await producer.send("large", b"x" * 2_000_000, partition=0)).offset == 0
            await producer.flush()
    assert [one.value for one in (await read_all(bootstrap, env, topic))[0]] == [b"fits", b"fits too"]


async def test_a_limit_of_a_topic_counts_to_the_byte(bootstrap: str, env: Env) -> None:
    """The largest record that the broker takes is sent, and one byte more is refused before."""
    async with Admin(bootstrap, env=env) as admin:
        await admin.create_topics([NewTopic("exact", 1, configs={"max.message.bytes": "1000"})])
    async with Producer(bootstrap, env=env, linger_ms=0) as producer:
        await producer.partitions("exact")
        fits = 900
        async with asyncio.timeout(20):
            while True:
                try:
                    await producer.send("exact", b"x" * (fits + 1), key=b"k", partition=0)
                except KafkaError:
                    break
                fits += 1
            producer.limit_topic("exact", 1000)
            await producer.send("exact", b"x" * fits, key=b"k", partition=0)
        with pytest.raises(KafkaError, match="1001 bytes"):
            producer.send_nowait("exact", b"x" * (fits + 1), key=b"k", partition=0)


async def test_records_for_a_topic_that_was_deleted_are_refused_after_their_patience(
    bootstrap: str, env: Env, topic: str
) -> None:
    """Not after the delivery timeout; also what the broker has refused already. Other topics do not wait."""
    failed: list[Failed] = []
    producer = Producer(
        bootstrap, env=env, auto_create_topics=False, missing_topic_timeout_ms=500, on_append_failure=failed.append
    )
    async with producer, Admin(bootstrap, env=env) as admin:
        await admin.create_topics([NewTopic("other", 1)])
        producer.append(topic, 0, b"k", b"1", NOW_MS)
        await producer.flush()
        await admin.delete_topics([topic])
        producer.append(topic, 0, b"k", b"2", NOW_MS)
        async with asyncio.timeout(20):
            assert (await producer.send("other", b"v", partition=0)).offset == 0
            await producer.flush()
    (one,) = failed
    assert (one.topic, one.partition, one.code) == (topic, 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    # Apache Kafka's controller answers before its broker has let go, so that the record may have been written first.
    in_doubt = isinstance(one.failure, DeliveryUnknown) and broker_kind() != "streamlog"
    assert isinstance(one.failure, KafkaError) or in_doubt
