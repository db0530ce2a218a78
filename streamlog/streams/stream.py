"""`Stream`: what an agent iterates over.

A stream is a description: where it begins (its root) and which steps follow. Operators return a new description and
do nothing. Only iteration means something, and what it means is the root's affair: outside an agent it is a mistake,
during planning it ends the rehearsal, and inside a running agent a lane's cursor walks its events.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, overload

from streamlog.errors import UserError
from streamlog.serde import Serde
from streamlog.streams.durations import seconds_of
from streamlog.streams.event import Event
from streamlog.streams.record import Selector, returned_type, selector

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
T = TypeVar("T")
K_co = TypeVar("K_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)
K_contra = TypeVar("K_contra", contravariant=True)


# --- steps --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filter:
    """Keep the values for which `keep` is true."""

    keep: Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Map:
    """Replace each value."""

    transform: Callable[[Any], Any]
    value_type: Any
    """What comes out, for a topic that has to carry it; None when nobody said."""


@dataclass(frozen=True, slots=True)
class GroupBy:
    """Re-key, and move each event to the partition of its new key."""

    by: Selector
    name: str
    key_type: Any
    partitions: int | None


@dataclass(frozen=True, slots=True)
class Through:
    """Pass through a topic, keys unchanged."""

    topic: AnyTopic


@dataclass(frozen=True, slots=True)
class Lookup:
    """Pair each value with a table's row."""

    table: AnyTable
    on: Selector | None
    """What to look up; None for the event's key."""
    keep_unmatched: bool


Step: TypeAlias = Filter | Map | GroupBy | Through | Lookup


class AnyTopic(Protocol):
    """What a plan needs to know of a topic."""

    @property
    def name(self) -> str: ...
    @property
    def key_serde(self) -> Serde[Any]: ...
    @property
    def value_serde(self) -> Serde[Any]: ...


class TypedTopic(AnyTopic, Protocol[K_co, T_co]):
    """A topic as `through` sees it: its types, for the checker."""

    def _types(self) -> tuple[K_co, T_co]: ...


class AnyTable(Protocol):
    """What a plan needs to know of a table."""

    @property
    def name(self) -> str: ...


class LookupTable(AnyTable, Protocol[K_contra, T_co]):
    """A table as `join` sees it."""

    def _lookup(self, key: K_contra) -> T_co | None: ...


# --- forms: what one turn of the loop gives -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Values:
    """`async for value in stream`"""


@dataclass(frozen=True, slots=True)
class Items:
    """`async for key, value in stream.items()`"""


@dataclass(frozen=True, slots=True)
class Events:
    """`async for event in stream.events()`"""


@dataclass(frozen=True, slots=True)
class Take:
    """`async for values in stream.take(n, within)`"""

    count: int
    within_s: float


Form: TypeAlias = Values | Items | Events | Take

VALUES, ITEMS, EVENTS = Values(), Items(), Events()


class Root(Protocol):
    """Where a stream begins, and who knows what iterating over it means."""

    def iterate(self, steps: tuple[Step, ...], form: Form) -> AsyncGenerator[Any, None]: ...


@dataclass(frozen=True, slots=True)
class Declared:
    """The root of `topic.stream()` in a module: it can be given to `@app.agent`, not iterated."""

    topics: tuple[AnyTopic, ...]

    def iterate(self, steps: tuple[Step, ...], form: Form) -> AsyncGenerator[Any, None]:
        names = ", ".join(topic.name for topic in self.topics)
        raise UserError(
            f"the stream of topic {names} was iterated outside an agent: give it to @app.agent(...), and iterate "
            f"over the "
            f"stream that the agent receives"
        )


@dataclass(frozen=True, slots=True)
class _Iteration(Generic[T_co]):
    """`stream` in another form than its values."""

    root: Root
    steps: tuple[Step, ...]
    form: Form

    def __aiter__(self) -> AsyncIterator[T_co]:
        return self.root.iterate(self.steps, self.form)


# --- the public face ----------------------------------------------------------------------------------------------


