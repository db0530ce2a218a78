"""`Agent`: a function over a stream, and how it is run, called and answered."""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, overload

from streamlog.errors import UserError
from streamlog.serde import Serde, serde_for
from streamlog.streams.answers import answer, answer_failure
from streamlog.streams.channel import Channel
from streamlog.streams.context import Cell
from streamlog.streams.cursor import Cursor
from streamlog.streams.planning import Stage, after_last_cut, markers
from streamlog.streams.policies import Policy, Retry, is_cancelled, text_of
from streamlog.streams.stream import Form, Root, Step, Stream
from streamlog.streams.topic import Topic
from streamlog.streams.walk import walk

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Sink: TypeAlias = "Topic[Any, Any] | Agent[Any, Any, Any] | Callable[[Any], Any]"


class Agent(Generic[K, V, R]):
    """A function over a stream: a coroutine that only has effects, or an async generator whose values go to sinks and
    askers."""

    def __init__(
        self,
        name: str,
        function: Callable[[Stream[K, V]], Any],
        *,
        cell: Cell,
        topics: tuple[Topic[K, V], ...],
        steps: tuple[Step, ...],
        sinks: Sequence[Sink],
        policy: Policy,
        concurrency: int,
    ) -> None:
        self.name = name
        self.function = function
        self.topics = topics
        self.steps = steps
        """What the declared source puts before the body."""
        self.sinks = tuple(sinks)
        self.policy = policy
        self.concurrency = concurrency
        self.yields = inspect.isasyncgenfunction(function)
        self._cell = cell
        self._answer: Serde[R] | None = (
            serde_for(_yielded_type(function), what=f"answer of agent {name}") if self.yields else None
        )
        for sink in self.sinks:
            _check_sink(sink, name)

    def __repr__(self) -> str:
        return f"<Agent {self.name}>"

    @property
    def topic(self) -> Topic[K, V]:
        """Where the agent's events come from, and what `cast` and `ask` write to."""
        return self.topics[0]

    async def cast(self, value: V, *, key: K | None = None, **details: Any) -> None:
        """Send the agent an event. Arguments are those of `Topic.send`."""
        await self.topic.send(value, key=key, **details)

    send = cast

    async def ask(self, value: V, *, key: K | None = None, timeout: float = 30.0) -> R:
        """Send the agent an event and wait for the first value it yields for it.

        Raises: UserError: the agent never yields, it failed at the event, or a filter or a join dropped it.
                TimeoutError: no answer in time; the event may be processed all the same.
        Cancelling forgets the answer, not the question.
        """
        if self._answer is None:
            raise UserError(f"agent {self.name} never answers: only agents that yield can be asked. Use cast")
        runtime = self._cell.get(f"asking agent {self.name}")
        key_bytes = None if key is None else self.topic.key_serde.encode(key)
        found = await runtime.ask(self.name, self.topic.name, key_bytes, self.topic.value_serde.encode(value), timeout)
        return self._answer.decode(found)

    async def map(
        self, values: AsyncIterable[V] | Sequence[V], *, key: K | None = None, timeout: float = 30.0
    ) -> AsyncIterator[R]:
        """Ask for each value in turn, and yield the answers in order."""
        if isinstance(values, AsyncIterable):
            async for value in values:
                yield await self.ask(value, key=key, timeout=timeout)
        else:
            for value in values:
                yield await self.ask(value, key=key, timeout=timeout)

    async def join(self, values: Sequence[V], *, key: K | None = None, timeout: float = 30.0) -> list[R]:
        """The answers to all values, in order."""
        return [one async for one in self.map(values, key=key, timeout=timeout)]


class AgentDecorator(Protocol[K, V]):
    """What `@app.agent(...)` is, to a type checker."""

    @overload
    def __call__(self, function: Callable[[Stream[K, V]], AsyncIterator[R]]) -> Agent[K, V, R]: ...
    @overload
    def __call__(self, function: Callable[[Stream[K, V]], Coroutine[Any, Any, None]]) -> Agent[K, V, None]: ...


class OwnTopicDecorator(Protocol):
    """The same for an agent without a source, whose types are those of its function's parameter."""

    @overload
    def __call__(self, function: Callable[[Stream[K, V]], AsyncIterator[R]]) -> Agent[K, V, R]: ...
    @overload
    def __call__(self, function: Callable[[Stream[K, V]], Coroutine[Any, Any, None]]) -> Agent[K, V, None]: ...


