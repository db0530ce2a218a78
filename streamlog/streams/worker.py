"""`Worker`: runs an app against a broker until it is told to stop.

    new --> starting --> running --> stopping --> stopped

It owns the clients, the state directory and what lives off them: the intake (records to tasks), the commit loop, what
runs beside the streams, and whatever opens tasks. What one of them cannot do because the broker is away it does later:
the worker says so in a log line and in its status, and goes on by itself.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias

from streamlog.client.admin import Admin
from streamlog.client.config import ConnectionSettings
from streamlog.client.delivery import OnAppendFailure
from streamlog.client.lease import Lease
from streamlog.client.producer import Producer
from streamlog.client.values import OffsetAndMetadata, TopicPartition
from streamlog.env import Env, Scope
from streamlog.errors import StreamlogError
from streamlog.state.consumer_reader import ConsumerReader
from streamlog.state.directory import StateDirectory
from streamlog.state.restore import Restorer
from streamlog.state.rocksdb import RocksEngine
from streamlog.state.store import StoreEngine
from streamlog.streams import answering
from streamlog.streams.answering import AnswerSender
from streamlog.streams.assignment import Assignment
from streamlog.streams.assignor import MemberData
from streamlog.streams.beside import Beside
from streamlog.streams.channels import Channels
from streamlog.streams.closing import quietly
from streamlog.streams.commit import Committer
from streamlog.streams.committing import CommitLoop
from streamlog.streams.context import Cell, Outside
from streamlog.streams.deletions import Deletions
from streamlog.streams.failing import LaneFailure
from streamlog.streams.globals import GlobalTables
from streamlog.streams.growth import Growth
from streamlog.streams.intake import Intake
from streamlog.streams.local_queries import LocalReader, local_readers
from streamlog.streams.outbox import ProducerOutbox
from streamlog.streams.plan import Plan
from streamlog.streams.policies import Policy, Retry, Stop
from streamlog.streams.provision import partition_counts, provide_topics
from streamlog.streams.pump import Pump
from streamlog.streams.purge import Purge
from streamlog.streams.replies import Replies
from streamlog.streams.restoring import TableRestore
from streamlog.streams.retention import RetentionWatch
from streamlog.streams.settings import METADATA_MAX_AGE_MS, RETRY_BACKOFF_S_FIRST, SESSION_TIMEOUT_MS, Settings
from streamlog.streams.status import WorkerStatus, task_status
from streamlog.streams.task import Task
from streamlog.streams.timers import BackgroundTask, Timer, Work
from streamlog.streams.topology import Topology

log = logging.getLogger(__name__)

MISSING_TOPIC_TIMEOUT_MS = 10_000
"""How long outputs wait for a topic that brokers say does not exist: one that restarts may say so of any."""

LINGER_MS = 5
"""Outputs wait so long for others to share their batch; a commit does not wait for them."""

HARD_STOP_S = 1.0
"""What each thing gets for closing when an orderly stop took too long."""

REMOVE_STALE_S = 60.0
"""How often state of tasks that went elsewhere is looked for."""

State: TypeAlias = Literal["new", "starting", "running", "stopping", "stopped"]


class Program(Protocol):
    """What a worker needs to know of an App."""

    @property
    def id(self) -> str: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def timers(self) -> Sequence[Timer]: ...
    @property
    def tasks(self) -> Sequence[BackgroundTask]: ...
    @property
    def started(self) -> Sequence[Work]: ...
    @property
    def stopping(self) -> Sequence[Work]: ...
    @property
    def cell(self) -> Cell: ...
    def plan(self) -> Plan: ...


class Extension(Protocol):
    """Something that lives as long as a worker, such as its HTTP server."""

    async def open(self, worker: Worker) -> str | None:
        """Called when topics are known and before the group is joined. Returns the endpoint (host:port) at which others
        reach this worker, if it has one: it goes into the group's member data."""
        ...

    async def close(self) -> None: ...


