"""The loops that every event passes through: from a lane's chunks to the `async for` of a body.

One generator per form of iteration, all of one shape: pull a chunk, hand its events out, wait when there is none. The
loop of `walk_values` is what a plain agent pays per event; keep it that short.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

from streamlog.streams.event import Event
from streamlog.streams.lane import Chunk, Cursor
from streamlog.streams.stream import Events, Filter, Form, Items, Lookup, Map, Step, Take, Values

Apply = Callable[[Any], Any]
"""All steps of a stream in one function of the value; DROP when the value ends there."""


class _Drop:
    def __repr__(self) -> str:
        return "DROP"


DROP: Final = _Drop()


async def walk_values(cursor: Cursor) -> AsyncGenerator[Any, None]:
    """Values of an exclusive lane, without steps."""
    lane = cursor.lane
    while True:
        chunk = lane.pull(cursor)
        if chunk is not None:
            for cursor.index, value in chunk:
                yield value
            lane.exhausted(cursor)
        elif not await lane.wait(cursor):
            return


async def walk_steps(cursor: Cursor, apply: Apply) -> AsyncGenerator[Any, None]:
    """The same, through steps. They run one event at a time, because a join reads what the body wrote just before."""
    lane = cursor.lane
    while True:
        chunk = lane.pull(cursor)
        if chunk is not None:
            for cursor.index, value in chunk:
                result = apply(value)
                if result is not DROP:
                    yield result
            lane.exhausted(cursor)
        elif not await lane.wait(cursor):
            return


async def walk_shared(cursor: Cursor, apply: Apply) -> AsyncGenerator[Any, None]:
    """A lane with several bodies: each takes the next event from the same chunk, and says when it is done with it."""
    lane = cursor.lane
    while True:
        chunk = lane.pull(cursor)
        if chunk is not None:
            for cursor.index, value in chunk:
                lane.hand_out(cursor)
                result = apply(value)
                if result is not DROP:
                    yield result
                cursor.busy = False
                cursor.feed.tracker.done(cursor.batch.columns.offsets[cursor.index])
            lane.exhausted(cursor)
        elif not await lane.wait(cursor):
            return


async def walk_take(cursor: Cursor, apply: Apply, take: Take) -> AsyncGenerator[list[Any], None]:
    """Lists of events, all of them in flight until the body has come back from the list."""
    lane = cursor.lane
    lane.exclusive = False
    loop = asyncio.get_running_loop()
    values: list[Any] = []
    deadline = 0.0
    while True:
        chunk = _pull_or_finish(cursor)
        if chunk is not None:
            for cursor.index, value in chunk:
                lane.hand_out(cursor)
                result = apply(value)
                if result is DROP:
                    cursor.feed.tracker.done(cursor.offset)
                    continue
                cursor.held.append((cursor.feed, cursor.batch, cursor.reading, cursor.index))
                values.append(result)
                if len(values) == 1:
                    deadline = loop.time() + take.within_s
                if len(values) == take.count:
                    yield values
                    values = []
                    _let_go(cursor)
            lane.exhausted(cursor)
            continue
        if values and (cursor.again or loop.time() >= deadline):
            yield values
            values = []
            _let_go(cursor)
        elif values and not lane.closing:
            try:
                async with asyncio.timeout_at(deadline):
                    await lane.wait(cursor)
            except TimeoutError:
                continue
        elif not await lane.wait(cursor):
            return


def _pull_or_finish(cursor: Cursor) -> Chunk | None:
    """The next chunk. An unreadable event is put back while a list is unfinished, so that it fails alone."""
    try:
        return cursor.lane.pull(cursor) if not (cursor.held and cursor.again) else None
    except Exception:
        if not cursor.held:
            raise
        cursor.again.append((cursor.feed, cursor.batch, cursor.reading, cursor.index))
        cursor.busy = False
        return None


def _let_go(cursor: Cursor) -> None:
    for feed, batch, _, index in cursor.held:
        feed.tracker.done(batch.columns.offsets[index])
    cursor.held = []


def compile_steps(steps: tuple[Step, ...], cursor: Cursor) -> Apply | None:
    """The steps as one function for this cursor, or None when there are none."""
    apply: Apply | None = None
    for step in steps:
        one = _compile(step, cursor)
        apply = one if apply is None else _chain(apply, one)
    return apply


def _compile(step: Step, cursor: Cursor) -> Apply:
    match step:
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


def _compile_lookup(step: Lookup, cursor: Cursor) -> Apply:
    lookup: Callable[[Any], Any] = step.table._lookup  # type: ignore[attr-defined]  # LookupTable, its types are gone here
    select = None if step.on is None else step.on.select

    keep_unmatched = step.keep_unmatched

    def apply(value: Any) -> Any:
        key = select(value) if select is not None else cursor.decoded_key()
        row = None if key is None else lookup(key)
        return DROP if row is None and not keep_unmatched else (value, row)

    return apply


def walk(cursor: Cursor, steps: tuple[Step, ...], form: Form) -> AsyncGenerator[Any, None]:
    """The generator for one iteration of a body."""
    apply = compile_steps(steps, cursor)
    match form:
        case Take():
            return walk_take(cursor, apply or _same, form)
        case Items():
            apply = _then(apply, _items(cursor))
        case Events():
            apply = _then(apply, _events(cursor))
        case Values():
            pass
    if cursor.lane.plan.concurrency > 1:
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
