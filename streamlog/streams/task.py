"""A task: partition p of everything the app reads, the state that belongs to it, and the lanes that work on it.

                 restored            revoked             drained and committed
    ASSIGNED --> RESTORING --> RUNNING --> REVOKING --> CLOSED
        \\____________\\____________\\____________\\_______/   lost, or the worker gives up: closed without a commit

- ASSIGNED: the group gave us the partitions; they are paused in the consumer.
- RESTORING: the store is open and catches up with the changelogs. Other tasks of the worker go on.
- RUNNING: records are fed and processed.
- REVOKING: nothing is fed any more; the events in hand are finished, then committed.
- CLOSED: the store is closed. A new assignment makes a new task with a new epoch.

The task performs no I/O. The worker feeds it, commits what `begin_commit` gives, and tells it what became of that.
"""

from __future__ import annotations

import asyncio
import enum
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from streamlog.env import Clock, Scope
from streamlog.errors import StreamlogError, UserError
from streamlog.serde import SerdeError, checked_when_set, separator
from streamlog.state.changelog import DELETE_RETENTION_MS, TIMESTAMP_DISTANCE_MS_MAX
from streamlog.state.freshness import Freshness
from streamlog.state.shape import check_rows
from streamlog.state.store import CommitBatch, Position, SourceOffset, Store
from streamlog.state.table import DirtyRows, TableState
from streamlog.state.windowed import WindowedState
from streamlog.streams.ahead import TimeJumps
from streamlog.streams.batches import Batch
from streamlog.streams.context import Outbox
from streamlog.streams.cursor import given_out
from streamlog.streams.failing import LaneFailure
from streamlog.streams.feed import Source
from streamlog.streams.lane import Lane
from streamlog.streams.late import LateWrites
from streamlog.streams.misplaced import KeyCheck
from streamlog.streams.ordering import TableFeed, TableGate
from streamlog.streams.places import Place
from streamlog.streams.plan import Plan
from streamlog.streams.policies import Policy, Stop
from streamlog.streams.progress import Progress, encode_progress
from streamlog.streams.pump import Pump
from streamlog.streams.tables import MISSING, Table, Unavailable
from streamlog.streams.topology import Topology
from streamlog.wire.records import RecordColumns


class TaskState(enum.Enum):
    """What a task is doing. Only the transitions in LEGAL happen."""

    ASSIGNED = "assigned"
    RESTORING = "restoring"
    RUNNING = "running"
    REVOKING = "revoking"
    CLOSED = "closed"


LEGAL: Mapping[TaskState, frozenset[TaskState]] = {
    TaskState.ASSIGNED: frozenset({TaskState.RESTORING, TaskState.CLOSED}),
    TaskState.RESTORING: frozenset({TaskState.RUNNING, TaskState.CLOSED}),
    TaskState.RUNNING: frozenset({TaskState.REVOKING, TaskState.CLOSED}),
    TaskState.REVOKING: frozenset({TaskState.CLOSED}),
    TaskState.CLOSED: frozenset(),
}


class State(Protocol):
    """The part of a table that a task keeps, as commits see it."""

    @property
    def name(self) -> str: ...
    @property
    def dirty_full(self) -> bool: ...
    def take_dirty(self, timestamp_ms: int, held: Collection[Any] = ()) -> DirtyRows: ...
    def committed(self, dirty: DirtyRows) -> None: ...
    def abandon(self, dirty: DirtyRows) -> None: ...


@dataclass(frozen=True, slots=True)
class TaskCommit:
    """What one commit of one task carries, as of one moment."""

    task: Task
    offsets: dict[str, int]
    """Per consumed topic: exclusive end of what every lane has processed. Only topics that moved."""
    ahead: dict[str, dict[str, int]]
    """Of the same topics: the lanes that have processed more, and how far they are."""
    dirty: list[tuple[Table[Any, Any], State, DirtyRows]]
    followed: dict[str, Position]
    """Per table that follows a topic: how far it is. Only tables that moved, or were seen to be at the topic's end."""

    @property
    def empty(self) -> bool:
        return not self.offsets and not self.followed and not any(dirty.rows for _, _, dirty in self.dirty)