class Worker:
    """See the module's essay. All of it on one event loop; use it as a context manager, or `run` it."""

    def __init__(
        self,
        program: Program,
        *,
        env: Env,
        broker: str,
        data_dir: str,
        engine: StoreEngine | None = None,
        extensions: Sequence[Extension] = (),
        embedded: bool = False,
        create_topics: bool = False,
        connection: ConnectionSettings | None = None,
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
    ) -> None:
        """A worker that has not started.

        Args: broker: "host:port,host:port".
              data_dir: where state lives, shared by the workers of a machine.
              embedded: the log belongs to the app, so that missing topics are simply created.
              create_topics: the same for a log that does not.
        """
        self.program = program
        self.env = env
        self.broker = broker
        self.state: State = "new"
        self.endpoint: str | None = None
        self.process_id = env.entropy.uuid4().hex
        self.failure: BaseException | None = None
        """Why the worker ended by itself; None while it has not."""
        self.plan = program.plan()
        self.assignment: Assignment | None = None
        """The tasks, once the worker has started."""
        self._settings = program.settings
        self._data_dir = data_dir
        self._engine = engine or RocksEngine(env.storage)
        self._extensions = tuple(extensions)
        self._opened: list[Extension] = []
        self._create_declared = embedded or create_topics
        self._embedded = embedded
        self._connection = connection or ConnectionSettings(
            client_id=f"streamlog-{program.id}", metadata_max_age_ms=METADATA_MAX_AGE_MS
        )
        self._session_timeout_ms = session_timeout_ms
        self._lease = Lease(env.clock)  # what tasks send leaves only while the group surely counts us in
        self._ended = asyncio.Event()
        self._scope = Scope("worker", self._on_crash)
        self._beside = Beside(program, env.clock, self._on_crash)  # timers, tasks and hooks
        self._ready = asyncio.Event()  # the group is joined, and the hooks that wait for that have ended
        self._hooks: asyncio.Task[None] | None = None
        self._closers: list[Callable[[], Any]] = []  # of what start has opened, in that order
        self._growth: Growth | None = None
        self._intake: Intake | None = None
        self._commits: CommitLoop | None = None
        self._directory: StateDirectory | None = None
        self.purge: Purge | None = None
        """What deletes processed records of repartition topics and of agents' own, once the worker has started."""
        self._outbox: ProducerOutbox | None = None
        self._committer: Committer | None = None
        self._restore: TableRestore | None = None
        self._replies: Replies | None = None
        self._globals: GlobalTables | None = None

    @property
    def topology(self) -> Topology:
        """Resolved once the worker has started; follows topics that grow."""
        return self.plan.topology if self._growth is None else self._growth.topology

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open everything and join the group. Returns before tasks are running.

        Raises: UserError: the app, its topics or the data directory are not right. EnvironmentFailure: nobody answers
                at the broker's address. What was opened is closed again.
        """
        assert self.state == "new", "a worker starts once"
        self.state = "starting"
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        self.state = "running"
        log.info("app=%s worker=%s state=running broker=%s", self.program.id, self.process_id[:8], self.broker)

    async def stop(self) -> None:
        """Stop fetching, finish the events in hand, commit, leave the group, close the stores. Bounded; idempotent."""
        if self.state not in ("running", "starting"):
            return
        self.state = "stopping"
        log.info("app=%s worker=%s state=stopping", self.program.id, self.process_id[:8])
        try:
            async with asyncio.timeout(self._settings.stop_timeout_s):
                await self._beside.run_stopping()
                await self._close()
        except TimeoutError:
            log.warning("app=%s did not stop within %g s; ending hard", self.program.id, self._settings.stop_timeout_s)
            await self._close(HARD_STOP_S)
        self._ended.set()

    async def run(self) -> None:
        """Start, and stop when cancelled or when something of streamlog itself fails, which is raised."""
        await self.start()
        try:
            await self._ended.wait()
        finally:
            await self.stop()
        if self.failure is not None:
            raise self.failure

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if self.failure is not None and error is None:
            raise self.failure

    async def _open(self) -> None:
        env, program = self.env, self.program
        admin = Admin(self.broker, env=env, connection=self._connection)
        await admin.open()
        self._closers.append(admin.close)
        cluster_id = (await admin.describe_cluster()).cluster_id
        self._directory = await env.offload.run(
            lambda: StateDirectory.claim(env, self._data_dir, program.id, cluster_id)
        )
        self._closers.append(self._directory.release)
        resolved = await provide_topics(
            admin,
            self.plan.topology,
            partitions_default=self._settings.partitions,
            replication_factor=self._settings.replication_factor,
            create_declared=self._create_declared,
            embedded=self._embedded,
        )
        growth = self._growth = Growth(program.id, self.plan.topology, resolved, partial(partition_counts, admin))
        answers = AnswerSender(self._make_answering, env.clock)
        outbox = self._outbox = ProducerOutbox(
            self._make_producer, env.clock, admin.describe_configs, answers, self._make_outside
        )
        await outbox.open()
        self._closers.append(lambda: self._close_outbox(outbox))
        await asyncio.gather(*(outbox.know_topic(node.name) for node in self.topology.topics))
        self._replies = Replies(program.id, self.broker, env, admin, self._outbox, self._connection)
        self._closers.append(self._replies.close)
        pump = Pump(self._may_process, lambda: self._on_blocked(pump))
        self._committer = Committer(self._outbox, outbox, self._commit_offsets, env.clock, env.offload)
        reader = await self._open_reader()
        restorer = Restorer(reader, env)
        self._closers.append(restorer.close)
        deletions = Deletions(program.id, admin.describe_configs)
        self._restore = TableRestore(self.plan, restorer, deletions)
        self._globals = GlobalTables(self.broker, env, self._engine, self._directory, deletions)
        self._closers.append(self._globals.close)
        await self._globals.open([table for table in self.plan.tables if table.kind == "global"])
        self.assignment = Assignment(
            self.plan,
            lambda: growth.topology,
            env=env,
            settings=self._settings,
            engine=self._engine,
            directory=self._directory,
            committer=self._committer,
            restore=self._restore,
            deletions=deletions,
            pump=pump,
            outbox=self._outbox,
            global_states=self._globals.states,
            on_failure=self._on_lane_failure,
            on_crash=self._on_crash,
            on_lost=outbox.forget_failures,
            ready=self._ready,
        )
        self._closers.append(self.assignment.close)
        program.cell.runtime = self  # Topic.send and Agent.ask work from here on
        for extension in self._extensions:
            self.endpoint = await extension.open(self) or self.endpoint
            self._opened.append(extension)
        self._beside.start()
        commits = self._commits = CommitLoop(
            program.id, self._committer, self.assignment, self._settings, env.clock, self._renew_outbox
        )
        if self.topology.consumed:
            self._intake = Intake(
                program.id,
                self.broker,
                self.topology.consumed,
                env=env,
                connection=self._connection,
                session_timeout_ms=self._session_timeout_ms,
                lease=self._lease,
                state_path=self._directory.path,
                member_data=self.member_data,
                assignment=self.assignment,
                beside=self._beside,
                commits=commits,
                retention=RetentionWatch(program.id, env.clock, admin.describe_configs),
                growth=growth,
                scope=self._scope,
                on_joined=self._begin_hooks,
            )
            await self._intake.open()
        else:
            self._begin_hooks()
        self._scope.spawn("commit", commits.run_forever())
        if any(table.kind == "source" for table in self.plan.tables):
            self._scope.spawn("ends", self.assignment.look_at_ends_forever())
        self._scope.spawn("sweep", self._sweep_forever(self._directory))
        assignment = self.assignment
        self.purge = Purge(
            self.topology,
            lambda: assignment.running,
            self._committer.in_group,
            admin.delete_records,
            Channels(program.id, admin).allowed,
        )
        self._scope.spawn("purge", self.purge.forever())

    async def _close(self, patience_s: float | None = None) -> None:
        """Close what was opened, in the reverse order. What fails to close, or takes longer than `patience_s`, does not
        keep the rest open."""
        app_id = self.program.id
        if self._intake is not None:
            await self._intake.end_fetching()
        await self._beside.close()
        if self._intake is not None:
            await self._intake.leave(patience_s)
        for extension in reversed(self._opened):
            await quietly(app_id, extension.close(), patience_s)
        self._opened.clear()
        await self._scope.close()
        while self._closers:
            result = self._closers.pop()()
            if result is not None:
                await quietly(app_id, result, patience_s)
        if self.program.cell.runtime is self:
            self.program.cell.runtime = None
        self.state = "stopped"
        log.info("app=%s worker=%s state=stopped", app_id, self.process_id[:8])

    def _make_producer(self, on_append_failure: OnAppendFailure) -> Producer:
        return Producer(
            self.broker,
            env=self.env,
            linger_ms=LINGER_MS,
            auto_create_topics=False,
            missing_topic_timeout_ms=MISSING_TOPIC_TIMEOUT_MS,
            on_append_failure=on_append_failure,
            connection=self._connection,
            lease=self._lease,
        )

    def _make_outside(self) -> Producer:
        return Producer(
            self.broker,
            env=self.env,
            linger_ms=LINGER_MS,
            auto_create_topics=False,
            missing_topic_timeout_ms=MISSING_TOPIC_TIMEOUT_MS,
            connection=self._connection,
        )

    def _make_answering(self) -> Producer:
        return Producer(
            self.broker,
            env=self.env,
            linger_ms=LINGER_MS,
            delivery_timeout_ms=answering.DELIVERY_TIMEOUT_MS,
            auto_create_topics=False,
            missing_topic_timeout_ms=answering.MISSING_TOPIC_TIMEOUT_MS,
            connection=self._connection,
        )

    async def _close_outbox(self, outbox: ProducerOutbox) -> None:
        try:
            await outbox.close()
        except StreamlogError as error:
            log.warning("app=%s last outputs were not acknowledged: %s", self.program.id, error)

    async def _open_reader(self) -> ConsumerReader:
        reader = ConsumerReader(self.broker, self.env)
        await reader.open()
        self._closers.append(reader.close)
        return reader

    def _on_crash(self, error: BaseException) -> None:
        """Something of streamlog itself failed: end the worker, loudly."""
        if self.failure is None:
            self.failure = error
            log.error("app=%s worker failed", self.program.id, exc_info=error)
        self._ended.set()

    # --- the group ------------------------------------------------------------------------------------------------

    def _begin_hooks(self) -> None:
        """Once; not awaited, because the group's callbacks do not wait for user functions."""

        async def hooks() -> None:
            await self._beside.run_started()
            self._ready.set()

        if self._hooks is None:
            self._hooks = self._scope.spawn("started", hooks())

    def member_data(self) -> MemberData:
        """What the group's other members and its clients are told about this worker."""
        assert self._directory is not None, "claimed before the group is joined"
        warm = {int(name) for name in self._directory.tasks() if name.isdigit()}
        return MemberData(
            endpoint=self.endpoint,
            process_id=self.process_id,
            slot=self._directory.slot,
            warm_tasks=tuple(sorted(warm)),
            app_id=self.program.id,
        )

    @property
    def leader(self) -> bool:
        """Whether this worker owns task 0; one worker does, and none during a rebalance."""
        return self._beside.leading

    # --- loops ----------------------------------------------------------------------------------------------------

    async def _renew_outbox(self) -> bool:
        """Whether the producer had ended, and with it the way to send of every task there is."""
        assert self._outbox is not None, "made before the loops start"
        try:
            return await self._outbox.renew()
        except StreamlogError as error:
            log.warning("app=%s no new producer yet: %s", self.program.id, error)
            return False

    async def _commit_offsets(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        if self._intake is not None:
            await self._intake.commit(offsets)

    def _may_process(self) -> bool:
        assert self._outbox is not None, "made before the pump"
        if self._globals is not None and not self._globals.complete:
            return False
        return not self._outbox.full and not (self._commits is not None and self._commits.holding)

    def _on_blocked(self, pump: Pump) -> None:
        self._scope.spawn("room", self._await_room(pump))

    async def _await_room(self, pump: Pump) -> None:
        """Outputs or rows wait for the broker, and nothing is processed until some of them are acknowledged; or a
        global table is being read again."""
        assert self._outbox is not None, "a pump is only blocked by its outbox"
        while not self._may_process():
            if not self._outbox.full:  # rows: the commit loop tries again; tables come along by themselves
                await asyncio.sleep(RETRY_BACKOFF_S_FIRST)
                continue
            try:
                await self._outbox.room()
            except StreamlogError as error:
                log.warning("app=%s outputs cannot be sent: %s", self.program.id, error)
                await asyncio.sleep(RETRY_BACKOFF_S_FIRST)
        pump.resume()

    async def _sweep_forever(self, directory: StateDirectory) -> None:
        """Remove the state of tasks that have been elsewhere for long."""
        while True:
            await asyncio.sleep(REMOVE_STALE_S)
            removed = await self.env.offload.run(lambda: directory.remove_stale(self._engine))
            for task in removed:
                log.info("task=%s state removed: it has been on another worker", task)

    def _on_lane_failure(self, task: Task, failure: LaneFailure, policy: Policy) -> None:
        match policy:
            case Stop():
                log.error("%s. The partition stands still. %s", failure, self._remedies(failure))
            case Retry():
                log.warning("%s. Trying again", failure)
            case _:
                log.error("%s. Passed over (%s)", failure, type(policy).__name__)

    def _remedies(self, failure: LaneFailure) -> str:
        """What an operator can do about a partition that stands still, as it can be typed."""
        if not failure.at_event:
            return "Fix the cause and restart the worker"
        where = f"--data-dir {shlex.quote(self._data_dir)}" if self._embedded else f"--broker {self.broker}"
        place = f"--topic {failure.topic}:{failure.partition} --to-offset {failure.offset + 1}"
        readers = sum(failure.topic in lane.sources for lane in self.topology.lanes)
        return (
            "Fix the cause and restart the worker. Or pass over the record: stop the workers of the app, run "
            f"`streamlog groups reset-offsets {self.program.id} {place} {where}`"
            f"{' (other agents that read the topic begin there too, if they are not further)' if readers > 1 else ''}, "
            'and start them. Or have the agent pass over such records: on_error="skip", or DeadLetter(topic)'
        )

    # --- Runtime: the worker as declarations see it ---------------------------------------------------------------

    @property
    def outbox(self) -> Outside:
        assert self._outbox is not None, "declarations find a worker once it has an outbox"
        return self._outbox.outside

    def wall_ms(self) -> int:
        return self.env.clock.wall_ms()

    async def know_topic(self, topic: str) -> None:
        assert self._outbox is not None, "declarations find a worker once it has an outbox"
        await self._outbox.know_topic(topic)

    async def ask(self, agent: str, topic: str, key: bytes | None, value: bytes, timeout_s: float) -> bytes:
        assert self._replies is not None, "declarations find a worker once it can ask"
        return await self._replies.ask(agent, topic, key, value, timeout_s)

    def global_state(self, table: str) -> Any:
        assert self._globals is not None, "declarations find a worker once its global tables are complete"
        return self._globals.states[table]

    # --- looking in -----------------------------------------------------------------------------------------------

    def status(self) -> WorkerStatus:
        """What the worker does just now."""
        tasks = self.assignment.tasks if self.assignment is not None else {}
        stats = None if self._committer is None else self._committer.stats
        return WorkerStatus(
            app_id=self.program.id,
            process_id=self.process_id,
            endpoint=self.endpoint,
            state=self.state,
            leader=self.leader,
            tasks=tuple(
                task_status(
                    task,
                    restoring=self._restore.progress(number) if self._restore is not None else (),
                    error=self.assignment.errors.get(number) if self.assignment is not None else None,
                )
                for number, task in sorted(tasks.items())
            ),
            commits=0 if stats is None else stats.count,
            commit_took_ms=0 if stats is None else stats.took_ms,
            committed_at_ms=0 if stats is None else stats.at_ms,
            error=next(
                (
                    one.trouble
                    for one in (self._intake, self._outbox, self._commits, self._growth, self._globals)
                    if one is not None and one.trouble
                ),
                None,
            ),
            processed_again=0 if self._commits is None else self._commits.processed_again,
        )

    def missing_topics(self) -> list[str]:
        """Topics that the app reads and that somebody deleted while it ran, as far as is known."""
        return [] if self._intake is None else self._intake.missing_topics()

    def query(self, table: str) -> dict[int, LocalReader]:
        """Readers of this worker's partitions of a table, by partition. Raises: UserError: there is no such table."""
        tasks = self.assignment.tasks if self.assignment is not None else {}
        assert self._restore is not None, "a worker that has started can be asked"
        return local_readers(self.plan, tasks, self._globals, table, self._restore.progress)
