"""`App`: collects declarations. It does nothing else: no loop, no thread, no file, no socket, before a worker runs."""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta, tzinfo
from typing import Any, TypeVar, overload

import click

from streamlog.embedded import EmbeddedLog
from streamlog.env import Env, real_env
from streamlog.errors import UserError
from streamlog.serde import Format, type_name
from streamlog.streams.agents import Agent, AgentDecorator, OwnTopicDecorator, Sink, channel_body
from streamlog.streams.channel import CHANNEL_ITEMS_MAX, Channel
from streamlog.streams.context import Cell
from streamlog.streams.durations import milliseconds_of
from streamlog.streams.plan import Plan, make_plan
from streamlog.streams.policies import OnError, policy_of
from streamlog.streams.record import parameter_type
from streamlog.streams.settings import (
    COMMIT_EVENTS_MAX,
    COMMIT_INTERVAL_MS,
    DATA_DIR_DEFAULT,
    DRAIN_TIMEOUT_S,
    PARTITIONS_DEFAULT,
    SESSION_TIMEOUT_MS,
    STOP_TIMEOUT_S,
    Settings,
)
from streamlog.streams.spelling import spelled
from streamlog.streams.stream import Declared, Step, Stream
from streamlog.streams.tables import GlobalTable, SetTable, Table
from streamlog.streams.timers import BackgroundTask, Every, Timer, Work, cron
from streamlog.streams.topic import Topic, check_name, check_partitions, unprocessed_configs
from streamlog.streams.topology import Topology
from streamlog.streams.worker import Extension, Worker

K = TypeVar("K")
V = TypeVar("V")
WorkT = TypeVar("WorkT", bound=Callable[[], Awaitable[Any]])


