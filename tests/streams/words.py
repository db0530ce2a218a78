"""The word count app that live tests run, and its input and output as counters."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping

import streamlog
import streamlog.serde
from streamlog.client.consumer import Consumer
from streamlog.client.producer import Producer
from streamlog.client.values import TopicPartition
from streamlog.env import real_env

PARTITIONS = 4
WORDS = [f"word{number}" for number in range(50)]


def word_count(name: str, commit_interval_ms: int = 100) -> streamlog.App:
    """Lines are split, words are counted on the partition of the word."""
    app = streamlog.App(name, partitions=PARTITIONS, commit_interval_ms=commit_interval_ms)
    lines = app.topic(f"{name}-lines", value=str, partitions=PARTITIONS)
    words = app.topic(f"{name}-words", value=str, partitions=PARTITIONS)
    counts = app.Table("counts", key=str, value=int, default=int)

    @app.agent(lines)
    async def split(stream: streamlog.Stream[str, str]) -> None:
        async for line in stream:
            for word in line.split():
                await words.send(word, key=word)

    @app.agent(words)
    async def count(stream: streamlog.Stream[str, str]) -> None:
        async for word in stream:
            counts[word] += 1

    return app


async def send_lines(address: str, name: str, count: int, seed: int) -> Counter[str]:
    """Random lines to the topic, and how often each word is in them."""
    rng = random.Random(seed)
    expected: Counter[str] = Counter()
    env = real_env()
    async with Producer(address, env=env) as producer:
        topic_partitions = await producer.partitions(f"{name}-lines")
        for number in range(count):
            words = rng.choices(WORDS, k=rng.randrange(1, 6))
            expected.update(words)
            value = streamlog.serde.serde_for(str).encode(" ".join(words))
            # Times of now: the broker deletes what its topics' retention says is old.
            producer.append(f"{name}-lines", number % topic_partitions, None, value, env.clock.wall_ms())
    return expected


async def changelog(address: str, topic: str) -> dict[bytes, bytes]:
    """The table, as its changelog says."""
    rows: dict[bytes, bytes] = {}
    async with Consumer(address, env=real_env(), auto_offset_reset="earliest") as consumer:
        partitions = await consumer.partitions_for(topic)
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        positions: dict[TopicPartition, int] = dict.fromkeys(partitions, 0)
        while any(positions[one] < end for one, end in ends.items()):
            for batch in await consumer.fetch(timeout_ms=1000):
                for key, value in zip(batch.columns.keys, batch.columns.values, strict=True):
                    assert key is not None
                    if value is None:
                        rows.pop(key, None)
                    else:
                        rows[key] = value
                positions[TopicPartition(batch.topic, batch.partition)] = batch.next_offset
    return rows


async def counts_in(address: str, name: str) -> Counter[str]:
    rows = await changelog(address, f"{name}-counts-changelog")
    decode = streamlog.serde.table_value_serde_for(int).decode
    return Counter({key.decode(): decode(value) for key, value in rows.items()})


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def until_counted(address: str, name: str, expected: Mapping[str, int], timeout_s: float = 30.0) -> Counter[str]:
    """The counts once every word has reached what is expected of it; or as they are when the time is up.

    Not the totals: words that were counted twice would make up for words that are still to come.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        found = await counts_in(address, name)
        if not Counter(expected) - found or loop.time() > deadline:
            return found
        await asyncio.sleep(0.1)
