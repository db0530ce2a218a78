"""Consumer: batches of records, from partitions that a group or the application assigned.

`fetch` gives whatever is buffered, per partition a batch of columns; there is no task, queue or future per record.
Everything else happens beside the application: fetching ahead, heartbeats, rebalances. What the application had from
`fetch` counts as processed when it calls `fetch` again, which is also when a rebalance may take partitions away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self
from uuid import UUID

from streamlog.client.assignors import Assignor, CooperativeStickyAssignor
from streamlog.client.cluster import Cluster
from streamlog.client.config import ConnectionSettings
from streamlog.client.fetched import FetchedBatch, FetchSettings, IsolationLevel, OffsetReset
from streamlog.client.fetcher import Fetcher
from streamlog.client.group import Group, PartitionsCallback
from streamlog.client.in_hand import InHand
from streamlog.client.lease import Lease
from streamlog.client.member_effects import (
    MembershipSettings,
)
from streamlog.client.membership import Membership
from streamlog.client.offsets import OffsetAnswer, end_of_epochs, list_offsets
from streamlog.client.positions import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP
from streamlog.client.values import (
    NO_EPOCH,
    NO_OFFSET,
    ConsumerRecord,
    GroupMetadata,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    TopicPartition,
)
from streamlog.env import Env
from streamlog.errors import StreamlogError, UserError
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.schema import ZERO_UUID

log = logging.getLogger(__name__)

FETCH_BYTES_MAX = 50 << 20
"""Of one answer, and of what is buffered over all partitions; two answers' worth may be held for a moment."""

PARTITION_FETCH_BYTES_MAX = 1 << 20

ITERATION_RECORDS_MAX = 500
"""Records per fetch of `async for`, as in Java: a rebalance waits until those in hand are done."""

AUTO_COMMIT_INTERVAL_MS = 5_000

CLOSE_TIMEOUT_MS = 30_000
"""Java's default as well."""


