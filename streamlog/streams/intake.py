"""A worker's place in its group: joining it, feeding its tasks what it is given, and joining anew.

One consumer at a time. One that fails for good, because it was fenced or a callback of ours raised, is closed and
replaced, and the tasks begin again at what is committed. The group's callbacks pass through here to the assignment, and
what runs on the leader begins and ends with them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from streamlog.client.config import ConnectionSettings
from streamlog.client.consumer import Consumer
from streamlog.client.fetcher import FetchedBatch
from streamlog.client.lease import Lease
from streamlog.client.values import OffsetAndMetadata, TopicPartition
from streamlog.env import Env, Scope
from streamlog.errors import StreamlogError
from streamlog.streams.assignment import Assignment
from streamlog.streams.assignor import MemberData, TaskAssignor
from streamlog.streams.beside import Beside
from streamlog.streams.closing import quietly
from streamlog.streams.committing import CommitLoop
from streamlog.streams.growth import Growth
from streamlog.streams.retention import RetentionWatch
from streamlog.streams.settings import RETRY_BACKOFF_S_FIRST, RETRY_BACKOFF_S_MAX
from streamlog.streams.task import TaskState

log = logging.getLogger(__name__)

FETCH_WAIT_MS = 500
"""How long one fetch waits; between fetches the group may take partitions away."""

HEARTBEAT_INTERVAL_MS_MAX = 3_000
"""Kafka's default. At least three have to be missed before the session ends."""


