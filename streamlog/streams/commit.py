"""The commit of a worker: outputs and changelogs acknowledged, then stores, then the group's offsets, in that order.

All tasks commit together: one flush, one offset commit. What is committed is the state as of the moment the commit
began; events are processed on while it is under way, and belong to the next.

    1. take       committable offsets and changed rows of every task, in one stretch without an await
    2. outputs    until all of them are acknowledged (they were appended as they happened)
    3. rows       to the changelogs, until they are acknowledged
    4. store      rows, changelog positions and source offsets, one atomic batch per task, beside the event loop
    5. offsets    to the group

Interrupted anywhere, what was processed is at worst processed again: after 3 the changelog is ahead of the store and is
replayed into it; after 4 the store is ahead of the group, and a restart on the same disk begins at the store's offsets.

Rows are sent when nothing of the commit can be refused any more. Before 3 the tables are untouched, so an output that
is lost costs nothing but repetition: the tasks begin again at what is committed, and count nothing twice. Rows that
were not taken are rows of the next commit: they are what the table says, however often one says it. A row that its
changelog cannot take holds its own task, before anything of it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from streamlog.client.accumulator import shown
from streamlog.client.values import OffsetAndMetadata, TopicPartition
from streamlog.env import Clock, Offload
from streamlog.errors import StreamlogError, UserError
from streamlog.state.store import Position
from streamlog.streams.context import Outbox
from streamlog.streams.tables import Table
from streamlog.streams.task import Task, TaskCommit, TaskState


class Acknowledged(Protocol):
    """Where the log stands, as far as this worker's own records are concerned."""

    def acked_offset(self, partition: TopicPartition) -> int | None:
        """Exclusive end of what we wrote to the partition and was acknowledged; None when we wrote nothing."""
        ...


@dataclass(slots=True)
class CommitStats:
    """What the last commit did, for `status` and metrics."""

    count: int = 0
    rows: int = 0
    took_ms: int = 0
    """Of the last commit, in all."""
    work_ms: int = 0
    """What of that kept the event loop: taking and appending rows."""
    at_ms: int = 0
    failures: int = 0


ROW_OVERHEAD_BYTES = 128
"""What a record and its batch add to key and value, at most: smaller rows than that fit for certain."""


class CommitFailed(Exception):
    """Outputs did not arrive, or a store could not be written: nothing of these tasks was committed, and they have to
    begin again. `of_rows`: rows of tables did not arrive; nobody begins again, the next commit sends them."""

    def __init__(self, tasks: Sequence[Task], cause: Exception, *, of_rows: bool = False) -> None:
        super().__init__(str(cause))
        self.tasks = [] if of_rows else list(tasks)
        self.cause = cause
        self.of_rows = of_rows