class Consumer:
    """Reads records, alone (`assign`) or with others (`subscribe` and a group id).

    All of one consumer belong to one event loop; `fetch` has one caller at a time.
    """

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        env: Env,
        client_id: str = "streamlog",
        group_id: str | None = None,
        group_instance_id: str | None = None,
        leave_when_static: bool = False,
        assignors: Sequence[Assignor] | None = None,
        auto_offset_reset: OffsetReset = "latest",
        isolation_level: IsolationLevel = "read_uncommitted",
        fetch_min_bytes: int = 1,
        fetch_max_bytes: int = FETCH_BYTES_MAX,
        fetch_max_wait_ms: int = 500,
        max_partition_fetch_bytes: int = PARTITION_FETCH_BYTES_MAX,
        session_timeout_ms: int = 45_000,
        rebalance_timeout_ms: int = 300_000,
        heartbeat_interval_ms: int = 3_000,
        max_poll_interval_ms: int = 300_000,
        auto_commit: bool = False,
        auto_commit_interval_ms: int = AUTO_COMMIT_INTERVAL_MS,
        rack_id: str | None = None,
        connection: ConnectionSettings | None = None,
        lease: Lease | None = None,
    ) -> None:
        """
        Args:    assignors: in order of preference; default: cooperative-sticky. Mixing cooperative ones with others
        makes
                     the member eager.
                 leave_when_static: whether `close` leaves the group even with a group_instance_id; otherwise the
                     partitions wait for a restart until the session ends.
                 auto_offset_reset: where to begin without a committed offset, or when the offset does not exist.
                 rebalance_timeout_ms: how long the others wait for this member in a rebalance.
                 max_poll_interval_ms: without a call of `fetch` or `progress` for so long, the member leaves.
                 auto_commit: commit what is processed, every interval and whenever partitions are given up; also
                     positions that nothing was read from yet. Without it only `commit` commits, and `latest` passes
                     over whatever comes before the next owner of a partition begins.
                 rack_id: fetch from a follower in the same rack where brokers offer it (KIP-392).
                 lease: held for as long as this is surely a member of its group; for producers whose records nobody
                     may write but the owner of partitions.
        """
        if auto_offset_reset not in ("earliest", "latest", "none"):
            raise UserError(f"auto_offset_reset '{auto_offset_reset}' is not one of earliest, latest and none")
        if isolation_level not in ("read_uncommitted", "read_committed"):
            raise UserError(f"isolation_level '{isolation_level}' is not one of read_uncommitted and read_committed")
        if auto_commit and group_id is None:
            raise UserError("auto_commit needs a group_id to commit for")
        settings = connection or ConnectionSettings(client_id=client_id)
        self._env = env
        self._cluster = Cluster(bootstrap, env, settings)
        self._fetcher = Fetcher(
            self._cluster,
            FetchSettings(
                fetch_max_bytes,
                fetch_min_bytes,
                fetch_max_wait_ms,
                max_partition_fetch_bytes,
                auto_offset_reset,
                isolation_level,
                rack_id or "",
                settings.retry_backoff_ms,
            ),
            self._find_committed if group_id is not None else None,
        )
        self._read_committed = isolation_level == "read_committed"
        self._auto_commit_interval_ms = auto_commit_interval_ms if auto_commit else None
        self._group: Group | None = None
        if group_id is not None:
            membership = Membership(
                MembershipSettings(
                    group_id,
                    group_instance_id,
                    session_timeout_ms,
                    rebalance_timeout_ms,
                    heartbeat_interval_ms,
                    settings.retry_backoff_ms,
                    rack_id,
                    leave_when_static,
                ),
                assignors if assignors is not None else (CooperativeStickyAssignor(),),
                env.entropy.random,
            )
            self._group = Group(
                self._cluster,
                self._fetcher,
                membership,
                max_poll_interval_ms=max_poll_interval_ms,
                auto_commit=auto_commit,
                lease=lease,
            )
        self._topics: tuple[str, ...] = ()  # subscribed
        self._in_hand = InHand(self._fetcher.positions)
        self._state: Literal["new", "open", "closed"] = "new"

    # -- life

    async def open(self) -> None:
        """Reach the cluster. Raises BrokerUnreachable naming the addresses when nobody answers for a minute."""
        if self._state != "new":
            raise UserError("this consumer was opened before; make a new one")
        self._state = "open"
        try:
            await self._cluster.open()
        except BaseException:
            self._state = "closed"
            await self._cluster.close()
            raise
        self._fetcher.start()
        if self._group is not None:
            if self._topics:
                self._group.subscribe(self._topics)
            if self._auto_commit_interval_ms is not None:
                self._cluster.scope.spawn(
                    "auto commit", self._group.committer.commit_forever(self._auto_commit_interval_ms)
                )
        else:
            self._fetcher.release(list(self._fetcher.positions.by_partition))

    async def close(self, *, processed: bool = True) -> None:
        """Give partitions up (callbacks run, auto commit commits), leave the group, disconnect. Idempotent.

        `processed`: whether the application is done with what it has; a block that ends with an exception is not.
        Bounded by CLOSE_TIMEOUT_MS: who cannot reach its coordinator is removed from the group by its session.
        """
        if self._state != "open":
            return
        self._state = "closed"
        try:
            if self._group is not None:
                if processed:
                    self._fetcher.mark_processed(self._in_hand.offsets())
                async with asyncio.timeout(CLOSE_TIMEOUT_MS / 1000):
                    await self._group.close()
        except TimeoutError:
            log.warning("closing took longer than %d ms; partitions were not given up in order", CLOSE_TIMEOUT_MS)
        finally:
            self._fetcher.close()
            await self._cluster.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(processed=error is None)

    # -- which partitions

    def subscribe(
        self,
        topics: Iterable[str],
        *,
        on_assigned: PartitionsCallback | None = None,
        on_revoked: PartitionsCallback | None = None,
        on_lost: PartitionsCallback | None = None,
    ) -> None:
        """Share these topics with the other members of the group. May be called again with other topics.

        Callbacks (functions or coroutines) get the partitions. `on_assigned`: they are ours, nothing was fetched yet;
        seek here. `on_revoked`: the application is at `fetch`, nothing more will come from them; commit here.
        `on_lost`: they belong to others already, commits are refused; without it `on_revoked` is called. An exception
        in a callback ends the membership and is raised by `fetch`.
        """
        if self._group is None:
            raise UserError("subscribe needs a group_id; use assign to read partitions without a group")
        if isinstance(topics, str):
            raise UserError(f"subscribe takes a list of topics; write subscribe(['{topics}'])")
        self._topics = tuple(topics)
        if not self._topics:
            raise UserError("subscribe needs at least one topic")
        if self._fetcher.positions.by_partition and not self._group.membership.topics:
            raise UserError("this consumer has partitions of its own (assign); make another one for the group")
        self._group.on_assigned, self._group.on_revoked, self._group.on_lost = on_assigned, on_revoked, on_lost
        if self._state == "open":
            self._group.subscribe(self._topics)

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read exactly these partitions, whatever others do. Positions of those that stay are kept.

        With a group id they begin at the group's committed offsets; otherwise, and without one, at auto_offset_reset.
        """
        if self._topics:
            raise UserError("this consumer is subscribed; the group assigns its partitions")
        wanted = dict.fromkeys(partitions)
        fetcher = self._fetcher
        fetcher.remove([one for one in list(fetcher.positions.by_partition) if one not in wanted])
        fetcher.add(wanted)
        if self._state == "open":
            fetcher.release(list(wanted))

    def assignment(self) -> list[TopicPartition]:
        """The partitions this consumer has now, sorted."""
        return sorted(self._fetcher.positions.by_partition)

    def seek(self, partition: TopicPartition, offset: int, *, leader_epoch: int = NO_EPOCH) -> None:
        """Read from `offset` next. With the leader epoch of the record before it, a truncated log is noticed."""
        if offset < 0:
            raise UserError(f"offset {offset} is negative; use seek_to_beginning or seek_to_end")
        self._fetcher.seek(partition, offset, leader_epoch)

    def seek_to_beginning(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these partitions from their first records."""
        for one in partitions:
            self._fetcher.seek_to_end_of_time(one, EARLIEST_TIMESTAMP)

    def seek_to_end(self, partitions: Iterable[TopicPartition]) -> None:
        """Read what is written to these partitions from now on."""
        for one in partitions:
            self._fetcher.seek_to_end_of_time(one, LATEST_TIMESTAMP)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Return nothing of these partitions until `resume`; what is buffered is kept. Gone with the assignment."""
        self._fetcher.pause(partitions, True)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._fetcher.pause(partitions, False)
        self._fetcher.wake()

    def paused(self) -> list[TopicPartition]:
        return sorted(one.partition for one in self._fetcher.positions.by_partition.values() if one.paused)

    def position(self, partition: TopicPartition) -> int | None:
        """The next offset `fetch` returns of a partition; None while it is being found."""
        offset = self._fetcher.positions.get(partition).position
        left = self._in_hand.offsets().get(partition)
        if left is not None:
            return left.offset
        return None if offset == NO_OFFSET else offset

    def high_watermark(self, partition: TopicPartition) -> int | None:
        """The end of the partition (exclusive) as of the last fetch; None before one."""
        offset = self._fetcher.positions.get(partition).high_watermark
        return None if offset == NO_OFFSET else offset

    def last_stable_offset(self, partition: TopicPartition) -> int | None:
        """The end of what a read_committed consumer can see, as of the last fetch; None before one."""
        offset = self._fetcher.positions.get(partition).last_stable_offset
        return None if offset == NO_OFFSET else offset

    # -- records

    async def fetch(self, *, timeout_ms: int, records_max: int | None = None) -> list[FetchedBatch]:
        """Records that are here, or else the first to arrive within `timeout_ms`; an empty list when none do.

        Batches come whole unless `records_max` cuts them. Of each partition there is at most one batch, in order. What
        a loop over records left over comes first.
        Raises: KafkaError: a partition or the group cannot go on as it is, and why. Cancelled, nothing is lost.
        """
        self._check_open()
        group, fetcher = self._group, self._fetcher
        left = self._in_hand.take(records_max)
        if left:
            self.progress()  # and not at fetch: partitions stay while a loop's records are not handed out
            return left
        if group is not None:
            group.enter_fetch()
        fetcher.mark_processed()
        try:
            clock = self._env.clock
            deadline_ms = clock.mono_ms() + timeout_ms
            while True:
                self._check_failures()
                batches = fetcher.take(records_max)
                if batches:
                    return batches
                left_ms = deadline_ms - clock.mono_ms()
                if left_ms <= 0:
                    return []
                await fetcher.news(left_ms / 1000)
        finally:
            if group is not None:
                group.leave_fetch()

    async def __aiter__(self) -> AsyncIterator[ConsumerRecord]:
        """Records one by one, for ever. For who needs speed: `fetch`.

        A loop that is left goes on where it was with the next one; `commit` covers what was handed out.
        """
        while True:
            for record in self._in_hand.records():
                yield record
            self._in_hand.put(await self.fetch(timeout_ms=60_000, records_max=ITERATION_RECORDS_MAX))

    def progress(self) -> None:
        """Say that work gets on although `fetch` is not called: max_poll_interval_ms begins again."""
        if self._group is not None:
            self._group.progress()

    # -- offsets

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata] | None = None) -> None:
        """Commit for the group: these offsets, or without any the positions after all that was handed out.

        Raises: KafkaError: UNKNOWN_MEMBER_ID or ILLEGAL_GENERATION: the group went on without this consumer, the
                    partitions may be another's, nothing was committed. REBALANCE_IN_PROGRESS: some of the partitions
                    were taken away meanwhile. BrokerUnreachable: nobody answered for a minute; unknown.
        """
        self._check_open(or_closing=True)
        group = self._need_group("commit")
        if offsets is None:
            offsets = {
                one.partition: OffsetAndMetadata(one.position, one.offset_epoch)
                for one in self._fetcher.positions.by_partition.values()
                if one.position != NO_OFFSET
            } | self._in_hand.offsets()
        await group.committer.commit(offsets)

    async def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """The group's committed offsets; None where it has none."""
        self._check_open(or_closing=True)
        group = self._need_group("committed")
        wanted = list(partitions)
        return await self._cluster.retrying("asking for committed offsets", lambda: group.committer.committed(wanted))

    async def _find_committed(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetAndMetadata | None]:
        return await self._need_group("committed").committer.committed(partitions)

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset of each partition."""
        found = await self._list_offsets(dict.fromkeys(partitions, EARLIEST_TIMESTAMP))
        return {partition: answer.offset for partition, answer in found.items()}

    async def end_offsets(
        self, partitions: Iterable[TopicPartition], *, isolation_level: IsolationLevel | None = None
    ) -> dict[TopicPartition, int]:
        """The end (exclusive) of each partition: for read_committed the last stable offset, else the high watermark."""
        read_committed = self._read_committed if isolation_level is None else isolation_level == "read_committed"
        found = await self._list_offsets(dict.fromkeys(partitions, LATEST_TIMESTAMP), read_committed)
        return {partition: answer.offset for partition, answer in found.items()}

    async def offsets_for_times(
        self, timestamps_ms: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record of each partition at or after a time; None when there is none."""
        found = await self._list_offsets(timestamps_ms)
        return {
            partition: OffsetAndTimestamp(answer.offset, answer.timestamp_ms, answer.leader_epoch)
            if answer.offset >= 0
            else None
            for partition, answer in found.items()
        }

    async def epoch_end_offsets(self, leader_epochs: Mapping[TopicPartition, int]) -> dict[TopicPartition, int | None]:
        """Where each partition's leader epoch ends in its leader's log (exclusive); None where the log never had it.

        Whoever read up to a larger offset under that epoch read records that were cut since (KIP-320).
        """
        self._check_open(or_closing=True)
        found: dict[TopicPartition, int | None] = {}

        async def attempt() -> None:
            left = {one: epoch for one, epoch in leader_epochs.items() if one not in found}
            for one in {one.topic: None for one in left}:
                await self._cluster.partition_count(one)
            current = self._cluster.metadata.leader_epoch
            failure: StreamlogError | None = None
            questions = {one: (current(one), epoch) for one, epoch in left.items()}
            for partition, answer in (await end_of_epochs(self._cluster, questions)).items():
                if not isinstance(answer, OffsetAnswer):
                    failure = answer
                else:
                    found[partition] = answer.offset if answer.offset >= 0 else None
            if failure is not None:
                raise failure

        self._cluster.track(dict.fromkeys(one.topic for one in leader_epochs))
        await self._cluster.retrying("asking for the ends of leader epochs", attempt)
        return {one: found[one] for one in leader_epochs}

    def topic_id(self, topic: str) -> UUID | None:
        """The id of a topic that was asked about before; None while it is not known, or the brokers have no ids."""
        found = self._cluster.metadata.topic_id(topic)
        return None if found == ZERO_UUID else found

    def missing(self, topics: Iterable[str]) -> list[str]:
        """Those of the topics that do not exist, as of what brokers said last; sorted."""
        errors = self._cluster.metadata.errors
        return sorted(one for one in topics if errors.get(one) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)

    def known_sizes(self, topics: Iterable[str]) -> dict[str, int]:
        """Partition counts of those of the topics that exist, as of what brokers said last."""
        metadata = self._cluster.metadata
        return {one: count for one in topics if (count := metadata.partition_count(one))}

    async def _list_offsets(
        self, timestamps: Mapping[TopicPartition, int], read_committed: bool | None = None
    ) -> dict[TopicPartition, OffsetAnswer]:
        """Ask until every partition has an answer, or one of them never will."""
        self._check_open(or_closing=True)
        committed = self._read_committed if read_committed is None else read_committed
        self._cluster.track(dict.fromkeys(one.topic for one in timestamps))
        found: dict[TopicPartition, OffsetAnswer] = {}

        async def attempt() -> None:
            left = {one: timestamp for one, timestamp in timestamps.items() if one not in found}
            for one in {one.topic: None for one in left}:
                await self._cluster.partition_count(one)
            failure: StreamlogError | None = None
            for partition, answer in (await list_offsets(self._cluster, left, read_committed=committed)).items():
                if isinstance(answer, OffsetAnswer):
                    found[partition] = answer
                else:
                    failure = answer
            if failure is not None:
                raise failure

        await self._cluster.retrying("asking for offsets", attempt)
        return {one: found[one] for one in timestamps}

    async def partitions_for(self, topic: str) -> list[TopicPartition]:
        """All partitions of a topic. Raises KafkaError when it does not exist."""
        self._check_open(or_closing=True)
        count = await self._cluster.partition_count(topic)
        return [TopicPartition(topic, number) for number in range(count)]

    # -- membership

    @property
    def member_id(self) -> str:
        """Empty while this consumer is no member of a group."""
        return self._group.membership.member_id if self._group is not None else ""

    @property
    def generation_id(self) -> int:
        """-1 while this consumer is no member of a group."""
        return self._group.membership.generation_id if self._group is not None else -1

    def group_metadata(self) -> GroupMetadata:
        """Who this member is, for offsets that are committed in a transaction (KIP-447)."""
        return self._need_group("group_metadata").metadata()

    # -- checks

    def _need_group(self, what: str) -> Group:
        if self._group is None:
            raise UserError(f"{what} needs a group_id")
        return self._group

    def _check_open(self, *, or_closing: bool = False) -> None:
        if self._state != "open" and not (or_closing and self._state == "closed"):
            raise UserError("the consumer is not open; use `async with Consumer(...)` or await open()")

    def _check_failures(self) -> None:
        self._cluster.check()
        if self._group is not None and self._group.failure is not None:
            raise self._group.failure
