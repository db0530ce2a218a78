"""Channels: queues inside one process."""

from __future__ import annotations

import asyncio

import pytest

import streamlog


async def test_an_agent_on_a_channel_gets_what_is_put() -> None:
    """Values pass filter and map; the body is a background task of the worker."""
    app = streamlog.App("app")
    numbers = app.channel("numbers", value=int)
    seen: list[int] = []

    @app.agent(numbers)
    async def collect(stream: streamlog.Stream[None, int]) -> None:
        async for number in stream.filter(lambda number: number % 2).map(lambda number: number * 10):
            seen.append(number)

    assert app.topology().consumed == ()
    (work,) = app.tasks
    running = asyncio.ensure_future(work.work())
    for number in range(6):
        await numbers.put(number)
    await asyncio.sleep(0.01)
    running.cancel()
    assert seen == [10, 30, 50]


async def test_a_channel_has_no_keys() -> None:
    """What needs keys, partitions or time needs a topic, and the error says so."""
    channel = streamlog.App("app").channel("numbers", value=int)
    with pytest.raises(streamlog.UserError, match="Use a topic for the rest"):
        async for _ in channel.stream().items():
            pass