class Intake:
    """See the module's essay. `open`, then `end_fetching` and `leave`."""

    def __init__(
        self,
        app_id: str,
        broker: str,
        topics: Sequence[str],
        *,
        env: Env,
        connection: ConnectionSettings,
        session_timeout_ms: int,
        lease: Lease,
        state_path: str,
        member_data: Callable[[], MemberData],
        assignment: Assignment,
        beside: Beside,
        commits: CommitLoop,
        retention: RetentionWatch,
        growth: Growth,
        scope: Scope,
        on_joined: Callable[[], None],
    ) -> None:
        """
        Args: topics: what the group shares.
              lease: held for as long as the group surely counts us in.
              state_path: the worker's own directory, which nobody else has as long as the worker lives.
              member_data: what the group is told about this worker, asked at each join.
              scope: of the worker; runs the fetch loop.
              on_joined: called whenever the group has given partitions, or none.
        """
        self._failure: str | None = None  # of joining or reading, until it has passed
        self._missing_said: list[str] = []  # topics that were logged as deleted
        self._app_id, self._broker, self._topics = app_id, broker, topics
        self._env, self._connection, self._session_timeout_ms = env, connection, session_timeout_ms
        self._lease = lease
        self._state_path, self._member_data = state_path, member_data
        self._assignment, self._beside, self._commits = assignment, beside, commits
        self._retention, self._growth, self._scope, self._on_joined = retention, growth, scope, on_joined
        self._consumer: Consumer | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to join. Raises: EnvironmentFailure, KafkaError: the group's brokers do not let us."""
        self._consumer = await self._join()
        self._fetching = self._scope.spawn("fetch", self._fetch_forever())

    async def end_fetching(self) -> None:
        """Before the consumer is closed, so that the loop does not find a closed one, or joins the group meanwhile."""
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            fetching.cancel()
            await asyncio.wait([fetching])

    async def leave(self, patience_s: float | None) -> None:
        """Leave the group; its callbacks drain and commit."""
        if self._consumer is not None:
            await quietly(self._app_id, self._consumer.close(), patience_s)
            self._consumer = None

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Have the group keep these offsets; nothing happens before joining and after leaving."""
        if self._consumer is not None:
            await self._consumer.commit(offsets)

    @property
    def trouble(self) -> str | None:
        """Why nothing is read just now, or not all that should be."""
        missing = self.missing_topics()
        return self._without(missing) if self._failure is None and missing else self._failure

    def _without(self, missing: Sequence[str]) -> str:
        """What it means that these topics do not exist, and what to do."""
        topology = self._growth.topology
        several = len(missing) > 1
        it = "them" if several else "it"
        held = topology.held_without(missing)
        standing = topology.standing_without(missing)
        if held is not None:
            what = f"{held}, so all tasks that share its partition numbers are closed"
        elif standing:
            what = f"agent{'s' if len(standing) > 1 else ''} {', '.join(standing)} {_verb(standing, 'stand')} still"
        else:
            what = f"the agents that read {it} go on with their other topics"
        commands = ", ".join(f"streamlog topics create {one} -p {topology.partitions(one)}" for one in missing)
        return (
            f"topic{'s' if several else ''} {', '.join(missing)} {_verb(missing, 'do', 'does')} not exist any more: "
            f"{what}. Create {it} again ({commands}), or take what reads {it} out of the app"
        )

    def missing_topics(self) -> list[str]:
        """Topics that the app reads and that do not exist, as far as is known."""
        return [] if self._consumer is None else self._consumer.missing(self._topics)

    # --- membership -----------------------------------------------------------------------------------------------

    async def _join(self) -> Consumer:
        consumer = Consumer(
            self._broker,
            env=self._env,
            group_id=self._app_id,
            group_instance_id=await self._env.offload.run(self._instance_id),
            leave_when_static=True,
            assignors=[TaskAssignor(self._member_data, self._growth.allowed)],
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=self._session_timeout_ms,
            heartbeat_interval_ms=min(HEARTBEAT_INTERVAL_MS_MAX, self._session_timeout_ms // 3),
            connection=self._connection,
            lease=self._lease,
        )
        self._assignment.use(consumer)
        consumer.subscribe(
            self._topics, on_assigned=self._on_assigned, on_revoked=self._on_revoked, on_lost=self._on_lost
        )
        await consumer.open()
        return consumer

    def _instance_id(self) -> str:
        """The directory's name in the group: who holds the directory is the member, however often it was killed.

        A restart after a crash replaces its dead self at once, instead of waiting until the session of that has ended
        (KIP-345). The directory's lock sees to it that no two processes have the name.
        """
        path, storage = f"{self._state_path}/instance", self._env.storage
        if storage.exists(path):
            return storage.read_bytes(path).decode()
        instance_id = f"{self._app_id}-{self._env.entropy.uuid4().hex}"
        storage.write_atomic(path, instance_id.encode())
        return instance_id

    async def _on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        await self._growth.follow(partitions)
        self._assignment.gone = await self._growth.missing() if self._assignment.lacking else frozenset()
        await self._assignment.on_assigned(partitions)
        if 0 in self._assignment.tasks:
            self._beside.lead()
        self._on_joined()

    async def _on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        await asyncio.gather(self._stop_leading(partitions), self._assignment.on_revoked(partitions))

    async def _on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        await asyncio.gather(self._stop_leading(partitions), self._assignment.on_lost(partitions))

    async def _stop_leading(self, partitions: Sequence[TopicPartition]) -> None:
        if any(one.partition == 0 for one in partitions):
            await self._beside.stop_leading()

    async def _rejoin(self, consumer: Consumer) -> None:
        log.warning("app=%s leaves the group and joins again", self._app_id)
        await asyncio.gather(self._beside.stop_leading(), self._assignment.lose_all())
        await quietly(self._app_id, consumer.close())
        while True:
            try:
                self._consumer = await self._join()
                return
            except StreamlogError as error:
                self._failure = f"joining: {error}"
                log.warning("app=%s cannot join: %s", self._app_id, error)
                await asyncio.sleep(RETRY_BACKOFF_S_MAX)

    # --- fetching -------------------------------------------------------------------------------------------------

    async def _fetch_forever(self) -> None:
        """Feed the running tasks. A consumer that failed for good is replaced, and the group joined anew."""
        last: StreamlogError | None = None
        pause_s = RETRY_BACKOFF_S_FIRST
        while True:
            consumer = self._consumer
            assert consumer is not None, "joined before fetching"
            try:
                batches = await consumer.fetch(timeout_ms=FETCH_WAIT_MS)
            except StreamlogError as error:
                self._failure = f"reading: {error}"
                log.warning("app=%s cannot read: %s", self._app_id, error)
                await asyncio.sleep(pause_s)
                if error is last:  # the very same error again: the consumer has given up
                    await self._rejoin(consumer)
                last, pause_s = error, min(2 * pause_s, RETRY_BACKOFF_S_MAX)
                continue
            if last is not None:
                last, self._failure, pause_s = None, None, RETRY_BACKOFF_S_FIRST
            for batch in batches:
                await self._feed(batch)
            self._look_at_topics(consumer)

    def _look_at_topics(self, consumer: Consumer) -> None:
        """Say once that topics were deleted, or grew as they should not."""
        self._growth.look(consumer.known_sizes(self._topics))
        missing = self.missing_topics()
        if missing != self._missing_said:
            if missing:
                log.error("app=%s %s", self._app_id, self._without(missing))
            else:
                log.info("app=%s topic %s is there again", self._app_id, ", ".join(self._missing_said))
            self._missing_said = missing

    async def _feed(self, batch: FetchedBatch) -> None:
        task = self._assignment.tasks.get(batch.partition)
        if task is None or task.state is not TaskState.RUNNING:
            return  # of a life that is over
        topic, columns = batch.topic, batch.columns
        if columns.timestamps_ms and self._retention.suspects(topic, columns.timestamps_ms):
            self._scope.spawn("retention", self._retention.look(topic, columns.timestamps_ms[0]))
        source = task.sources[topic]
        topic_id = None if self._consumer is None else self._consumer.topic_id(topic)
        made_again = None not in (topic_id, source.topic_id) and topic_id != source.topic_id
        if made_again or batch.start_offset < source.position:
            # A consumer goes back only when the log it knew is gone: the topic was made again, or cut.
            await self._assignment.follow_again(task, f"{topic}-{batch.partition} begins anew")
            return
        if task.missed(topic):
            await self._assignment.follow_again(task, f"{topic}-{batch.partition} was not read for long")
            return
        task.feed(topic, columns, batch.next_offset, batch.high_watermark)
        self._assignment.throttle(task, topic)
        self._commits.on_fed(len(columns), is_full=task.dirty_full)


def _verb(subjects: Sequence[str], plural: str, singular: str = "") -> str:
    return plural if len(subjects) > 1 else singular or f"{plural}s"
