"""The loops that every event passes through: from a lane's chunks to the `async for` of a body.

One generator per form of iteration, all of one shape: pull a chunk, hand its events out, wait when there is none. The
loop of `walk_values` is what a plain agent pays per event; keep it that short.

A body may start a loop inside another, or leave one and start the next. The newest one has the events; an older one
that is asked again ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Final

from streamlog.streams.answers import answer_failure
from streamlog.streams.cursor import Chunk, Cursor
from streamlog.streams.event import Event
from streamlog.streams.planning import describe
from streamlog.streams.stream import Events, Filter, Form, Items, Lookup, Map, Step, Take, Values

Apply = Callable[[Any], Any]
"""All steps of a stream in one function of the value; DROP when the value ends there."""


class _Drop:
    def __repr__(self) -> str:
        return "DROP"


DROP: Final = _Drop()


async def walk_values(cursor: Cursor) -> AsyncGenerator[Any, None]:
    """Values of an exclusive lane, without steps."""
    lane, mine = cursor.lane, cursor.iterations
    while cursor.iterations == mine:
        chunk = lane.pull(cursor)
        if chunk is not None:
            for cursor.index, value in chunk:
                yield value
            if cursor.iterations != mine:
                return
            lane.exhausted(cursor)
        elif not await lane.wait(cursor):
            return


async def walk_steps(cursor: Cursor, apply: Apply) -> AsyncGenerator[Any, None]:
    """The same, through steps. They run one event at a time, because a join reads what the body wrote just before."""
    lane, mine = cursor.lane, cursor.iterations
    while cursor.iterations == mine:
        chunk = lane.pull(cursor)
        if chunk is not None:
            for cursor.index, value in chunk:
                result = apply(value)
                if result is not DROP:
                    yield result
            if cursor.iterations != mine:
                return
            lane.exhausted(cursor)
        elif not await lane.wait(cursor):
            return


async def walk_shared(cursor: Cursor, apply: Apply) -> AsyncGenerator[Any, None]:
    """A lane that is not exclusive. With several bodies, each takes the next event from the same chunk."""
    lane, mine = cursor.lane, cursor.iterations
    while cursor.iterations == mine:
        chunk = lane.pull(cursor)
        if chunk is not None:
            for cursor.index, value in chunk:
                lane.hand_out(cursor)
                result = apply(value)
                if result is not DROP:
                    yield result
                    if cursor.iterations != mine:
                        return
                cursor.busy = False
                cursor.feed.tracker.done(cursor.batch.columns.offsets[cursor.index])
            lane.exhausted(cursor)
        elif not await lane.wait(cursor):
            return


async def walk_take(cursor: Cursor, apply: Apply, take: Take) -> AsyncGenerator[list[Any], None]:
    """Lists of events. A list is in the hands of the body until it asks for the next one."""
    lane, mine = cursor.lane, cursor.iterations
    loop = asyncio.get_running_loop()
    collector = Collector(cursor, apply, take.count)
    deadline: float | None = None  # of the list that is being collected; None while it is empty
    while cursor.iterations == mine:
        complete = collector.collect()
        if collector.values and deadline is None:
            deadline = loop.time() + take.within_s
        if deadline is not None and (complete or lane.closing or loop.time() >= deadline):
            deadline = None
            values, collector.values = collector.values, []
            cursor.hand_over()
            yield values
            if cursor.iterations == mine:
                cursor.let_go()
        elif deadline is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await lane.wait(cursor)
        elif not await lane.wait(cursor):
            return


class Collector:
    """Collects the events of a list, as far as there are any now.

    An event that fails, because it cannot be read or because a step raises, ends the list before it: so it fails alone,
    in the next round, and the policy deals with nothing else.
    """

    def __init__(self, cursor: Cursor, apply: Apply, count: int) -> None:
        self.values: list[Any] = []  # what becomes of the cursor's collected events
        self._cursor, self._apply, self._count = cursor, apply, count
        self._chunk: Chunk | None = None  # what is left of a chunk; None between chunks

    def collect(self) -> bool:
        """Whether the list is complete. Raises: what makes the next event fail, with an empty list."""
        cursor, lane = self._cursor, self._cursor.lane
        same_again = False  # the chunk is the last event of a list that failed
        while True:
            try:
                if self._chunk is None:
                    same_again = cursor.again_left == 1
                    self._chunk = lane.pull(cursor)
                    if self._chunk is None:
                        return False
                if self._take_from(self._chunk):
                    return True
            except Exception:
                self._chunk = None
                if not (self.values and cursor.busy):
                    raise
                cursor.set_aside()
                return True
            self._chunk = None
            lane.exhausted(cursor)
            if same_again and self.values:
                return True

    def _take_from(self, chunk: Chunk) -> bool:
        cursor, lane, values, count, apply = self._cursor, self._cursor.lane, self.values, self._count, self._apply
        for cursor.index, value in chunk:
            lane.hand_out(cursor)
            result = apply(value)
            if result is DROP:
                cursor.feed.tracker.done(cursor.offset)
                continue
            cursor.collected.append(cursor.place)
            values.append(result)
            if len(values) == count:
                return True
        return False


def compile_steps(steps: tuple[Step, ...], cursor: Cursor) -> Apply | None:
    """The steps as one function for this cursor, or None when there are none."""
    apply: Apply | None = None
    for step in steps:
        one = _compile(step, cursor)
        apply = one if apply is None else _chain(apply, one)
    return apply


def _compile(step: Step, cursor: Cursor) -> Apply:
    match step:
        case Filter(keep) if cursor.lane.plan.answers_for is not None:
            drop = _dropper(step, cursor)
            return lambda value: value if keep(value) else drop()
        case Filter(keep):
            return lambda value: value if keep(value) else DROP
        case Map(transform):
            return transform
        case Lookup():
            return _compile_lookup(step, cursor)
        case _:
            raise AssertionError(f"{step} splits a stream in two; the plan does that before lanes start")


def _chain(first: Apply, second: Apply) -> Apply:
    def apply(value: Any) -> Any:
        result = first(value)
        return DROP if result is DROP else second(result)

    return apply


def _dropper(step: Step, cursor: Cursor) -> Callable[[], _Drop]:
    """What a step says for an event that ends there: DROP, and to its asker, if it has one, that there is no answer."""
    agent = cursor.lane.plan.answers_for
    if agent is None:
        return lambda: DROP

    def drop() -> _Drop:
        answer_failure(cursor, agent, f"{describe(step)} dropped the question")
        return DROP

    return drop


def _compile_lookup(step: Lookup, cursor: Cursor) -> Apply:
    lookup: Callable[[Any], Any] = step.table._lookup  # type: ignore[attr-defined]  # LookupTable, its types are gone here
    select = None if step.on is None else step.on.select

    keep_unmatched = step.keep_unmatched
    drop = _dropper(step, cursor)

    def apply(value: Any) -> Any:
        key = select(value) if select is not None else cursor.decoded_key()
        row = None if key is None else lookup(key)
        return drop() if row is None and not keep_unmatched else (value, row)

    return apply


def walk(cursor: Cursor, steps: tuple[Step, ...], form: Form) -> AsyncGenerator[Any, None]:
    """The generator for one iteration of a body."""
    apply = compile_steps(steps, cursor)
    match form:
        case Take():
            cursor.lane.exclusive = False
            return walk_take(cursor, apply or _same, form)
        case Items():
            apply = _then(apply, _items(cursor))
        case Events():
            apply = _then(apply, _events(cursor))
        case Values():
            pass
    if not cursor.lane.exclusive:
        return walk_shared(cursor, apply or _same)
    return walk_values(cursor) if apply is None else walk_steps(cursor, apply)


def _same(value: Any) -> Any:
    return value


def _then(first: Apply | None, second: Apply) -> Apply:
    return second if first is None else _chain(first, second)


def _items(cursor: Cursor) -> Apply:

    def pair(value: Any) -> Any:

        return (cursor.decoded_key(), value)

    return pair


def _events(cursor: Cursor) -> Apply:

    def event(value: Any) -> Any:

        return Event(
            key=cursor.decoded_key(),
            value=value,
            headers=tuple(cursor.headers),
            timestamp_ms=cursor.timestamp_ms,
            topic=cursor.feed.source.topic,
            partition=cursor.feed.source.partition,
            offset=cursor.offset,
        )

    return event
