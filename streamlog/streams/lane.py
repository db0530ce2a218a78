"""A lane: one agent on one task. It runs the agent's bodies and walks them through the events of one partition.

Each body (there are `concurrency` of them) has a cursor, which says what the body is looking at. The loop that users
write, `async for value in stream`, ends up in a generator of `walk.py` that pulls a chunk of decoded events from the
lane, hands them out one by one by setting the cursor's index, and awaits the next grant only when the lane has nothing
more to give. So an event costs a step of a generator and a store into a slot: no task, no future, no queue, no context
variable.

Progress, per source topic:

    concurrency 1    events end in order: everything below the cursor's current event is done
    otherwise        an OffsetTracker knows which events are in the hands of a body

A body that fails leaves its event where it is; the agent's policy decides whether to try again, to step over it or to
stop the partition. Then the body is started anew.
"""

from __future__ import annotations

import asyncio
import contextvars
import operator
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from streamlog.env import Clock
from streamlog.errors import StreamlogError, UserError
from streamlog.streams.batches import Batch, Reading
from streamlog.streams.context import Outbox
from streamlog.streams.feed import NEVER_MS, Feed, LaneTopic, Source
from streamlog.streams.policies import DeadLetter, Policy, Retry, Skip, Stop, blame
from streamlog.streams.pump import GrantSize, Pump

Chunk = Iterator[tuple[int, Any]]
"""(index, value) of consecutive events of one batch."""

Place = tuple[Feed, Batch, Reading, int]
"""An event: its feed, its batch as one reader sees it, and its index in there."""


class Gate(Protocol):
    """Holds lanes back until the tables that follow a topic have caught up with event time."""

    def open_until(self, lane: Lane, head_ms: int) -> int:
        """`lane` stands before an event of `head_ms`: it may process events with timestamps below the result."""
        ...


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


@dataclass(frozen=True, slots=True)
class LaneFailure:
    """Why a partition stands still."""

    agent: str
    topic: str
    partition: int
    offset: int
    what: str
    """Exception and place in the user's code."""
    at_ms: int

    def __str__(self) -> str:
        return f"agent={self.agent} partition={self.topic}-{self.partition} offset={self.offset}: {self.what}"


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

    def __init__(self, lane: Lane, states: Sequence[Any]) -> None:
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