class Committer:
    """Commits tasks, one commit at a time."""

    def __init__(
        self,
        outbox: Outbox,
        acknowledged: Acknowledged,
        commit_offsets: Callable[[Mapping[TopicPartition, OffsetAndMetadata]], Awaitable[None]],
        clock: Clock,
        offload: Offload,
    ) -> None:
        self.stats = CommitStats()
        self.in_group: dict[TopicPartition, tuple[str, int]] = {}
        """Which life of its task had which offset taken by the group last, exclusive."""
        self._outbox = outbox
        self._acknowledged = acknowledged
        self._commit_offsets = commit_offsets
        self._clock = clock
        self._offload = offload
        self._lock = asyncio.Lock()  # a revocation commits too, beside the regular commits
        self._owed: dict[
            TopicPartition, tuple[Task, OffsetAndMetadata]
        ] = {}  # in the store, and the group did not take them yet

    async def commit(self, tasks: Callable[[], Sequence[Task]]) -> bool:
        """Commit what `tasks` gives once it is our turn. Whether there was anything to commit.

        Raises: CommitFailed: at any step before the group's offsets. StreamlogError: the group did not take the
                offsets; the stores have them, and the next commit tries again. Anything else is a bug of ours, and
                the worker's end.
        Cancelling leaves the rows dirty, or committed in the store but not in the group.
        """
        async with self._lock:
            began_ms = self._clock.mono_ms()
            began_at_ms = self._clock.wall_ms()
            commits = await self._acknowledge(list(tasks()))
            failure = await self._store(commits, began_at_ms)
            await self._offsets()
            self.stats.count += 1
            self.stats.at_ms = self._clock.wall_ms()
            self.stats.took_ms = self._clock.mono_ms() - began_ms
            if failure is not None:
                raise failure
            return any(not commit.empty for commit in commits)

    async def _acknowledge(self, tasks: Sequence[Task]) -> list[TaskCommit]:
        """Take what is to be committed, and wait until the log has it."""
        commits: list[TaskCommit] = []
        began_ns = self._clock.mono_ns()
        of_rows = False
        try:
            for task in tasks:
                commit = task.begin_commit()
                problem = self._oversized(commit)
                if problem is None:
                    commits.append(commit)
                else:
                    task.abandon(commit)
                    task.hold(problem)
            work_ns = self._clock.mono_ns() - began_ns
            await self._outbox.flush()
            of_rows = True
            # Who was given up meanwhile has lost its changelogs to another worker.
            commits = [commit for commit in commits if commit.task.state is not TaskState.CLOSED]
            began_ns = self._clock.mono_ns()
            rows = self._append(commits)
            self.stats.work_ms = (work_ns + self._clock.mono_ns() - began_ns) // 1_000_000
            if rows:
                await self._outbox.flush_rows()
            self.stats.rows += rows
        except BaseException as error:
            for commit in commits:
                commit.task.abandon(commit)
            self.stats.failures += 1
            if isinstance(error, StreamlogError):
                raise CommitFailed(tasks, error, of_rows=of_rows) from error
            raise  # anything else is a bug: begun again, the task would most likely meet it again
        return commits

    def _oversized(self, commit: TaskCommit) -> UserError | None:
        """What to say of a row that is too large for its changelog, if there is one."""
        for table, _, dirty in commit.dirty:
            if table.kind == "source" or not dirty.rows:
                continue
            limit = self._outbox.row_bytes_max(table.changelog)
            fits = limit - ROW_OVERHEAD_BYTES
            for key, value, _ in dirty.rows:
                if value is not None and len(value) + len(key) > fits:
                    return too_large(table, key, len(value) + len(key), limit)
        return None

    def _append(self, commits: Sequence[TaskCommit]) -> int:
        rows = 0
        for commit in commits:
            for table, _, dirty in commit.dirty:
                if table.kind == "source":
                    continue
                self._outbox.append_rows(table.changelog, commit.task.number, dirty.rows)
                rows += len(dirty.rows)
        return rows

    async def _store(self, commits: Sequence[TaskCommit], began_at_ms: int) -> CommitFailed | None:
        """Write the stores, all at once, beside the event loop. A task whose store fails does not hold up the
        others. `began_at_ms`: wall time before rows were sent; all that changelogs had then is in them."""
        work = [commit for commit in commits if not commit.empty and commit.task.state is not TaskState.CLOSED]
        done: list[BaseException | None] = []
        try:
            done = await asyncio.gather(*(self._write(commit, began_at_ms) for commit in work), return_exceptions=True)
        except asyncio.CancelledError:
            for commit in commits:
                commit.task.abandon(commit)
            raise
        failed: list[Task] = []
        cause: StreamlogError | None = None
        bug: BaseException | None = None
        results = dict(zip(map(id, work), done, strict=True))
        for commit in commits:
            error = results.get(id(commit))
            task = commit.task
            if error is None:
                task.committed(commit)
                for topic, end in commit.offsets.items():
                    offset = OffsetAndMetadata(end, metadata=task.metadata(commit, topic))
                    self._owed[TopicPartition(topic, task.number)] = (task, offset)
                continue
            task.abandon(commit)
            if task.state is not TaskState.CLOSED:  # closed meanwhile, because it was lost: nobody waits for it
                if isinstance(error, StreamlogError):
                    failed.append(task)
                    cause = error
                else:
                    bug = error
        if bug is not None:
            raise bug
        if cause is None:
            return None
        self.stats.failures += 1
        return CommitFailed(failed, cause)

    async def _write(self, commit: TaskCommit, began_at_ms: int) -> None:
        task = commit.task
        ends: dict[str, Position] = {}
        for table, _, dirty in commit.dirty:
            end = self._acknowledged.acked_offset(TopicPartition(table.changelog, task.number))
            if dirty.rows and table.kind != "source" and end is not None:
                ends[table.name] = Position(end, at_ms=began_at_ms)
        assert task.store is not None, "a task commits while its store is open"
        await self._offload.run(partial(task.store.commit, task.batch_of(commit, ends)))

    async def _offsets(self) -> None:
        owed = {one: offset for one, (task, offset) in self._owed.items() if task.state is not TaskState.CLOSED}
        if owed:
            await self._commit_offsets(owed)
            self.in_group |= {one: (self._owed[one][0].life, offset.offset) for one, offset in owed.items()}
        self._owed.clear()


def too_large(table: Table[Any, Any], key: bytes, row_bytes: int, limit_bytes: int) -> UserError:
    """Why nothing of a task is committed any more, and what can be done."""
    return UserError(
        f"table {table.name}: the row of key {shown(key)} has become {row_bytes} bytes, and its changelog "
        f"{table.changelog} takes records of {limit_bytes} (max.message.bytes). To let it take more: streamlog topics "
        f"alter {table.changelog} --config max.message.bytes={_next_size(row_bytes)}; or keep less in one row, as with "
        f"more keys, or windows. Nothing of this partition is committed until then, and nothing of it is lost"
    )


def _next_size(row_bytes: int) -> int:
    """A limit with room for a row of this size to grow, as people write them."""
    return 1 << (2 * row_bytes).bit_length()
