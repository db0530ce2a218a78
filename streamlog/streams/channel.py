"""`Channel`: a queue inside one process that agents can read like a topic.

Nothing of it is stored, committed or shared with other workers: what was put and not processed is gone with the
process. Tables cannot be written from it, because they belong to partitions, and a channel has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Generic, TypeVar

from streamlog.errors import UserError
from streamlog.streams.stream import Filter, Form, Map, Root, Step, Stream, Values

V = TypeVar("V")

CHANNEL_ITEMS_MAX = 1000
"""Values that wait; `put` waits for room beyond that."""


class Channel(Generic[V]):
    """A bounded queue of values. Agents on a channel run once per worker."""

    def __init__(self, name: str, maxsize: int = CHANNEL_ITEMS_MAX) -> None:
        self.name = name
        self._maxsize = maxsize
        self._queue: asyncio.Queue[V] | None = None  # made inside the loop that runs it

    def __repr__(self) -> str:
        return f"<Channel {self.name}>"

    async def put(self, value: V) -> None:
        """Add a value; waits while the channel is full."""
        await self._open().put(value)

    def stream(self) -> Stream[None, V]:
        """What an agent on this channel iterates over."""
        return Stream(_ChannelRoot(self))

    def _open(self) -> asyncio.Queue[V]:
        if self._queue is None:
            self._queue = asyncio.Queue(self._maxsize)
        return self._queue

    async def _walk(self, steps: tuple[Step, ...]) -> AsyncGenerator[V, None]:
        queue = self._open()
        while True:
            value: Any = await queue.get()
            keep = True
            for step in steps:
                if isinstance(step, Filter):
                    keep = bool(step.keep(value))
                elif isinstance(step, Map):
                    value = step.transform(value)
                if not keep:
                    break
            if keep:
                yield value


class _ChannelRoot(Root):
    """The root of a channel's stream: values through filter and map."""

    def __init__(self, channel: Channel[Any]) -> None:
        self._channel = channel

    def iterate(self, steps: tuple[Step, ...], form: Form) -> AsyncGenerator[Any, None]:
        if not isinstance(form, Values) or not all(isinstance(step, Filter | Map) for step in steps):
            raise UserError(
                f"channel {self._channel.name}: a channel has values only, without keys, partitions or time; filter "
                f"and map are "
                f"what its streams can do. Use a topic for the rest"
            )
        return self._channel._walk(steps)