class Lane:
    """One agent on one task."""

    def __init__(
        self,
        plan: LanePlan,
        partition: int,
        sources: Sequence[Source],
        topics: Sequence[LaneTopic],
        begins: Sequence[int],
        states: Sequence[Any],
        *,
        pump: Pump,
        outbox: Outbox,
        clock: Clock,
        on_failure: Callable[[Lane, LaneFailure, Policy], None],
        gate: Gate | None = None,
    ) -> None:
        """`sources`, `topics` and `begins` belong together: those of the plan's topics that have this partition, and
        the offset from which on the lane processes it."""
        self.plan = plan
        self.partition = partition
        self.feeds = [Feed(*one) for one in zip(sources, topics, begins, strict=True)]
        self.cursors = [Cursor(self, states) for _ in range(plan.concurrency)]
        self.outbox = outbox
        self.exclusive = plan.concurrency == 1
        """Whether events end in order, so that the cursor alone says how far the lane is. take() makes it False."""
        self.failure: LaneFailure | None = None
        self.closing = False
        self.in_line = False
        self.budget = 0  # events left of the current grant
        self._used = 0  # events of the current grant that were given out
        self._granted_at_ns = 0
        self._size = GrantSize()
        self._shared: Shared | None = None
        self.wall_ms = clock.wall_ms
        self._pump, self._clock, self._gate, self._on_failure = pump, clock, gate, on_failure
        self._quiet: asyncio.Future[None] | None = None  # somebody waits for `idle`
        self._running = 0  # bodies that have not ended
        self._closed_event: asyncio.Event | None = None

    # --- feeding and turns ---------------------------------------------------------------------------------------

    def on_data(self) -> None:
        """A feed got a batch, or the gate moved: a waiting body may have something to do."""
        if self.failure is None and any(cursor.waiter is not None for cursor in self.cursors):
            self._pump.offer(self)

    def grant(self) -> None:
        """The pump's turn for this lane."""
        self.budget = self._size.events
        self._used = 0
        self._granted_at_ns = self._clock.mono_ns()
        self._wake()

    def pull(self, cursor: Cursor) -> Chunk | None:
        """The next events for `cursor`, or None when it has to wait for a grant or for data.

        Raises: what made an event unreadable, with the cursor on that event.
        """
        if self.closing or self.failure is not None:
            return None
        if cursor.again:  # counted in the grant that gave it out first
            feed, batch, reading, index = cursor.again.popleft()
            cursor.again_left = max(cursor.again_left - 1, 0)
            return self._given(cursor, feed, batch, reading, index, index + 1, repeated=True)
        if self.budget <= 0:
            return None
        if self._shared is not None:
            return self._share(cursor)
        found = self._next_run()
        if found is None:
            return None
        feed, batch, reading, start, stop = found
        feed.head = stop
        self.budget -= stop - start
        self._used += stop - start
        if self.plan.concurrency > 1 and start not in reading.holes:
            self._shared = Shared(feed, batch, reading, start, stop)
            return self._share(cursor)
        return self._given(cursor, feed, batch, reading, start, stop)

    def _given(
        self,
        cursor: Cursor,
        feed: Feed,
        batch: Batch,
        reading: Reading,
        start: int,
        stop: int,
        *,
        repeated: bool = False,
    ) -> Chunk:
        chunk = cursor.look_at(feed, batch, reading, start, stop)
        cursor.repeated = repeated
        error = reading.holes.get(start)
        if error is not None:
            if not self.exclusive:
                self.hand_out(cursor)
            raise error
        return chunk

    def _share(self, cursor: Cursor) -> Chunk:
        """The chunk that all bodies take from, one event at a time."""
        shared = self._shared
        assert shared is not None, "only called while there is a shared chunk"
        cursor.feed, cursor.batch, cursor.reading = shared.feed, shared.batch, shared.reading
        cursor.repeated = False
        cursor.taken += 1
        cursor.stop = shared.start + len(shared.values)
        return shared.chunk

    def exhausted(self, cursor: Cursor) -> None:
        """`cursor` has processed its chunk to the end."""
        cursor.busy = False
        if self.plan.concurrency == 1:
            cursor.feed.tracker.pass_to(cursor.batch.offset_at(cursor.stop))
            return
        shared = self._shared
        if shared is not None and not cursor.repeated and cursor.batch is shared.batch and not shared.left:
            self._shared = None
            if self.failure is None and not self.closing:
                cursor.feed.tracker.pass_to(cursor.batch.offset_at(cursor.stop))

    def hand_out(self, cursor: Cursor) -> None:
        """In lanes that are not exclusive: the event at the cursor's index is in the hands of its body from now on."""
        cursor.busy = True
        offset = cursor.batch.columns.offsets[cursor.index]
        tracker = cursor.feed.tracker
        if offset >= tracker.position:  # otherwise it is given out once more, and never left
            tracker.hand_out(offset)

    async def wait(self, cursor: Cursor) -> bool:
        """Until the lane may have something for `cursor`. False: the stream has ended.

        Cancelling leaves the cursor at an event boundary."""
        if self.closing:
            return False
        self._end_of_grant()
        waiter = asyncio.get_running_loop().create_future()
        cursor.waiter = waiter
        if self._has_events():
            self._pump.offer(self)
        self._announce_quiet()
        try:
            await waiter
        finally:
            cursor.waiter = None
        return not self.closing

    def _end_of_grant(self) -> None:
        if self._granted_at_ns:
            self._size.learn(self._used, self._clock.mono_ns() - self._granted_at_ns)
            self._granted_at_ns = 0

    def _wake(self) -> None:
        for cursor in self.cursors:
            waiter = cursor.waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def _has_events(self) -> bool:
        """Whether a grant could be used at once. A lane that the gate holds back is offered again when the gate
        moves."""
        if self.budget > 0:
            return False  # it stopped for want of events, not of budget
        return self._shared is not None or any(
            feed.head < feed.batches[0].count if len(feed.batches) == 1 else bool(feed.batches)
            for feed in self.feeds
            if not feed.source.stopped
        )

    # --- choosing events -----------------------------------------------------------------------------------------

    def _next_run(self) -> tuple[Feed, Batch, Reading, int, int] | None:
        """Events that may be processed now, earliest first: a run of one batch."""
        while True:
            feed, bound_ms = self._earliest()
            if feed is None:
                return None
            batch = feed.batch()
            assert batch is not None, "the earliest feed has an event"
            reading = batch.reading(feed.reader)
            start = feed.head
            stop = min(start + self.budget, batch.count)
            reading.ensure(stop)
            if bound_ms is not None:
                stop = _before(reading.timestamps_ms, start, stop, bound_ms)
            stop = reading.first_hole(start, stop)
            if stop > start:
                return feed, batch, reading, start, stop
            if reading.holes[start] is not None:
                return feed, batch, reading, start, start + 1
            feed.head += 1  # a tombstone, and the type has no None
            feed.tracker.pass_to(batch.offset_at(feed.head))

    def _earliest(self) -> tuple[Feed | None, int | None]:
        """The feed whose next event is the earliest, and the exclusive bound up to which it remains so."""
        if len(self.feeds) == 1 and self._gate is None:
            feed = self.feeds[0]
            return (None if feed.source.stopped or feed.batch() is None else feed), None
        best: Feed | None = None
        best_ms = second_ms = NEVER_MS
        for feed in self.feeds:
            feed.batch()  # lets go of what is used up: the fetching of this partition may wait for that
            head_ms = feed.head_ms()
            if head_ms is None:
                return None, None  # what comes may be earlier than all we have: wait for it (KIP-695)
            if head_ms < best_ms:
                best, best_ms, second_ms = feed, head_ms, best_ms
            else:
                second_ms = min(second_ms, head_ms)
        if best is None:
            if self._gate is not None:
                self._gate.open_until(self, NEVER_MS)  # no event of ours holds table records back any more
            return None, None
        bound_ms = second_ms + 1
        if self._gate is not None:
            bound_ms = min(bound_ms, self._gate.open_until(self, best_ms))
        return (best, bound_ms) if bound_ms > best_ms else (None, None)

    def head_ms(self) -> int | None:
        """Event time of the lane's next event; None when it is not known yet; NEVER_MS when there is none for now."""
        heads = [feed.head_ms() for feed in self.feeds]
        return None if None in heads else min(head for head in heads if head is not None)

    # --- progress ------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether every body is at an event boundary: it waits for a grant and did not get one, or has ended."""
        waiting = sum(cursor.waiter is not None and not cursor.waiter.done() for cursor in self.cursors)
        return waiting >= self._running

    @property
    def between_events(self) -> bool:
        """The same, and also true inside a body that is just asking for its next event."""
        return not any(cursor.busy or cursor.held for cursor in self.cursors)

    def committable(self, feed: Feed) -> int:
        """Exclusive end of what this lane has processed of the feed's partition."""
        if self.exclusive:
            cursor = self.cursors[0]
            if cursor.busy and cursor.feed is feed:
                return cursor.batch.offset_at(cursor.index)
        return feed.tracker.committable

    async def quiet(self) -> None:
        """Until the lane is idle."""
        while not self.idle:
            if self._quiet is None:
                self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._quiet)

    def _announce_quiet(self) -> None:
        if self._quiet is not None and self.idle:
            self._quiet.set_result(None)
            self._quiet = None

    def halt(self) -> None:
        """Give out no more events: the current ones end, and then the bodies wait. What was not given out stays."""
        self.budget = 0
        if self._shared is not None:
            self._shared.feed.head = self._shared.cut()
            self._shared = None
        cursor = self.cursors[0]
        if self.plan.concurrency == 1 and cursor.busy and cursor.stop > cursor.index + 1:
            keep = len(cursor.chunk) - (cursor.stop - cursor.index - 1)
            del cursor.chunk[keep:]
            cursor.stop = cursor.index + 1
            cursor.feed.head = cursor.stop

    # --- bodies --------------------------------------------------------------------------------------------------

    def bodies(self) -> list[Coroutine[Any, Any, None]]:
        """The coroutines of the lane, one per cursor, for the task's scope to run."""
        self._running = len(self.cursors)
        self._closed_event = asyncio.Event()
        return [self._run(cursor) for cursor in self.cursors]

    def end(self) -> None:
        """End the stream: after its current event each body's loop ends as if the topic had."""
        self.halt()
        self.closing = True
        if self._closed_event is not None:
            self._closed_event.set()
        self._wake()

    async def _run(self, cursor: Cursor) -> None:
        current.set(cursor)
        try:
            while not self.closing and self.failure is None:
                taken = cursor.taken
                failure: Exception | None = None
                try:
                    await self.plan.body(cursor)
                    self._check_progress(cursor, taken)
                except Exception as error:  # a body may raise anything; the policy decides
                    failure = error
                for generator in cursor.generators:
                    await generator.aclose()
                cursor.generators.clear()
                if failure is None:
                    self._step_over(cursor)
                elif not await self._deal_with(cursor, failure):
                    return
        finally:
            self._running -= 1
            cursor.waiter = None
            self._announce_quiet()

    def _check_progress(self, cursor: Cursor, taken: int) -> None:
        """A body that returns at once each time would be started for ever."""
        if cursor.taken == taken and not self.closing:
            raise UserError(f"agent {self.plan.name} returned without iterating over its stream")

    def begin(self, cursor: Cursor) -> None:
        """A body starts an iteration; one that it left with `break` ends here, its last event processed."""
        again = cursor.iterations > 0
        cursor.iterations += 1
        self._step_over(cursor)
        if self.closing and again:
            raise asyncio.CancelledError  # a body that loops around its loop would never end

    def hand_over(self, cursor: Cursor) -> None:
        """What was collected is in the hands of the body from now on."""
        cursor.held, cursor.collected = cursor.collected, []

    def let_go(self, cursor: Cursor) -> None:
        """The body is done with the list it had."""
        for feed, batch, _, index in cursor.held:
            feed.tracker.done(batch.columns.offsets[index])
        cursor.held = []

    def set_aside(self, cursor: Cursor) -> None:
        """The event at the cursor is given out once more, by itself, before all that follows it."""
        cursor.again.appendleft(cursor.place)
        cursor.again_left += cursor.repeated
        self._leave_chunk(cursor)

    def _step_over(self, cursor: Cursor) -> None:
        """The current event, or the list in the body's hands, is dealt with. What was not in its hands is given out
        again: the rest of the chunk, and what a take() had collected."""
        held = bool(cursor.held)
        self.let_go(cursor)
        cursor.again.extendleft(reversed(cursor.collected))
        cursor.collected = []
        if not cursor.busy:
            return
        if self.exclusive:
            cursor.feed.tracker.pass_to(cursor.batch.offset_at(cursor.index + 1))
        elif not held:
            cursor.feed.tracker.done(cursor.offset)
        self._leave_chunk(cursor)

    def _give_again(self, cursor: Cursor) -> None:
        """The current event, or the list in the body's hands, will be tried once more."""
        assert not (cursor.held and cursor.collected), "a list is collected, and then held"
        cursor.again_left = len(cursor.held)
        cursor.again.extendleft(reversed(cursor.held or cursor.collected))
        single = not cursor.held
        cursor.held, cursor.collected = [], []
        if not cursor.busy:
            return
        if self.exclusive:
            cursor.feed.tracker.pass_to(cursor.offset)
            self._leave_chunk(cursor)
            cursor.feed.head = cursor.index
        elif single:
            self.set_aside(cursor)
        else:
            self._leave_chunk(cursor)

    def _leave_chunk(self, cursor: Cursor) -> None:
        """The events behind the cursor's are given out by whoever comes next."""
        cursor.busy = False
        if self.plan.concurrency == 1 and not cursor.repeated:
            cursor.feed.head = cursor.index + 1
            del cursor.chunk[len(cursor.chunk) - (cursor.stop - cursor.index - 1) :]
            cursor.stop = cursor.index + 1

    # --- failures ------------------------------------------------------------------------------------------------

    async def _deal_with(self, cursor: Cursor, error: Exception) -> bool:
        """Apply the policy to the event the body failed at. Whether the body shall start again."""
        policy = self.plan.policy
        failures = 1
        if isinstance(policy, Retry):
            failures = self._count_failures(cursor)
            if policy.attempts is not None and failures >= policy.attempts:
                policy = policy.then
        if not cursor.busy and not cursor.held:
            policy = Stop()  # it failed before its first event or between events: there is nothing to skip or retry
        failure = self._describe(cursor, error)
        match policy:
            case Stop():
                self.failure = failure
                self._on_failure(self, failure, policy)
                return False
            case Retry():
                self._on_failure(self, failure, policy)
                self._give_again(cursor)
                await self._pause(policy.pause_s(failures))
            case DeadLetter(topic):
                self._bury(cursor, topic.name, failure)
                self._on_failure(self, failure, policy)
                self._step_over(cursor)
            case Skip():
                self._on_failure(self, failure, policy)
                self._step_over(cursor)
        return True

    def stop(self, error: Exception) -> None:
        """Stop the partition for what no single event can be blamed for."""
        self.halt()
        self.failure = self._describe(None, error)
        self._on_failure(self, self.failure, Stop())

    def _describe(self, cursor: Cursor | None, error: Exception) -> LaneFailure:
        what = str(error) if isinstance(error, StreamlogError) else blame(error)
        now_ms = self._clock.wall_ms()
        place = None if cursor is None else _place_of(cursor)
        topic, offset = place or (self.feeds[0].source.topic, self.feeds[0].tracker.position)
        return LaneFailure(self.plan.name, topic, self.partition, offset, what, now_ms)

    def _count_failures(self, cursor: Cursor) -> int:
        place = _place_of(cursor)
        cursor.failures = cursor.failures + 1 if cursor.failed_at == place else 1
        cursor.failed_at = place
        return cursor.failures

    async def _pause(self, seconds: float) -> None:
        assert self._closed_event is not None, "a body runs, so the lane was started"
        try:
            async with asyncio.timeout(seconds):
                await self._closed_event.wait()
        except TimeoutError:
            return

    def _bury(self, cursor: Cursor, topic: str, failure: LaneFailure) -> None:
        """Send the failed records to the dead letter topic, with the words that KIP-1034 uses in its headers."""
        headers = [
            ("__streams.errors.message", failure.what.encode()),
            ("__streams.errors.topic", failure.topic.encode()),
            ("__streams.errors.partition", str(failure.partition).encode()),
            ("streamlog.agent", failure.agent.encode()),
        ]
        places = cursor.held or [cursor.place]
        for _, batch, _, index in places:
            columns = batch.columns
            place = ("__streams.errors.offset", str(columns.offsets[index]).encode())
            self.outbox.append(
                topic,
                None,
                columns.keys[index],
                columns.values[index],
                max(columns.timestamps_ms[index], 0),  # a record without a time has -1, and no new one may
                [*columns.headers[index], *headers, place],
            )


def _place_of(cursor: Cursor) -> tuple[str, int] | None:
    """Topic and offset of the event the body is at: the first of its list; None when it had no event yet."""
    if not cursor.has_event:
        return None
    feed, batch, _, index = cursor.held[0] if cursor.held else cursor.place
    return feed.source.topic, batch.columns.offsets[index]


def _before(timestamps_ms: list[int], start: int, stop: int, bound_ms: int) -> int:
    """End of the leading run of [start, stop) whose timestamps are below `bound_ms`."""
    for index in range(start, stop):
        if timestamps_ms[index] >= bound_ms:
            return index
    return stop
