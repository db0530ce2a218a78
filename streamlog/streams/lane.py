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
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from streamlog.env import Clock
from streamlog.errors import StreamlogError, UserError
from streamlog.streams.batches import Batch, Reading
from streamlog.streams.choosing import Chooser
from streamlog.streams.context import Outbox
from streamlog.streams.cursor import Chunk, Cursor, LanePlan, Shared, current
from streamlog.streams.failing import LaneFailure, bury, count_failures, place_of
from streamlog.streams.feed import Feed, LaneTopic, Source
from streamlog.streams.policies import DeadLetter, Policy, Retry, Skip, Stop, blame, is_cancelled, text_of
from streamlog.streams.pump import GrantSize, Pump


class Gate(Protocol):
    """Holds lanes back until the tables that follow a topic have caught up with event time."""

    def open_until(self, lane: Lane, head_ms: int) -> int:
        """`lane` stands before an event of `head_ms`: it may process events with timestamps below the result."""
        ...


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
        self.feeds = [Feed(*one, only_looks=plan.only_looks) for one in zip(sources, topics, begins, strict=True)]
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
        self._pump, self._clock, self._on_failure = pump, clock, on_failure
        self._chooser = Chooser(self.feeds, None if gate is None else partial(gate.open_until, self))
        self.head_ms = self._chooser.head_ms
        """Event time of the next event; see `Chooser.head_ms`."""
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
            reading.renew(index)
            return self._given(cursor, feed, batch, reading, index, index + 1, repeated=True)
        if self.budget <= 0:
            return None
        shared = self._shared
        if shared is not None:
            if shared.left:
                return self._share(cursor)
            self._end_shared(shared)  # its last event is in a body's hands; this cursor stays where it is
        found = self._chooser.next_run(self.budget)
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
            self._end_shared(shared)

    def _end_shared(self, shared: Shared) -> None:
        """All events of the shared chunk were taken."""
        self._shared = None
        if self.failure is None and not self.closing:
            shared.feed.tracker.pass_to(shared.batch.offset_at(shared.start + len(shared.values)))

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
        """Whether a grant could be used at once, be it only to let go of what is used up, which fetching and tables
        that follow a topic may wait for. A lane that the gate holds back is offered again when the gate moves."""
        if self.budget > 0:
            return False  # it stopped for want of events, not of budget
        return self._shared is not None or any(feed.batches for feed in self.feeds if not feed.source.stopped)

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
                failure: BaseException | None = None
                try:
                    await self.plan.body(cursor)
                    self._check_progress(cursor, taken)
                except Exception as error:  # a body may raise anything; the policy decides
                    failure = error
                except asyncio.CancelledError as error:
                    if self._is_ending():
                        raise
                    failure = error
                for generator in cursor.generators:
                    await generator.aclose()
                cursor.generators.clear()
                if failure is None:
                    cursor.step_over()
                elif not await self._deal_with(cursor, failure):
                    return
        finally:
            self._running -= 1
            cursor.waiter = None
            self._announce_quiet()

    def _is_ending(self) -> bool:
        return self.closing or is_cancelled()

    def _check_progress(self, cursor: Cursor, taken: int) -> None:
        """A body that returns at once each time would be started for ever."""
        if cursor.taken == taken and not self.closing:
            raise UserError(f"agent {self.plan.name} returned without iterating over its stream")

    def begin(self, cursor: Cursor) -> None:
        """A body starts an iteration; one that it left with `break` ends here, its last event processed."""
        again = cursor.iterations > 0
        cursor.iterations += 1
        cursor.step_over()
        if self.closing and again:
            raise asyncio.CancelledError  # a body that loops around its loop would never end

    # --- failures ------------------------------------------------------------------------------------------------

    async def _deal_with(self, cursor: Cursor, error: BaseException) -> bool:
        """Apply the policy to the event the body failed at. Whether the body shall start again."""
        policy = self.plan.policy
        failures = 1
        if isinstance(policy, Retry):
            failures = count_failures(cursor)
            if policy.attempts is not None and failures >= policy.attempts:
                policy = policy.then
        if not cursor.busy and not cursor.held:
            policy = Stop()  # it failed before its first event or between events: there is nothing to skip or retry
        failure = self._describe(cursor, error)
        if isinstance(policy, DeadLetter) and (refusal := bury(cursor, policy.topic.name, failure)) is not None:
            why = f"the dead letter topic {policy.topic.name} does not take the record: {text_of(refusal)}"
            failure, policy = replace(failure, what=f"{failure.what}; and {why}"), Stop()
        match policy:
            case Stop():
                self.failure = failure
                self._on_failure(self, failure, policy)
                return False
            case Retry():
                self._on_failure(self, failure, policy)
                cursor.give_again()
                await self._pause(policy.pause_s(failures))
            case DeadLetter() | Skip():
                self._on_failure(self, failure, policy)
                cursor.step_over()
        return True

    def stop(self, error: Exception) -> None:
        """Stop the partition for what no single event can be blamed for."""
        self.halt()
        self.failure = self._describe(None, error)
        self._on_failure(self, self.failure, Stop())

    def _describe(self, cursor: Cursor | None, error: BaseException) -> LaneFailure:
        what = text_of(error) if isinstance(error, StreamlogError) else blame(error)
        now_ms = self._clock.wall_ms()
        place = None if cursor is None else place_of(cursor)
        topic, offset = place or (self.feeds[0].source.topic, self.feeds[0].tracker.position)
        at_event = cursor is not None and (cursor.busy or bool(cursor.held))
        return LaneFailure(self.plan.name, topic, self.partition, offset, what, now_ms, at_event)

    async def _pause(self, seconds: float) -> None:
        assert self._closed_event is not None, "a body runs, so the lane was started"
        try:
            async with asyncio.timeout(seconds):
                await self._closed_event.wait()
        except TimeoutError:
            return