class App:
    """A stream processing application: its topics, tables, agents and timers."""

    @spelled('App("flights", broker="host:9092", data_dir="state", partitions=8)')
    def __init__(
        self,
        id: str,  # noqa: A002 - the word users know
        *,
        broker: str | None = None,
        data_dir: str | None = None,
        partitions: int = PARTITIONS_DEFAULT,
        commit_interval_ms: int = COMMIT_INTERVAL_MS,
        commit_events_max: int = COMMIT_EVENTS_MAX,
        replication_factor: int | None = None,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        """Declare an app.

        Args: id: names the consumer group and the internal topics; workers with one id share the work.
              broker: "host:port,host:port"; default STREAMLOG_BROKER, and without it an embedded log under `data_dir`.
              data_dir: where state is kept; default STREAMLOG_DATA_DIR, then ./streamlog-data. Workers of a machine can
                        share it: each takes a directory of its own in it, the one with the most state that is free.
              partitions: of topics that are created and say nothing themselves.
              replication_factor: of topics that are created; default the controllers' `default.replication.factor`.
              drain_timeout_s: how long bodies get to end their event when a partition is given up.
              stop_timeout_s: how long a worker takes to stop in all.
        """
        self.id = check_name(id, "app id")
        check_partitions(partitions, f"app {id}")
        if commit_interval_ms < 1 or commit_events_max < 1:
            raise UserError(f"app {id}: commit_interval_ms and commit_events_max have to be at least 1")
        self.settings = Settings(
            broker=broker,
            data_dir=data_dir,
            partitions=partitions,
            commit_interval_ms=commit_interval_ms,
            commit_events_max=commit_events_max,
            replication_factor=replication_factor,
            drain_timeout_s=drain_timeout_s,
            stop_timeout_s=stop_timeout_s,
        )
        self.agents: dict[str, Agent[Any, Any, Any]] = {}
        self.tables: dict[str, Table[Any, Any]] = {}
        self.topics: dict[str, Topic[Any, Any]] = {}
        self.timers: list[Timer] = []
        self.tasks: list[BackgroundTask] = []
        self.commands: dict[str, click.Command] = {}
        self.started: list[Work] = []
        self.stopping: list[Work] = []
        self.cell = Cell(id)

    def __repr__(self) -> str:
        return f"<App {self.id}>"

    # --- topics and tables ----------------------------------------------------------------------------------------

    @overload
    def topic(
        self,
        name: str,
        *,
        key: type[K],
        value: type[V],
        timestamp: Any = ...,
        partitions: int | None = ...,
        format: Format = ...,
        configs: Mapping[str, str] | None = ...,
    ) -> Topic[K, V]: ...
    @overload
    def topic(
        self,
        name: str,
        *,
        value: type[V],
        timestamp: Any = ...,
        partitions: int | None = ...,
        format: Format = ...,
        configs: Mapping[str, str] | None = ...,
    ) -> Topic[str, V]: ...
    @overload
    def topic(
        self,
        name: str,
        *,
        key: Any = ...,
        value: Any = ...,
        timestamp: Any = ...,
        partitions: int | None = ...,
        format: Format = ...,
        configs: Mapping[str, str] | None = ...,
    ) -> Topic[Any, Any]: ...
    @spelled('app.topic("flights", key=str, value=Flight), one name each; an agent reads several: @app.agent([a, b])')
    def topic(
        self,
        name: str,
        *,
        key: Any = str,
        value: Any = Any,
        timestamp: Any = None,
        partitions: int | None = None,
        format: Format = "json",  # noqa: A002 - the word users know
        configs: Mapping[str, str] | None = None,
    ) -> Topic[Any, Any]:
        """Declare a topic.

        Args: key, value: their types: a Record, a dataclass, a pydantic model, str, int, bytes, list[...] and so on.
              timestamp: where event time comes from: a field (`Flight.scheduled_at`) or a function of the value, giving
              a datetime,
                         ms as int or seconds as float; default the record's timestamp.
              partitions: when it has to be created; an existing topic must agree.
              format: of values: "json", "msgpack", or "raw" for str, bytes and int.
              configs: Kafka's topic configs, when it has to be created.
        """
        topic: Topic[Any, Any] = Topic(
            name, key, value, cell=self.cell, timestamp=timestamp, partitions=partitions, format=format, configs=configs
        )
        return self._add_topic(topic)

    def _add_topic(self, topic: Topic[Any, Any]) -> Topic[Any, Any]:
        earlier = self.topics.setdefault(topic.name, topic)
        if not earlier.same_as(topic):
            raise UserError(
                f"topic {topic.name} is declared twice, as {earlier!r} and as {topic!r}: declare it once and import it"
            )
        return topic

    @spelled('app.Table("delays", key=str, value=int, default=int)')
    def Table(  # noqa: N802 - reads as the type it makes
        self,
        name: str,
        *,
        key: type[K],
        value: type[V],
        default: Callable[[], V] | None = None,
        partitions: int | None = None,
        source: Topic[K, V] | None = None,
    ) -> Table[K, V]:
        """Declare a table.

        Args: default: makes the value of a key that has none.
              partitions: default those of the topics of the agents that use it.
              source: a topic that the table follows, row by row; then agents only read it, and joins with it see the
              row as of
                      the event's time.
        """
        table: Table[K, V] = Table(
            name,
            key,
            value,
            slot=len(self.tables),
            cell=self.cell,
            default=default,
            partitions=partitions,
            source=source,
        )
        return self._add_table(table)

    @spelled('app.GlobalTable("airports", key=str, value=Airport)')
    def GlobalTable(  # noqa: N802
        self,
        name: str,
        *,
        key: type[K],
        value: type[V],
        default: Callable[[], V] | None = None,
        partitions: int | None = None,
        source: Topic[K, V] | None = None,
    ) -> GlobalTable[K, V]:
        """Declare a table that every worker holds as a whole: for small tables that every event may need."""
        table: GlobalTable[K, V] = GlobalTable(
            name,
            key,
            value,
            slot=len(self.tables),
            cell=self.cell,
            default=default,
            partitions=partitions,
            source=source,
        )
        table.kind = "global"
        return self._add_table(table)

    @spelled('app.SetTable("routes", key=str, value=str), with the type of the members')
    def SetTable(  # noqa: N802
        self, name: str, *, key: type[K], value: type[V], partitions: int | None = None
    ) -> SetTable[K, V]:
        """Declare a table of sets; `value` is the type of the members."""
        members: Any = frozenset[value]  # type: ignore[valid-type]  # a type made at run time
        table: SetTable[K, V] = SetTable(
            name, key, members, slot=len(self.tables), cell=self.cell, default=frozenset, partitions=partitions
        )
        return self._add_table(table)

    def _add_table(self, table: TableT) -> TableT:
        if table.name in self.tables:
            raise UserError(f"table {table.name} is declared twice: declare it once and import it")
        self.tables[table.name] = table
        return table

    @overload
    def channel(self, name: str, *, value: type[V], maxsize: int = ...) -> Channel[V]: ...
    @overload
    def channel(self, name: str, *, value: None = ..., maxsize: int = ...) -> Channel[Any]: ...
    @spelled('app.channel("alerts", value=Alert)')
    def channel(self, name: str, *, value: Any = None, maxsize: int = CHANNEL_ITEMS_MAX) -> Channel[Any]:
        """A queue inside this process that agents can read: nothing of it is stored."""
        return Channel(check_name(name, "channel"), maxsize)

    # --- agents ---------------------------------------------------------------------------------------------------

    @overload
    def agent(
        self,
        source: Topic[K, V] | Stream[K, V] | Sequence[Topic[K, V]],
        *,
        sink: Sequence[Sink] = ...,
        concurrency: int = ...,
        name: str | None = ...,
        on_error: OnError = ...,
    ) -> AgentDecorator[K, V]: ...
    @overload
    def agent(
        self,
        source: Channel[V],
        *,
        sink: Sequence[Sink] = ...,
        concurrency: int = ...,
        name: str | None = ...,
        on_error: OnError = ...,
    ) -> Callable[[Callable[[Stream[None, V]], Any]], Callable[[Stream[None, V]], Any]]: ...
    @overload
    def agent(
        self,
        source: None = None,
        *,
        sink: Sequence[Sink] = ...,
        concurrency: int = ...,
        name: str | None = ...,
        on_error: OnError = ...,
    ) -> OwnTopicDecorator: ...
    def agent(
        self,
        source: Any = None,
        *,
        sink: Sequence[Sink] = (),
        concurrency: int = 1,
        name: str | None = None,
        on_error: OnError = "stop",
    ) -> Any:
        """Make an agent of the function that follows: `async def f(stream): async for value in stream: ...`

        One body runs per partition. An event counts as processed when the body asks for the next one.

        Args: source: a topic, several topics (merged by event time), or an expression such as
                      `topic.stream().filter(...).group_by(...)`; default a topic of its own, `<app>-<agent>`.
              sink: what the body yields goes to these topics, agents and functions; topics keep the event's key.
              concurrency: bodies per partition, for bodies that wait for something; above 1 events lose their order.
              on_error: what to do with an event whose processing failed: "stop" its partition, "skip" it, "retry" it,
                        `Retry(...)`, or `DeadLetter(topic)`.
        """
        if concurrency < 1:
            raise UserError(f"concurrency={concurrency} has to be at least 1")

        def decorate(function: Callable[[Stream[Any, Any]], Any]) -> Any:
            return self._add_agent(function, source, sink, concurrency, name, on_error)

        return decorate

    def _add_agent(
        self,
        function: Callable[[Stream[Any, Any]], Any],
        source: Any,
        sink: Sequence[Sink],
        concurrency: int,
        name: str | None,
        on_error: OnError,
    ) -> Any:
        """An Agent; or, on a channel, the function itself, which cannot be asked or cast to."""
        name = check_name(name or getattr(function, "__name__", None), "agent")
        if name in self.agents:
            raise UserError(f"agent {name} is declared twice: rename one of the functions, or say name=")
        if not inspect.iscoroutinefunction(function) and not inspect.isasyncgenfunction(function):
            raise UserError(f"agent {name} has to be an async function: `async def {name}(stream): ...`")
        if isinstance(source, Channel):
            return self._add_channel_agent(function, source, sink, concurrency, name)
        topics, steps = self._source_of(source, name, function)
        agent: Agent[Any, Any, Any] = Agent(
            name,
            function,
            cell=self.cell,
            topics=topics,
            steps=steps,
            sinks=sink,
            policy=policy_of(on_error, f"agent {name}"),
            concurrency=concurrency,
        )
        self.agents[name] = agent
        return agent

    def _add_channel_agent(
        self,
        function: Callable[[Stream[Any, Any]], Any],
        channel: Channel[Any],
        sinks: Sequence[Sink],
        concurrency: int,
        name: str,
    ) -> Any:
        """An agent on a channel has no partitions and no offsets: its bodies are background tasks of each worker."""
        for number in range(concurrency):
            work = channel_body(function, channel, sinks, name)
            self.tasks.append(BackgroundTask(f"{name}-{number}", work, on_leader=False))
        return function

    def _source_of(
        self, source: Any, agent: str, function: Callable[..., Any]
    ) -> tuple[tuple[Topic[Any, Any], ...], tuple[Step, ...]]:
        if source is None:
            key, value = _stream_types(function)
            name = f"{self.id}-{agent}"
            own: Topic[Any, Any] = Topic(name, key, value, cell=self.cell, configs=unprocessed_configs(), kind="agent")
            return (self._add_topic(own),), ()
        if isinstance(source, Topic):
            return (source,), ()
        if isinstance(source, Stream) and isinstance(source._root, Declared):
            return tuple(source._root.topics), source._steps  # type: ignore[arg-type]  # Declared holds what Topic.stream gave it
        if isinstance(source, Sequence) and source and all(isinstance(one, Topic) for one in source):
            names = [one.name for one in source]
            if len(set(names)) != len(names):
                raise UserError(f"agent {agent} names a topic twice: {', '.join(names)}")
            return tuple(source), ()
        raise UserError(
            f"agent {agent} cannot read {source!r}: give it a topic, a list of topics, or topic.stream() with operators"
        )

    # --- beside the streams ---------------------------------------------------------------------------------------

    def timer(self, interval: float | timedelta, *, on_leader: bool = False) -> Callable[[WorkT], WorkT]:
        """Run the function that follows every `interval` (seconds), on each worker or only `on_leader` (see `task`)."""
        every = Every(milliseconds_of(interval, "timer()"))

        def decorate(work: WorkT) -> WorkT:
            self.timers.append(Timer(_name(work), work, every, on_leader))
            return work

        return decorate

    def crontab(
        self, line: str, *, timezone: str | tzinfo | None = None, on_leader: bool = False
    ) -> Callable[[WorkT], WorkT]:
        """Run the function that follows when the cron line says, on each worker or only `on_leader` (see `task`).

        Args: line: minute, hour, day, month and weekday; a sixth field for seconds; or "@daily" and its like.
              timezone: whose clock counts, such as "Europe/Berlin"; default UTC. When that clock is put forward, what
                        it skips runs once, right after; when it is put back, lines that name the hour run in the
                        first of the two equal hours only.
        """

        def decorate(work: WorkT) -> WorkT:
            name = _name(work)
            self.timers.append(Timer(name, work, cron(line, timezone, name), on_leader))
            return work

        return decorate

    @overload
    def task(self, work: WorkT) -> WorkT: ...
    @overload
    def task(self, *, on_leader: bool = ...) -> Callable[[WorkT], WorkT]: ...
    def task(self, work: Any = None, *, on_leader: bool = False) -> Any:
        """Run the function that follows once per worker, from its start, beside the streams. With or without ().

        Args: on_leader: run it on one worker of the group only, the one that owns task 0. It is cancelled when that
                         worker loses the task, and started anew on the worker that gets it: between the two it runs
                         nowhere, and what it began may have been done in part.
        """

        def decorate(function: WorkT) -> WorkT:
            self.tasks.append(BackgroundTask(_name(function), function, on_leader))
            return function

        return decorate if work is None else decorate(work)

    def on_started(self, work: WorkT) -> WorkT:
        """Run the function that follows when a worker has joined its group. Its first event waits until that ended."""
        self.started.append(work)
        return work

    def on_stopping(self, work: WorkT) -> WorkT:
        """Run the function that follows when a worker begins to shut down, while it can still send."""
        self.stopping.append(work)
        return work

    def command(self, name: str | None = None, **details: Any) -> Callable[[Callable[..., Any]], click.Command]:
        """Add a subcommand to `streamlog -A module:app`. The function may be async; click's decorators work on it."""

        def decorate(function: Callable[..., Any]) -> click.Command:
            command: click.Command = click.command(name, None, **details)(function)
            if command.name is None or command.name in self.commands:
                raise UserError(f"command {command.name} is declared twice: give one of them another name")
            self.commands[command.name] = command
            return command

        return decorate

    # --- what became of it ----------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """What a worker will run. Raises: UserError: the declarations do not make sense."""
        return make_plan(
            self.id,
            list(self.agents.values()),
            list(self.tables.values()),
            list(self.topics.values()),
            [str(timer) for timer in self.timers],
            self.cell,
            needs_leader=any(timer.on_leader for timer in self.timers) or any(task.on_leader for task in self.tasks),
        )

    @asynccontextmanager
    async def running(
        self,
        *,
        broker: str | None = None,
        data_dir: str | None = None,
        extensions: Sequence[Extension] = (),
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
        env: Env | None = None,
    ) -> AsyncIterator[Worker]:
        """Run a worker of this app inside another asyncio program, as long as the block lasts.

        Without any broker it uses the embedded log of the data directory, as `streamlog worker` does.

        Args: broker, data_dir: go before the app's own settings and the environment.
              extensions: what lives as long as the worker. Other programs can read its tables (`streamlog.connect`) if
                    there is a `streamlog.web.server.WebServer()` among them; `streamlog worker` has one of itself.
              session_timeout_ms: after so long without a sign of this worker, the group gives its tasks to others.
        Raises: UserError: something about the app or its topics is wrong. EnvironmentFailure: the broker does not
                answer. Whatever made the worker fail, when the block ends.
        """
        broker = broker or self.settings.broker or os.environ.get("STREAMLOG_BROKER")
        data_dir = data_dir or self.settings.data_dir or os.environ.get("STREAMLOG_DATA_DIR") or DATA_DIR_DEFAULT
        env = env or real_env()
        async with AsyncExitStack() as stack:
            embedded = broker is None
            if broker is None:
                broker = (await stack.enter_async_context(EmbeddedLog(env, data_dir))).address
            yield await stack.enter_async_context(
                Worker(
                    self,
                    env=env,
                    broker=broker,
                    data_dir=data_dir,
                    extensions=extensions,
                    embedded=embedded,
                    session_timeout_ms=session_timeout_ms,
                )
            )

    def topology(self) -> Topology:
        """The app as a value that can be printed and compared. Partition counts are as declared."""
        return self.plan().topology


TableT = TypeVar("TableT", bound=Table[Any, Any])


def _stream_types(function: Callable[..., Any]) -> tuple[Any, Any]:
    """K and V of `stream: Stream[K, V]`; str and Any when the parameter says nothing."""
    annotation = parameter_type(function)
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Stream and len(arguments) == 2:
        return arguments[0], arguments[1]
    return str, Any


def _name(work: Callable[..., Any]) -> str:
    if not inspect.iscoroutinefunction(work):
        raise UserError(f"{getattr(work, '__name__', work)!r} has to be an async function")
    return getattr(work, "__qualname__", type_name(type(work)))