@dataclass(frozen=True, slots=True)
class _Running(Root):
    """The root of the stream that a running body gets."""

    cursor: Cursor
    agent: str
    steps: tuple[Step, ...]
    """What the declared source put after its last repartitioning."""
    markers: tuple[str, ...]
    """The repartitionings that the rehearsal found in the body."""

    def iterate(self, steps: tuple[Step, ...], form: Form) -> AsyncGenerator[Any, None]:
        cursor = self.cursor
        cursor.lane.begin(cursor)
        if markers(steps) != self.markers:
            raise UserError(
                f"agent {self.agent} iterated over {' and '.join(markers(steps)) or 'its plain stream'}, and when it "
                f"was planned over "
                f"{' and '.join(self.markers) or 'its plain stream'}. Move the group_by out of the body, as in "
                f"@app.agent(topic.stream().group_by(...))"
            )
        own = after_last_cut(steps) if self.markers else (*self.steps, *steps)
        generator = walk(cursor, own, form)
        cursor.generators[:] = [generator]  # those before it have ended, or end when they are asked
        return generator


def body_of(
    agent: Agent[Any, Any, Any], stage: Stage, in_body: tuple[str, ...]
) -> Callable[[Cursor], Coroutine[Any, Any, None]]:
    """What a lane runs for an agent. `in_body`: the repartitionings the body itself makes."""
    own_steps = stage.steps if not in_body else ()

    async def body(cursor: Cursor) -> None:
        running = agent.function(Stream(_Running(cursor, agent.name, own_steps, in_body)))
        if not isinstance(running, AsyncGenerator):
            await running
            return
        emit, emit_async = compile_sinks(agent, cursor)
        try:
            async for value in running:
                for send in emit:
                    send(value)
                for call in emit_async:
                    await call(value)
        except (Exception, asyncio.CancelledError) as error:  # the lane applies the policy, the asker hears of it
            told = isinstance(error, Exception) or not (cursor.lane.closing or is_cancelled())
            if told and cursor.busy and not isinstance(agent.policy, Retry):
                answer_failure(
                    cursor, agent.name, f"it failed at the question: {type(error).__name__}: {text_of(error)}"
                )
            raise
        finally:
            await running.aclose()

    return body


def channel_body(
    function: Callable[[Stream[Any, Any]], Any], channel: Channel[Any], sinks: Sequence[Sink], name: str
) -> Callable[[], Coroutine[Any, Any, None]]:
    """What a worker runs for an agent on a channel; it ends with the function."""
    for sink in sinks:
        _check_sink(sink, name)

    async def body() -> None:
        running = function(channel.stream())
        if not isinstance(running, AsyncGenerator):
            await running
            return
        async for value in running:
            for sink in sinks:
                if isinstance(sink, Topic | Agent):
                    await sink.send(value)
                elif inspect.isawaitable(result := sink(value)):
                    await result

    return body


def compile_sinks(
    agent: Agent[Any, Any, Any], cursor: Cursor
) -> tuple[list[Callable[[Any], Any]], list[Callable[[Any], Awaitable[Any]]]]:
    """The agent's sinks for one cursor: those that only append, and those that have to be awaited."""
    sync: list[Callable[[Any], Any]] = [_answerer(agent, cursor)]
    awaited: list[Callable[[Any], Awaitable[Any]]] = []
    for sink in agent.sinks:
        if isinstance(sink, Topic):
            sync.append(_appender(sink, cursor))
        elif isinstance(sink, Agent):
            sync.append(_appender(sink.topic, cursor))
        elif inspect.iscoroutinefunction(sink):
            awaited.append(sink)
        else:
            sync.append(sink)
    return sync, awaited


def _appender(topic: Topic[Any, Any], cursor: Cursor) -> Callable[[Any], None]:
    """Sends values under the key and the time of the event they were made from."""
    append, encode = cursor.lane.outbox.sender(topic.name), topic.value_serde.encode

    def send(value: Any) -> None:
        index = cursor.index
        data = None if value is None else encode(value)
        append(cursor.batch.columns.keys[index], data, cursor.reading.timestamps_ms[index], ())

    return send


def _answerer(agent: Agent[Any, Any, Any], cursor: Cursor) -> Callable[[Any], None]:
    """Answers the event's asker, if it has one."""
    serde = agent._answer
    assert serde is not None, "only agents that yield have sinks"

    def answer_asker(value: Any) -> None:
        if cursor.batch.columns.headers[cursor.index]:
            answer(cursor, agent.name, serde.encode(value))

    return answer_asker


def _check_sink(sink: object, agent: str) -> None:
    if not isinstance(sink, Topic | Agent) and not callable(sink):
        raise UserError(f"agent {agent}: {sink!r} cannot be a sink; a sink is a topic, an agent or a function")


def _yielded_type(function: Callable[..., Any]) -> Any:
    """R of an annotation such as AsyncIterator[R]; Any when there is none."""
    try:
        returned = typing.get_type_hints(function).get("return")
    except (NameError, TypeError):
        return Any
    arguments = typing.get_args(returned)
    return arguments[0] if arguments else Any
