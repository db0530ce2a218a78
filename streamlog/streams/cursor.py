"""A cursor: what one running body is looking at, and which events are in its hands.

Every event of a lane is in one place at a time: behind its feed's head, in the chunk that a cursor walks through, or in
one of a cursor's lists. `again` has events to give out once more, `collected` those of a take() that the body did not
get yet, `held` the list that it has. Whatever ends a loop moves them: what the body had is done, or is tried again;
what it never had goes back.

In a lane whose events end in order, the cursor's index alone says how far it is. In others the feeds' trackers know the
offsets that were handed out and are not done.
"""

from __future__ import annotations

import asyncio
import contextvars
import operator
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from streamlog.streams.batches import Batch, Reading
from streamlog.streams.context import Outbox
from streamlog.streams.feed import Feed, LaneTopic
from streamlog.streams.policies import Policy

Chunk = Iterator[tuple[int, Any]]
"""(index, value) of consecutive events of one batch."""

Place = tuple[Feed, Batch, Reading, int]
"""An event: its feed, its batch as one reader sees it, and its index in there."""


@dataclass(frozen=True, slots=True)
class LanePlan:
    """What a lane runs."""

    name: str
    topics: tuple[LaneTopic, ...]
    body: Callable[[Cursor], Coroutine[Any, Any, None]]
    policy: Policy
    concurrency: int = 1
    answers_for: str | None = None
    """The agent that can be asked through this lane, if it can be."""
    only_looks: bool = False
    """Whether no code of the user gets the values: they are sent on, under a key that is one of their fields."""


class CursorLane(Protocol):
    """What a cursor, and whoever walks with it, asks of its lane. `Lane` says more about each."""

    plan: LanePlan
    partition: int
    outbox: Outbox
    exclusive: bool
    closing: bool

    @property
    def wall_ms(self) -> Callable[[], int]: ...
    def begin(self, cursor: Cursor) -> None: ...
    def pull(self, cursor: Cursor) -> Chunk | None: ...
    def exhausted(self, cursor: Cursor) -> None: ...
    def hand_out(self, cursor: Cursor) -> None: ...
    async def wait(self, cursor: Cursor) -> bool: ...