class Stream(Generic[K, V]):
    """Events of one or several topics, in order per partition. Iterating gives values."""

    __slots__ = ("_root", "_steps")

    def __init__(self, root: Root, steps: tuple[Step, ...] = ()) -> None:
        self._root = root
        self._steps = steps

    def __aiter__(self) -> AsyncIterator[V]:
        return self._root.iterate(self._steps, VALUES)

    def items(self) -> AsyncIterable[tuple[K, V]]:
        """Keys and values."""
        return _Iteration(self._root, self._steps, ITEMS)

    def events(self) -> AsyncIterable[Event[K, V]]:
        """Values with key, headers, timestamp and place."""
        return _Iteration(self._root, self._steps, EVENTS)

    def take(self, count: int, within: float | timedelta) -> AsyncIterable[list[V]]:
        """Lists of up to `count` values; a shorter list when `within` (seconds) has passed since its first value.

        The events of a list count as processed when the body asks for the next list. A list is also shorter when the
        worker stops or the partition moves, and before an event that fails by itself; one that failed as a whole and
        is tried again has the same events.
        """
        if count < 1:
            raise UserError(f"take({count}, ...): the count has to be at least 1")
        return _Iteration(self._root, self._steps, Take(count, seconds_of(within, "take(within=)")))

    async def enumerate(self, start: int = 0) -> AsyncGenerator[tuple[int, V], None]:
        """Values counted from `start`, per partition and since the agent started there."""
        count = start
        async for value in self:
            yield count, value
            count += 1

    def filter(self, keep: Callable[[V], object]) -> Stream[K, V]:
        """Only the values for which `keep(value)` is true."""
        return self._then(Filter(keep))

    def map(self, transform: Callable[[V], V2], *, value: type[V2] | None = None) -> Stream[K, V2]:
        """Every value replaced by `transform(value)`.

        Args: value: its type; needed when a `group_by` follows and the function has no return annotation.
        """
        return Stream(self._root, (*self._steps, Map(transform, value or returned_type(transform))))

    @overload
    def group_by(
        self,
        by: Callable[[V], K2 | None],
        *,
        name: str | None = ...,
        key: type[K2] | None = ...,
        partitions: int | None = ...,
    ) -> Stream[K2, V]: ...
    @overload
    def group_by(
        self, by: K2, *, name: str | None = ..., key: type[K2] | None = ..., partitions: int | None = ...
    ) -> Stream[K2, V]: ...
    def group_by(
        self, by: Any, *, name: str | None = None, key: Any = None, partitions: int | None = None
    ) -> Stream[Any, V]:
        """The same values with another key, each on the partition of that key, through a topic of its own.

        Values whose new key is None are dropped, since they have no partition.

        Args: by: a field (`Flight.origin`) or a function of the value.
              name: part of the topic's name `<app>-<agent>-<name>-repartition`; default the field's name.
              key: type of the new key; default the field's type or the function's return annotation.
              partitions: of the topic; default as many as the stream has now.
        """
        picked = selector(by, "group_by")
        key_type = key if key is not None else picked.type
        if key_type is None:
            raise UserError(f"group_by({picked.name}): the type of the new key is unknown. Say it, as in key=str")
        return Stream(self._root, (*self._steps, GroupBy(picked, name or picked.name, key_type, partitions)))

    def through(self, topic: TypedTopic[K2, V2]) -> Stream[K2, V2]:
        """The same events, by way of `topic`: for another partition count, or to keep them."""
        return Stream(self._root, (*self._steps, Through(topic)))

    @overload
    def join(self, table: LookupTable[K, T], on: None = None) -> Stream[K, tuple[V, T]]: ...
    @overload
    def join(self, table: LookupTable[K2, T], on: Callable[[V], K2]) -> Stream[K, tuple[V, T]]: ...
    @overload
    def join(self, table: LookupTable[K2, T], on: K2) -> Stream[K, tuple[V, T]]: ...
    def join(self, table: LookupTable[Any, T], on: Any = None) -> Stream[K, tuple[V, T]]:
        """Values with their row of `table`; values without a row are dropped.

        Args: on: what to look up: a field or a function of the value; default the event's key. A table with partitions
                  can only be asked for keys of the event's own partition; a GlobalTable for any.
        """
        return Stream(self._root, (*self._steps, _lookup(table, on, keep_unmatched=False)))

    @overload
    def left_join(self, table: LookupTable[K, T], on: None = None) -> Stream[K, tuple[V, T | None]]: ...
    @overload
    def left_join(self, table: LookupTable[K2, T], on: Callable[[V], K2]) -> Stream[K, tuple[V, T | None]]: ...
    @overload
    def left_join(self, table: LookupTable[K2, T], on: K2) -> Stream[K, tuple[V, T | None]]: ...
    def left_join(self, table: LookupTable[Any, T], on: Any = None) -> Stream[K, tuple[V, T | None]]:
        """Values with their row of `table`, or with None where there is none."""
        return Stream(self._root, (*self._steps, _lookup(table, on, keep_unmatched=True)))

    def _then(self, step: Step) -> Stream[K, V]:
        return Stream(self._root, (*self._steps, step))


def _lookup(table: AnyTable, on: object, *, keep_unmatched: bool) -> Lookup:
    return Lookup(table, None if on is None else selector(on, f"join with table {table.name}"), keep_unmatched)
