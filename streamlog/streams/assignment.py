"""The tasks of one worker: made when the group assigns partitions, opened beside the running ones, given up when it
says.

The group's callbacks come here. `on_assigned` makes tasks and returns at once; each is opened by an asyncio task of its
own, which restores its state, tries again while the broker is away, and lets its partitions flow when it is done.
`on_revoked`
is the only one that takes time: it drains and commits, within a bound, because nobody else may have the partitions
before. `on_lost` commits nothing: the partitions are another's already.

Tasks that begin again, because something of them was lost on the way, are closed and made outside of the callbacks.
Each such change of who is there is finished before the next one begins (`_changing`): a task that is made while its
partitions go to another worker would be nobody's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from streamlog.client.consumer import Consumer
from streamlog.client.values import OffsetAndMetadata, TopicPartition
from streamlog.env import Env, Scope
from streamlog.errors import EnvironmentFailure, StreamlogError
from streamlog.state.directory import StateDirectory
from streamlog.state.freshness import LOOK_MS_MIN
from streamlog.state.logs import LogState, plan
from streamlog.state.opening import close_stores, open_store
from streamlog.state.store import Store, StoreEngine
from streamlog.state.threads import in_thread
from streamlog.streams.commit import CommitFailed, Committer
from streamlog.streams.context import Outbox
from streamlog.streams.deletions import Deletions
from streamlog.streams.failing import LaneFailure
from streamlog.streams.places import Place, SourceLog, place_of
from streamlog.streams.plan import Plan
from streamlog.streams.policies import Policy
from streamlog.streams.pump import Pump
from streamlog.streams.settings import RETRY_BACKOFF_S_FIRST, RETRY_BACKOFF_S_MAX, Settings
from streamlog.streams.status import RestoreStatus
from streamlog.streams.task import Task, TaskState
from streamlog.streams.topology import Topology

log = logging.getLogger(__name__)


class Restore(Protocol):
    """Brings the tables of one task up to date."""

    async def restore(self, task: Task, store: Store) -> None:
        """Until the task's tables are at the end of their changelogs.

        Cancelling leaves the store consistent.
        """
        ...

    def progress(self, number: int) -> Sequence[RestoreStatus]: ...


class Assignment:
    """See the module's essay. All of it on one event loop."""

    def __init__(
        self,
        plan: Plan,
        topology: Callable[[], Topology],
        *,
        env: Env,
        settings: Settings,
        engine: StoreEngine,
        directory: StateDirectory,
        committer: Committer,
        restore: Restore,
        deletions: Deletions,
        pump: Pump,
        outbox: Outbox,
        global_states: Mapping[str, Any],
        on_failure: Callable[[Task, LaneFailure, Policy], None],
        on_crash: Callable[[BaseException], None],
        on_lost: Callable[[], None],
        ready: asyncio.Event,
    ) -> None:
        """
        Args: topology: asked for each new task.
              on_lost: all tasks that there were belong to others, and are closed.
              ready: set when tasks may process events; until then they restore and wait.
        """
        self.tasks: dict[int, Task] = {}  # ours, whatever their state but CLOSED
        self.errors: dict[int, str] = {}  # why a task could not be opened at the last attempt
        self.gone: frozenset[str] = frozenset()  # topics that the app reads and that do not exist; see `lacking`
        self._plan, self._topology = plan, topology
        self._env, self._settings = env, settings
        self._engine, self._directory = engine, directory
        self._committer, self._restore, self._deletions = committer, restore, deletions
        self._pump, self._outbox, self._global_states = pump, outbox, global_states
        self._on_failure, self._on_crash = on_failure, on_crash
        self._on_lost = on_lost
        self._ready = ready
        self._consumer: Consumer | None = None
        self._epoch = 0  # of the last task made
        self._openings: dict[int, asyncio.Task[None]] = {}
        self._paused: dict[TopicPartition, None] = {}  # running, and their lanes have enough for now
        self._changing = asyncio.Lock()  # held while tasks are made and closed
        self._scope = Scope("assignment", on_crash)

    def use(self, consumer: Consumer) -> None:
        """Tasks belong to this consumer from now on; there are none yet."""
        assert not self.tasks, "tasks of the consumer before were given up"
        self._consumer = consumer
        self._paused.clear()

    @property
    def running(self) -> list[Task]:
        """Tasks that process events, by number."""
        return [task for _, task in sorted(self.tasks.items()) if task.state is TaskState.RUNNING]

    # --- the group's callbacks ------------------------------------------------------------------------------------

    async def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        numbers = sorted({one.partition for one in partitions})
        async with self._changing:
            # A task can get more partitions when another version of the app, which read fewer topics, left the group.
            await self._close([self.tasks[number] for number in numbers if number in self.tasks], commit=True)
            for number in numbers:
                self._begin(number, pause_s=0)
            for number in self._left_over():
                self._begin(number, pause_s=0)

    @property
    def lacking(self) -> bool:
        """Whether partitions of a task are ours and others of it are not: a topic was deleted, or a worker of another
        version of the app has them."""
        owned = set(self._need_consumer().assignment())
        return any(self._all_partitions(number) - owned for number in {one.partition for one in owned})

    def _without(self, number: int) -> frozenset[str]:
        """Topics that do not exist, and that the task goes on without."""
        owned = set(self._need_consumer().assignment())
        left_out = frozenset(one.topic for one in self._all_partitions(number) - owned if one.topic in self.gone)
        return left_out if self._topology().held_without(left_out) is None else frozenset()

    def _left_over(self) -> list[int]:
        """Numbers of partitions that are ours and of no task: it was closed when a topic that it read was deleted, and
        can go on with the others."""
        owned = {one.partition for one in self._need_consumer().assignment()}
        return sorted(number for number in owned if number not in self.tasks and self._without(number))

    async def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        await self._give_up(partitions, commit=True)

    async def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        await self._give_up(partitions, commit=False)
        if not self.tasks:
            self._on_lost()

    async def _give_up(self, partitions: Sequence[TopicPartition], *, commit: bool) -> None:
        numbers = sorted({one.partition for one in partitions})
        async with self._changing:
            await self._close([self.tasks[number] for number in numbers if number in self.tasks], commit=commit)

    async def lose_all(self) -> None:
        """The consumer is gone: so are the tasks."""
        async with self._changing:
            await self._close(list(self.tasks.values()), commit=False)

    async def close(self) -> None:
        """End what still runs, without a commit."""
        await self.lose_all()
        await self._scope.close()

    async def follow_again(self, task: Task, why: str) -> None:
        """Begin this task again where its topics are now. What it has processed is committed."""
        async with self._changing:
            if self.tasks.get(task.number) is task:
                log.warning("task=%d state=resetting: %s", task.number, why)
                await self._begin_again([task], pause_s=0, commit=True)

    async def reset(self, tasks: Sequence[Task], why: Exception, pause_s: float = RETRY_BACKOFF_S_FIRST) -> int:
        """Begin these tasks again at what is committed, after a pause: their outputs were lost on the way.

        Returns: how many events were processed that will be processed again.
        """
        again = 0
        async with self._changing:
            mine = [task for task in tasks if self.tasks.get(task.number) is task]
            for task in mine:
                uncommitted = task.uncommitted_events
                again += uncommitted
                log.warning("task=%d state=resetting events_again=%d: %s", task.number, uncommitted, why)
            await self._begin_again(mine, pause_s=pause_s, commit=False)
        return again

    async def _begin_again(self, tasks: Sequence[Task], *, pause_s: float, commit: bool) -> None:
        owned = set(self._need_consumer().assignment())
        self._need_consumer().pause([one for task in tasks for one in self._partitions(task) if one in owned])
        await self._close(tasks, commit=commit)
        owned = set(self._need_consumer().assignment())
        for task in tasks:
            if owned.issuperset(self._partitions(task)):  # otherwise the consumer has failed meanwhile
                self._begin(task.number, pause_s=pause_s)

    # --- opening --------------------------------------------------------------------------------------------------

    def _begin(self, number: int, pause_s: float) -> None:
        self._epoch += 1
        task = Task(
            self._plan,
            self._topology(),
            number,
            self._epoch,
            without=self._without(number),
            life=self._env.entropy.uuid4().hex,
            pump=self._pump,
            outbox=self._outbox,
            clock=self._env.clock,
            on_failure=self._on_failure,
            on_crash=self._on_crash,
            on_drained=self._on_drained,
        )
        self.tasks[number] = task
        owned = set(self._need_consumer().assignment())
        self._need_consumer().pause([one for one in self._partitions(task) if one in owned])
        task.move_to(TaskState.RESTORING)
        self._openings[number] = self._scope.spawn(f"open-{number}", self._open(task, pause_s))

    async def _open(self, task: Task, pause_s: float) -> None:
        """Open the task, however often it takes. Cancelling leaves its store closed."""
        while True:
            if pause_s:
                await asyncio.sleep(pause_s)
            try:
                await self._try_open(task)
            except StreamlogError as error:
                pause_s = min(max(2 * pause_s, RETRY_BACKOFF_S_FIRST), RETRY_BACKOFF_S_MAX)
                self.errors[task.number] = str(error)
                log.warning("task=%d state=restoring retry_in=%.1fs: %s", task.number, pause_s, error)
            else:
                self.errors.pop(task.number, None)
                self._openings.pop(task.number, None)
                return

    async def _try_open(self, task: Task) -> None:
        consumer = self._need_consumer()
        path = self._directory.task_path(str(task.number))
        store = task.store = await open_store(self._engine, self._env, path)  # from now on readable, and behind
        try:
            partitions = self._partitions(task)
            found = await consumer.committed(partitions)
            committed = {one.topic: offset for one, offset in found.items() if offset is not None}
            await self._restore.restore(task, store)
            await self._ready.wait()
            asked_at_ms = self._env.clock.wall_ms()
            shown_ms = {name: await self._deletions.shown_ms(name) for name in self._followed(task)}
            found_ends = await consumer.end_offsets(partitions) if shown_ms else {}
            ends = {one.topic: end for one, end in found_ends.items()}
            places, sources = await self._places(task, partitions, committed, store)
            for name, kept_ms in shown_ms.items():
                await self._drop_outdated(task, name, sources[name], store, ends[name], asked_at_ms, kept_ms)
            left = set(partitions) - set(consumer.assignment())
            if left:
                raise EnvironmentFailure(f"{', '.join(map(str, sorted(left)))} went elsewhere meanwhile")
            task.open(store, places, ends, self._global_states, shown_ms=shown_ms, asked_at_ms=asked_at_ms)
            for one in partitions:
                consumer.seek(one, task.sources[one.topic].position)
            consumer.resume(partitions)
        except BaseException:
            task.store = None
            await close_stores(self._env, [store])
            raise
        task.move_to(TaskState.RUNNING)
        task.start()
        begins = {name: place.offset for name, place in places.items()}
        log.info("task=%d epoch=%d state=running positions=%s", task.number, task.epoch, begins)

    async def _places(
        self,
        task: Task,
        partitions: Sequence[TopicPartition],
        committed: Mapping[str, OffsetAndMetadata],
        store: Store,
    ) -> tuple[dict[str, Place], dict[str, SourceLog]]:
        """Where processing begins in each topic's partition, and what it is like just now."""
        consumer = self._need_consumer()
        starts = await consumer.beginning_offsets(partitions)
        last = await consumer.end_offsets(partitions, isolation_level="read_uncommitted")
        stored = store.source_offsets()
        places: dict[str, Place] = {}
        sources: dict[str, SourceLog] = {}
        for one in partitions:
            source = sources[one.topic] = SourceLog(starts[one], last[one], consumer.topic_id(one.topic))
            place = place_of(committed.get(one.topic), stored.get((one.topic, one.partition)), source)
            if place.notice is not None:
                log.warning("partition=%s %s", one, place.notice)
            places[one.topic] = place
        return places, sources

    def _followed(self, task: Task) -> list[str]:
        """Topics of the task that tables follow."""
        followed = {table.changelog for table in self._plan.tables if table.kind == "source"}
        return [name for name in task.topics if name in followed]

    async def _drop_outdated(
        self, task: Task, topic: str, source: SourceLog, store: Store, end_offset: int, asked_at_ms: int, shown_ms: int
    ) -> None:
        """Empty the tables that follow the topic, if their rows are of another topic of that name, or may have missed
        a deletion. They are filled as on an empty disk, from the topic's beginning, and lanes begin where they would.

        Args: end_offset: as consumers may see it, at `asked_at_ms`.
        """
        for table in self._plan.tables:
            if table.kind != "source" or table.changelog != topic:
                continue
            position = store.positions().get(table.name)
            if position is None:
                continue
            if position.offset >= end_offset:
                position = replace(position, at_ms=asked_at_ms)
            known = LogState(source.start_offset, source.end_offset, source.topic_id)
            why = plan(position, known, self._env.clock.wall_ms(), shown_ms).rebuild
            if why is not None:
                log.warning("table=%s partition=%d state=rebuilding reason=%s", table.name, task.number, why)
                await in_thread(self._env, partial(store.drop_table, table.name))

    async def look_at_ends_forever(self) -> None:
        """Ask now and then for the ends of topics that tables follow. A table that is at its topic's end has missed
        nothing up to then, however old its last row is."""
        while True:
            await asyncio.sleep(LOOK_MS_MIN / 1000)
            for task in self.running:
                for topic in task.ends_due():
                    try:
                        await self._look_at_end(task, topic)
                    except StreamlogError as error:
                        log.debug("partition=%s-%d its end cannot be seen: %s", topic, task.number, error)

    async def _look_at_end(self, task: Task, topic: str) -> None:
        one = TopicPartition(topic, task.number)
        asked_at_ms = self._env.clock.wall_ms()
        ends = await self._need_consumer().end_offsets([one])
        if task.state is TaskState.RUNNING:
            task.saw_end(topic, ends[one], asked_at_ms)

    # --- flow -----------------------------------------------------------------------------------------------------

    def throttle(self, task: Task, topic: str) -> None:
        """Stop fetching a partition whose slowest lane has enough to do."""
        if task.buffered(topic) > self._settings.buffered_events_max:
            partition = TopicPartition(topic, task.number)
            if partition not in self._paused:
                self._paused[partition] = None
                self._need_consumer().pause([partition])

    def _on_drained(self, task: Task, topic: str) -> None:
        partition = TopicPartition(topic, task.number)
        if partition in self._paused and task.buffered(topic) <= self._settings.buffered_events_max // 2:
            del self._paused[partition]
            if task.state is TaskState.RUNNING:
                self._need_consumer().resume([partition])

    # --- closing --------------------------------------------------------------------------------------------------

    async def _close(self, tasks: Sequence[Task], *, commit: bool) -> None:
        """Close tasks; with `commit`, after draining and committing them. Takes at most the drain timeout and a commit.

        Cancelled meanwhile, it closes them all the same, without the commit: a store that nobody closes stays locked.
        """
        for task in tasks:
            self.tasks.pop(task.number, None)
            self.errors.pop(task.number, None)
            for one in self._partitions(task):
                self._paused.pop(one, None)
        openings = [self._openings.pop(task.number) for task in tasks if task.number in self._openings]
        for opening in openings:
            opening.cancel()
        try:
            if openings:
                await asyncio.wait(openings)
            if commit:
                await self._finish([task for task in tasks if task.state is TaskState.RUNNING])
        finally:
            await self._end(tasks)

    async def _finish(self, tasks: Sequence[Task]) -> None:
        """Drain running tasks and commit them."""
        for task in tasks:
            task.move_to(TaskState.REVOKING)
        drained = await asyncio.gather(*(task.drain(self._settings.drain_timeout_s) for task in tasks))
        for task, clean in zip(tasks, drained, strict=True):
            if not clean:
                log.warning(
                    "task=%d state=revoking: a body did not end its event within %g s; it will be processed again",
                    task.number,
                    self._settings.drain_timeout_s,
                )
        if tasks:
            await self._last_commit(tasks)

    async def _end(self, tasks: Sequence[Task]) -> None:
        """Cancel the bodies and close the stores, all at once."""
        for task in tasks:
            task.move_to(TaskState.CLOSED)
            await task.stop()
        stores = [task.store for task in tasks if task.store is not None]
        try:
            await close_stores(self._env, stores)
        except StreamlogError as error:
            log.warning("a store did not close cleanly: %s", error)
        for task in tasks:
            self._directory.closed(str(task.number))
            log.info("task=%d epoch=%d state=closed", task.number, task.epoch)

    async def _last_commit(self, tasks: Sequence[Task]) -> None:
        try:
            await self._committer.commit(lambda: tasks)
        except Exception as error:
            log.warning(
                "tasks=%s last commit failed, their events will be processed again: %s",
                ",".join(str(task.number) for task in tasks),
                error,
            )
            if not isinstance(error, CommitFailed | StreamlogError):
                self._on_crash(error)  # a bug of ours; the tasks are given up all the same

    def _partitions(self, task: Task) -> list[TopicPartition]:
        return [TopicPartition(topic, task.number) for topic in task.topics]

    def _all_partitions(self, number: int) -> set[TopicPartition]:
        topology = self._topology()
        return {TopicPartition(name, number) for name in topology.consumed if number < topology.partitions(name)}

    def _need_consumer(self) -> Consumer:
        assert self._consumer is not None, "partitions come from a consumer"
        return self._consumer