class Cursor:
    """What one body is looking at. Reads of tables, keys and times go through it."""

    __slots__ = (
        "again",
        "again_left",
        "batch",
        "busy",
        "chunk",
        "collected",
        "failed_at",
        "failures",
        "feed",
        "generators",
        "given",
        "given_at",
        "held",
        "index",
        "iterations",
        "lane",
        "reading",
        "repeated",
        "states",
        "stop",
        "taken",
        "waiter",
    )

    def __init__(self, lane: CursorLane, states: Sequence[Any]) -> None:
        self.lane = lane
        self.states = states  # of the task, by the tables' slots
        self.busy = False  # the event at `index` is being processed, and [index, stop) are this cursor's
        self.index = -1
        self.stop = 0
        self.taken = 0  # chunks this body has got; a body that ends without any would spin
        self.chunk: list[Any] = []  # values of the chunk; cut short to stop the iteration at the next boundary
        self.waiter: asyncio.Future[None] | None = None  # set while the body waits for a grant: an event boundary
        self.generators: list[AsyncGenerator[Any, None]] = []  # iterations the body has started
        self.iterations = 0  # how many it has started; a loop whose number is lower than this has ended
        self.collected: list[Place] = []  # events of a take() that the body did not get yet
        self.held: list[Place] = []  # events of the list that the body has from take()
        self.again: deque[Place] = deque()  # events to give out once more, before all others; not in exclusive lanes
        self.again_left = 0  # so many at the head of `again` were one list, and will be again
        self.repeated = False  # the chunk is an event of `again`: the feed's head has nothing to do with it
        self.failed_at: tuple[str, int] | None = None  # topic and offset of the last failure
        self.failures = 0  # how often in a row it failed there
        self.given: dict[tuple[str, Any], None] = {}  # rows, by table and key, that the body got for the event at:
        self.given_at = (0, -1)  # `taken` and `index`
        # The batch, its reading and its feed are set by the first chunk; before it there is no event to ask about.
        self.batch: Batch
        self.reading: Reading
        self.feed: Feed

    @property
    def has_event(self) -> bool:
        """Whether there is an event to ask about: the current one, or the last one after a loop ended."""
        return self.index >= 0

    @property
    def key(self) -> bytes | None:
        return self.batch.columns.keys[self.index]

    @property
    def timestamp_ms(self) -> int:
        return self.reading.timestamps_ms[self.index]

    @property
    def offset(self) -> int:
        return self.batch.columns.offsets[self.index]

    def decoded_key(self) -> Any:
        """The event's key; None when the record has none. Raises: SerdeError."""
        key = self.key
        return None if key is None else self.feed.key_decode(key)

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        return self.batch.columns.headers[self.index]

    @property
    def place(self) -> Place:
        return self.feed, self.batch, self.reading, self.index

    def look_at(self, feed: Feed, batch: Batch, reading: Reading, start: int, stop: int) -> Chunk:
        """Make [start, stop) of `batch` this cursor's, and give the chunk."""
        self.feed, self.batch, self.reading = feed, batch, reading
        self.index, self.stop = start, stop
        self.busy = True
        self.repeated = False
        self.taken += 1
        self.chunk = reading.values[start:stop]
        return zip(range(start, stop), self.chunk, strict=False)  # not strict: `halt` may shorten the values

    def give(self, table: str, key: Any) -> None:
        """The body got the value of a row, and may change it in place until it is done with its event."""
        at = self.taken, self.index
        if at != self.given_at:
            self.given_at, self.given = at, {}
        self.given[table, key] = None

    @property
    def rows_in_hands(self) -> Iterable[tuple[str, Any]]:
        """Tables and keys of the rows that the body got for what it is not done with: an event, or a list of them."""
        return self.given if (self.busy or self.held) and self.given_at == (self.taken, self.index) else ()

    # --- whose the events are ---------------------------------------------------------------------------------------

    def hand_over(self) -> None:
        """What was collected is in the hands of the body from now on."""
        self.held, self.collected = self.collected, []

    def let_go(self) -> None:
        """The body is done with the list it had."""
        for feed, batch, _, index in self.held:
            feed.tracker.done(batch.columns.offsets[index])
        self.held = []

    def set_aside(self) -> None:
        """The current event is given out once more, by itself, before all that follows it."""
        self.again.appendleft(self.place)
        self.again_left += self.repeated
        self._leave_chunk()

    def step_over(self) -> None:
        """The current event, or the list in the body's hands, is dealt with. What was not in its hands is given out
        again: the rest of the chunk, and what a take() had collected."""
        held = bool(self.held)
        self.let_go()
        self.again.extendleft(reversed(self.collected))
        self.collected = []
        if not self.busy:
            return
        if self.lane.exclusive:
            self.feed.tracker.pass_to(self.batch.offset_at(self.index + 1))
        elif not held:
            self.feed.tracker.done(self.offset)
        self._leave_chunk()

    def give_again(self) -> None:
        """The current event, or the list in the body's hands, will be tried once more."""
        assert not (self.held and self.collected), "a list is collected, and then held"
        self.again_left = len(self.held)
        self.again.extendleft(reversed(self.held or self.collected))
        single = not self.held
        self.held, self.collected = [], []
        if not self.busy:
            return
        if self.lane.exclusive:
            self.feed.tracker.pass_to(self.offset)
            self._leave_chunk()
            self.feed.head = self.index
            self.reading.renew(self.index)
        elif single:
            self.set_aside()
        else:
            self._leave_chunk()

    def _leave_chunk(self) -> None:
        """The events behind the current one are given out by whoever comes next."""
        self.busy = False
        if self.lane.plan.concurrency == 1 and not self.repeated:
            self.feed.head = self.index + 1
            del self.chunk[len(self.chunk) - (self.stop - self.index - 1) :]
            self.stop = self.index + 1


class Shared:
    """A chunk that the bodies of a lane take from, one event at a time."""

    __slots__ = ("_indexes", "batch", "chunk", "feed", "reading", "start", "values")

    def __init__(self, feed: Feed, batch: Batch, reading: Reading, start: int, stop: int) -> None:
        self.feed, self.batch, self.reading, self.start = feed, batch, reading, start
        self.values = reading.values[start:stop]
        self._indexes = iter(range(start, stop))  # knows how many are left, as zip does not
        self.chunk: Chunk = zip(self._indexes, self.values, strict=False)  # not strict: `cut` shortens the values

    @property
    def left(self) -> int:
        """Events that nobody has taken."""
        return operator.length_hint(self._indexes)

    def cut(self) -> int:
        """Give out no more; returns the index of the first event that nobody has taken."""
        del self.values[len(self.values) - self.left :]
        return self.start + len(self.values)


current: contextvars.ContextVar[Cursor] = contextvars.ContextVar("streamlog_cursor")
"""The cursor of the running body. Set once when a body's task starts; tables and topics find their task through it."""


def given_out(table: str) -> Callable[[Any], None]:
    """Notes, for the body that is running, which rows of `table` it gets."""

    def note(key: Any) -> None:
        cursor = current.get(None)
        if cursor is not None:
            cursor.give(table, key)

    return note