class Task:
    """Partition `number` of an app."""

    def __init__(
        self,
        plan: Plan,
        topology: Topology,
        number: int,
        epoch: int,
        *,
        without: Collection[str] = (),
        life: str = "",
        pump: Pump,
        outbox: Outbox,
        clock: Clock,
        on_failure: Callable[[Task, LaneFailure, Policy], None],
        on_crash: Callable[[BaseException], None] | None = None,
        on_drained: Callable[[Task, str], None] = lambda task, topic: None,
    ) -> None:
        """A task that is assigned and not open.

        Args: topology: the plan's, resolved.
              epoch: tells this incarnation's records from those of earlier ones.
              without: topics that the app reads and that do not exist; lanes that read nothing else are not made.
              life: the same among all workers, for ever: signs the task's commits.
              on_failure: told when an agent's body failed, and what its policy does about it.
              on_crash: told when streamlog itself failed; bodies' exceptions go through their policies.
              on_drained: told when a topic's slowest lane may have used up a batch.
        """
        self.plan, self.topology = plan, topology
        self.number, self.epoch, self.life = number, epoch, life
        self.topics = [name for name in topology.consumed if number < topology.partitions(name) and name not in without]
        """The consumed topics that have this partition."""
        self.state = TaskState.ASSIGNED
        self.store: Store | None = None
        self.sources: dict[str, Source] = {}  # by topic; filled by `open`
        self.lanes: list[Lane] = []
        self.failures: list[LaneFailure] = []  # of lanes that stopped
        self.stream_time_ms = -1  # highest event time that was fed; for the timestamps of changelog records
        self._committed: dict[str, int] = {}  # offsets that are known to be committed
        self._ahead: dict[str, dict[str, int]] = {}  # and the lanes ahead of them, by topic
        self._states: list[Any] = [None] * len(plan.tables)
        self.late = LateWrites(number)
        self._jumps = TimeJumps(number, clock)
        self._durable: list[tuple[Table[Any, Any], State]] = []  # tables with rows in the store, in slot order
        self._unwritable = False  # a row of a table cannot be written: nothing is committed any more
        self._gate: TableGate | None = None
        self._shown_ms: dict[str, int] = {}  # how long followed topics show deletions
        self._pump, self._outbox, self._clock, self._on_failure = pump, outbox, clock, on_failure
        self._on_drained = on_drained
        self._scope = Scope(f"task-{number}", on_crash)

    def __repr__(self) -> str:
        return f"<Task {self.number} epoch={self.epoch} {self.state.value}>"

    def move_to(self, state: TaskState) -> None:
        assert state in LEGAL[self.state], f"task {self.number} cannot go from {self.state.value} to {state.value}"
        self.state = state

    # --- life -----------------------------------------------------------------------------------------------------

    def open(
        self,
        store: Store,
        places: Mapping[str, Place],
        end_offsets: Mapping[str, int],
        global_states: Mapping[str, Any],
        *,
        shown_ms: Mapping[str, int] | None = None,
        asked_at_ms: int | None = None,
    ) -> None:
        """Make states and lanes. The store is complete; processing begins at `places`, per topic.

        Args: end_offsets: as they were at `asked_at_ms`, by default just now.
              shown_ms: how long topics that tables follow show deletions.

        A table that follows a topic may lag behind its position, when its store is new: then the topic is consumed from
        where the table stands (`sources` says so), and the lanes begin at the position all the same.
        """
        for table in self.plan.tables:
            if table.source is None and table.kind != "global":
                check_rows(table.name, store, table.key_serde, table.windows)
        self.store = store
        for name in self.topics:
            self.sources[name] = Source(
                name,
                self.number,
                self._consume_from(name, places[name].offset, store),
                end_offsets.get(name),
                partial(self._on_drained, self, name),
                places[name].topic_id,
                places[name].after,
            )
        self._shown_ms = dict(shown_ms or {})
        self._committed = {name: place.offset for name, place in places.items()}
        self._ahead = {name: dict(place.ahead) for name, place in places.items()}
        for table in self.plan.tables:
            self._states[table.slot] = self._open_table(table, store, global_states)
        asked_at_ms = self._clock.wall_ms() if asked_at_ms is None else asked_at_ms
        self._open_gate(store, places, asked_at_ms)
        for lane_plan in self.plan.lanes:
            sources = [self.sources[topic.name] for topic in lane_plan.topics if topic.name in self.sources]
            topics = tuple(topic for topic in lane_plan.topics if topic.name in self.sources)
            if not sources:
                continue
            lane = Lane(
                lane_plan,
                self.number,
                sources,
                topics,
                [self._begin_of(lane_plan.name, topic.name) for topic in topics],
                self._states,
                pump=self._pump,
                outbox=self._outbox,
                clock=self._clock,
                on_failure=self._on_lane_failure,
                gate=self._gate,
            )
            self.lanes.append(lane)

    def _open_gate(self, store: Store, places: Mapping[str, Place], asked_at_ms: int) -> None:
        """Have the tables that follow topics, if there are any, brought on with the lanes."""
        feeds: list[TableFeed] = []
        for table in self.plan.tables:
            if table.kind == "source" and table.source is not None and table.changelog in self.sources:
                source, stored = self.sources[table.changelog], store.positions().get(table.name)
                state, known_until = self._states[table.slot], places[table.changelog].offset
                fresh = _freshness(stored, asked_at_ms)
                feeds.append(TableFeed(source, table.source.lane_topic(), state, stored, fresh, known_until))
        if not feeds:
            return
        self._gate = TableGate(feeds, self.lanes)
        for feed in feeds:
            if feed.source.end_offset is not None:
                feed.fresh.saw_end(feed.source.end_offset, asked_at_ms, feed.position)
        for source in {feed.source.topic: feed.source for feed in feeds}.values():
            rows = [feed.fresh for feed in feeds if feed.source is source]
            source.fresh = Freshness(min(one.at_ms for one in rows), filling=all(one.filling for one in rows))
            if source.end_offset is not None:
                source.fresh.saw_end(source.end_offset, asked_at_ms, source.position)

    def _begin_of(self, lane: str, topic: str) -> int:
        position = self._committed[topic]
        return max(position, self._ahead.get(topic, {}).get(lane, position))

    def _consume_from(self, topic: str, position: int, store: Store) -> int:
        """Where the consumer begins: at the position, or where a table that follows the topic stands."""
        followers = [table for table in self.plan.tables if table.kind == "source" and table.changelog == topic]
        return min([position, *(_table_position(table, store) for table in followers)])

    def _open_table(self, table: Table[Any, Any], store: Store, global_states: Mapping[str, Any]) -> Any:
        if table.kind == "global":
            return global_states[table.name]
        partitions = self.topology.table_partitions(table.name)
        if self.number >= partitions:
            return Unavailable(
                f"table {table.name} has {partitions} partitions, and this agent runs on partition {self.number}: "
                f"bring the stream "
                f"to the table's partitions with group_by(..., partitions={partitions})"
            )
        check = KeyCheck(table, self.number, partitions)
        state: State
        if table.kind == "source":
            following: TableState[Any, Any] = TableState(
                table.name, store, table.key_serde, checked_when_set(table.value_serde)
            )
            following.on_absent_key = lambda key: check.on_absent_key_beside(key, following.some_keys)
            self._durable.append((table, following))
            return ReadOnly(table.name, table.changelog, following, separator(table.value_serde))
        if table.windows is not None:
            state = WindowedState(
                table.name,
                store,
                table.key_serde,
                table.value_serde,
                table.windows,
                on_new_key=check.on_new_key,
                on_absent_key=check.on_absent_key,
                on_late=self.late.listener(table.name),
                on_ahead=self._jumps.listener(table.name),
                watch=True,
                on_given=given_out(table.name),
            )
        else:
            state = table_state = TableState(
                table.name,
                store,
                table.key_serde,
                table.value_serde,
                on_new_key=check.on_new_key,
                on_absent_key=check.on_absent_key,
                watch=True,
            )
            table_state.on_given = given_out(table.name)
        self._durable.append((table, state))
        return state

    def start(self) -> None:
        """Run the lanes' bodies."""
        for lane in self.lanes:
            for number, body in enumerate(lane.bodies()):
                self._scope.spawn(f"{lane.plan.name}/{number}", body)

    def feed(self, topic: str, columns: RecordColumns, next_offset: int, end_offset: int | None) -> None:
        """Records [position, next_offset) of one partition, gaps included. Those below the position are left out."""
        source = self.sources[topic]
        if end_offset is not None:
            source.end_offset = max(end_offset, source.end_offset or 0)
        if next_offset <= source.position:
            return
        batch = Batch(columns, next_offset)
        if columns.offsets and columns.offsets[0] < source.position:
            batch = batch.since(source.position)  # a fetch starts at a batch, which may start before the position
        source.position = next_offset
        if source.fresh is not None:
            source.fresh.reached(next_offset)
        newest_ms = max(columns.timestamps_ms, default=-1)
        self.stream_time_ms = max(self.stream_time_ms, newest_ms)
        for lane in self.lanes:
            for feed in lane.feeds:
                if feed.source is source and lane.failure is None:
                    feed.append(batch)
        if self._gate is not None:
            self._gate.on_data(source, batch)  # sees what waits in the lanes, the new events among them
        for lane in self.lanes:
            lane.on_data()

    def saw_end(self, topic: str, end_offset: int, asked_at_ms: int) -> None:
        """A topic that tables follow ended there (exclusive) at that time."""
        source = self.sources[topic]
        if source.fresh is not None:
            source.fresh.saw_end(end_offset, asked_at_ms, source.position)
        for feed in self._gate.feeds if self._gate is not None else ():
            if feed.source is source:
                feed.fresh.saw_end(end_offset, asked_at_ms, feed.position)

    def ends_due(self) -> list[str]:
        """Topics that tables follow, and whose end somebody should ask for now; see `freshness.py`."""
        now_ms = self._clock.wall_ms()
        return [
            name
            for name, source in self.sources.items()
            if source.fresh is not None and source.fresh.due(now_ms, self._shown_ms_of(name))
        ]

    def missed(self, topic: str) -> bool:
        """Whether a table that follows the topic may miss a deletion when it reads on."""
        fresh = self.sources[topic].fresh
        return fresh is not None and fresh.missed(self._clock.wall_ms(), self._shown_ms_of(topic))

    def _shown_ms_of(self, topic: str) -> int:
        return self._shown_ms.get(topic, DELETE_RETENTION_MS)

    def buffered(self, topic: str) -> int:
        """Events of the topic that wait for the slowest lane."""
        source = self.sources[topic]
        return max(
            (feed.buffered for lane in self.lanes for feed in lane.feeds if feed.source is source),
            default=0,
        )

    @property
    def dirty_full(self) -> bool:
        """Whether changed rows alone fill a table's cache: only a commit makes room."""
        return any(state.dirty_full for _, state in self._durable)

    def state_of(self, table: Table[Any, Any]) -> Any:
        """This task's part of a table; None before `open`."""
        return self._states[table.slot]

    def committed_offset(self, topic: str) -> int:
        """Exclusive end of what is committed of a topic, as far as this task knows."""
        return self._committed[topic]

    # --- commit ---------------------------------------------------------------------------------------------------

    def committable(self) -> dict[str, int]:
        """Per topic: exclusive end of what every reader has processed."""
        return self._committable(self._progress())

    @property
    def uncommitted_events(self) -> int:
        """Offsets that are processed and not committed: what a new life of the task would process again."""
        return sum(max(end - self._committed.get(name, end), 0) for name, end in self.committable().items())

    def _progress(self) -> dict[str, dict[str, int]]:
        """Per topic and lane: exclusive end of what the lane has processed."""
        progress: dict[str, dict[str, int]] = {}
        for lane in self.lanes:
            for feed in lane.feeds:
                progress.setdefault(feed.source.topic, {})[lane.plan.name] = lane.committable(feed)
        return progress

    def _committable(self, progress: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
        ends = {name: min(lanes.values()) for name, lanes in progress.items()}
        if self._gate is not None:
            for table_feed in self._gate.feeds:
                end, name = max(table_feed.position, table_feed.known_until), table_feed.source.topic
                ends[name] = min(end, ends.get(name, end))
        return ends

    def begin_commit(self) -> TaskCommit:
        """What is to be committed now: nothing, once a row cannot be written. One commit at a time; end it with
        `committed` or `abandon`."""
        if self._unwritable:
            return TaskCommit(self, {}, {}, [], {})
        progress = self._progress()
        ends = self._committable(progress)
        lanes_ahead = {
            name: {lane: at for lane, at in progress.get(name, {}).items() if at > end} for name, end in ends.items()
        }
        offsets = {
            name: end
            for name, end in ends.items()
            if end != self._committed.get(name) or lanes_ahead[name] != self._ahead.get(name, {})
        }
        dirty: list[tuple[Table[Any, Any], State, DirtyRows]] = []
        rows_at_ms = min(max(self.stream_time_ms, 0), TIMESTAMP_DISTANCE_MS_MAX)  # what a changelog takes
        held: defaultdict[str, set[Any]] = defaultdict(set)
        for lane in self.lanes:
            for cursor in lane.cursors:
                for name, key in cursor.rows_in_hands:
                    held[name].add(key)
        try:
            for table, state in self._durable:
                dirty.append((table, state, state.take_dirty(rows_at_ms, held[table.name])))
        except Exception as error:
            for _, state, rows in dirty:
                state.abandon(rows)
            if not isinstance(error, SerdeError):
                raise
            self.hold(error)
            return TaskCommit(self, {}, {}, [], {})
        followed: dict[str, Position] = {}
        for feed in self._gate.feeds if self._gate is not None else ():
            stands = feed.stands()
            if stands != feed.committed:
                followed[feed.table] = stands
        return TaskCommit(self, offsets, {name: lanes_ahead[name] for name in offsets}, dirty, followed)

    def hold(self, error: StreamlogError) -> None:
        """A row cannot be written: it was changed in place, after it was set, to what its type is not, or its changelog
        does not take it. It came from events that are over, and a new life of the task would process them to the same
        end: so it stands still, offsets held."""
        self._unwritable = True
        for lane in self.lanes:
            if lane.failure is None:
                lane.stop(error)

    def batch_of(self, commit: TaskCommit, changelog_ends: Mapping[str, Position]) -> CommitBatch:
        """The store's part of a commit. `changelog_ends`: by table, where its rows ended up."""
        batch = CommitBatch()
        for table, _, rows in commit.dirty:
            rows.add_to(batch)
            if table.kind != "source" and table.name in changelog_ends:
                batch.positions[table.name] = changelog_ends[table.name]
            elif table.name in commit.followed:
                batch.positions[table.name] = commit.followed[table.name]
        for name, end in commit.offsets.items():
            source = self.sources[name]
            progress = Progress(self.life, source.after, ahead=commit.ahead[name])
            batch.source_offsets[(name, self.number)] = SourceOffset(
                end, source.topic_id, metadata=encode_progress(progress)
            )
        return batch

    def metadata(self, commit: TaskCommit, topic: str) -> str:
        """What goes beside the topic's offset to the group."""
        topic_id = self.sources[topic].topic_id
        name = "" if topic_id is None else topic_id.hex
        return encode_progress(Progress(self.life, topic=name, ahead=commit.ahead[topic]))

    def committed(self, commit: TaskCommit) -> None:
        """The commit is in the store."""
        for _, state, rows in commit.dirty:
            state.committed(rows)
        self._committed.update(commit.offsets)
        self._ahead.update(commit.ahead)
        for feed in self._gate.feeds if self._gate is not None else ():
            feed.committed = commit.followed.get(feed.table, feed.committed)

    def abandon(self, commit: TaskCommit) -> None:
        """The commit failed before the store: its rows are dirty again."""
        for _, state, rows in commit.dirty:
            state.abandon(rows)

    # --- the end --------------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> bool:
        """End the streams and wait for the events in hand. False: a body did not come to an end in time.

        Whatever it returns, what is committable is consistent; events that did not end will be processed again.
        """
        for lane in self.lanes:
            lane.end()
        try:
            async with asyncio.timeout(timeout_s):
                for lane in self.lanes:
                    await lane.quiet()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Cancel the bodies and wait for them; they get to run their `finally`."""
        for lane in self.lanes:
            lane.end()
        await self._scope.close()

    def _on_lane_failure(self, lane: Lane, failure: LaneFailure, policy: Policy) -> None:
        if isinstance(policy, Stop):
            named = [one for one in self.failures if (one.agent, one.topic) == (failure.agent, failure.topic)]
            source = self.sources[failure.topic]
            source.stopped = True  # for every reader: their progress counts for nothing while the offset is held
            for other in self.lanes:
                if other is not lane and any(feed.source is source for feed in other.feeds):
                    other.halt()
                if other is lane:
                    for feed in other.feeds:
                        feed.clear()
            if named and named[0].offset <= failure.offset:
                return  # a body beside the one that stopped the partition
            self.failures = [one for one in self.failures if one not in named] + [failure]
        self._on_failure(self, failure, policy)


class ReadOnly:
    """A table that follows a topic, as agents see it: each look at a row gives a value of its own, as each record does,
    since a row that one body changes would be another's, and the commit's."""

    __slots__ = ("_name", "_topic", "contains", "get", "items", "keys", "state", "values")

    def __init__(
        self, name: str, topic: str, state: TableState[Any, Any], separate: Callable[[Any], Any] | None
    ) -> None:
        """`separate`: see `serde.separator`."""
        self._name, self._topic, self.state = name, topic, state
        self.contains, self.keys = state.contains, state.keys
        self.get, self.items, self.values = state.get, state.items, state.values
        if separate is not None:
            self.get = partial(_separate_row, state.get, separate)
            self.items = lambda: ((key, separate(value)) for key, value in state.items())
            self.values = lambda: map(separate, state.values())

    def offer(self, key: Any, default: Callable[[], Any]) -> Any:
        return default()

    def set(self, key: Any, value: Any) -> None:
        raise UserError(
            f"table {self._name} follows topic {self._topic} and cannot be written: send a record to the topic instead"
        )

    def delete(self, key: Any) -> None:
        self.set(key, None)


def _separate_row(get: Callable[[Any, Any], Any], separate: Callable[[Any], Any], key: Any, default: Any = None) -> Any:
    value = get(key, MISSING)
    return default if value is MISSING else separate(value)


def _table_position(table: Table[Any, Any], store: Store) -> int:
    """How far the rows of a table that follows a topic reach; a table without a position is empty."""
    position = store.positions().get(table.name)
    return 0 if position is None else position.offset


def _freshness(stored: Position | None, asked_at_ms: int) -> Freshness:
    """Of rows that reach `stored`, in a log that is read on from `asked_at_ms`."""
    if stored is None:
        return Freshness(asked_at_ms, filling=True)
    return Freshness(stored.at_ms if stored.at_ms >= 0 else asked_at_ms)
