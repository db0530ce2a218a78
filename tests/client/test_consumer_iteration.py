"""Records one by one: none is skipped or committed before the application has it, however the loop ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from streamlog.client.consumer import Consumer
from streamlog.client.producer import Producer
from streamlog.client.values import TopicPartition
from streamlog.env import Env

COUNT = 20


@pytest.fixture
async def zero(bootstrap: str, env: Env, topic: str) -> TopicPartition:
    """A partition with twenty records in one batch."""
    async with Producer(bootstrap, env=env, linger_ms=1_000) as producer:
        for number in range(COUNT):
            producer.append(topic, 0, None, b"%d" % number, env.clock.wall_ms())
    return TopicPartition(topic, 0)


async def take(consumer: Consumer, count: int) -> list[int]:
    """The offsets of the next records; the loop is left with a break."""
    found: list[int] = []
    async with asyncio.timeout(20):
        async for record in consumer:
            found.append(record.offset)
            if len(found) == count:
                break
    return found


async def committed(bootstrap: str, env: Env, group: str, partition: TopicPartition) -> int | None:
    async with Consumer(bootstrap, env=env, group_id=group) as consumer:
        found = (await consumer.committed([partition]))[partition]
    return found.offset if found is not None else None


async def test_a_loop_that_was_left_goes_on_where_it_was(bootstrap: str, env: Env, zero: TopicPartition) -> None:
    """What was fetched and not handed out comes first, from another loop or from fetch."""
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        consumer.assign([zero])
        assert await take(consumer, 3) == [0, 1, 2]
        assert await take(consumer, 2) == [3, 4]
        (batch,) = await consumer.fetch(timeout_ms=20_000)
        assert (batch.start_offset, batch.next_offset) == (5, COUNT)
        assert batch.columns.offsets == list(range(5, COUNT))
        assert await consumer.fetch(timeout_ms=0) == []


async def test_a_seek_ends_what_a_loop_had_in_hand(bootstrap: str, env: Env, zero: TopicPartition) -> None:
    """Records of the place before are not handed out after it."""
    async with Consumer(bootstrap, env=env, auto_offset_reset="earliest") as consumer:
        consumer.assign([zero])
        assert await take(consumer, 3) == [0, 1, 2]
        consumer.seek(zero, 10)
        assert await take(consumer, 2) == [10, 11]


async def test_commit_in_a_loop_covers_what_the_loop_handed_out(
    bootstrap: str, env: Env, zero: TopicPartition, name: Callable[[str], str]
) -> None:
    """And not the rest of the batch, which a crash would skip."""
    group = name("group")
    async with Consumer(bootstrap, env=env, group_id=group, auto_offset_reset="earliest") as consumer:
        consumer.assign([zero])
        assert await take(consumer, 3) == [0, 1, 2]
        await consumer.commit()
    assert await committed(bootstrap, env, group, zero) == 3


async def test_closing_after_a_loop_commits_what_the_loop_handed_out(
    bootstrap: str, env: Env, zero: TopicPartition, name: Callable[[str], str]
) -> None:
    """Auto commit counts the records that were handed out as done when the consumer is closed in order."""
    group = name("group")
    made = Consumer(bootstrap, env=env, group_id=group, auto_offset_reset="earliest", auto_commit=True)
    async with made as consumer:
        consumer.subscribe([zero.topic])
        assert await take(consumer, 3) == [0, 1, 2]
    assert await committed(bootstrap, env, group, zero) == 3


async def test_an_exception_in_the_block_commits_nothing_that_was_in_hand(
    bootstrap: str, env: Env, zero: TopicPartition, name: Callable[[str], str]
) -> None:
    """Whatever was being processed comes again: auto commit never commits what is not processed."""
    group = name("group")

    async def work() -> None:
        async with Consumer(
            bootstrap, env=env, group_id=group, auto_offset_reset="earliest", auto_commit=True
        ) as consumer:
            consumer.subscribe([zero.topic])
            async with asyncio.timeout(20):
                assert await consumer.fetch(timeout_ms=20_000)
            raise ValueError("a record that cannot be processed")

    with pytest.raises(ValueError, match="cannot be processed"):
        await work()
    assert await committed(bootstrap, env, group, zero) in (None, 0)
