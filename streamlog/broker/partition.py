"""One partition as this broker has it: the log, its role, who waits for the disk and who for it to grow.

    LEADER      appends what producers send, and moves the high watermark
    FOLLOWER    appends what the leader has, and learns the high watermark from it
    DELETED     closed; whoever still holds it finds nothing

The metadata decide the role (replication/roles.py); it changes at once, between two awaits.

Appending is synchronous. What a producer waits for comes afterwards, and in order: nothing; that the disk has what it
sent (`streamlog.flush`, which a topic of one replica does by default); or, with acks=all, that every in-sync replica
has it, each as durably as the topic promises: that the high watermark has passed it. Waiting producers share syncs:
one task per partition, alive while somebody waits, asks for everything appended so far to be flushed and then
acknowledges all of it.

The high watermark of a single replica follows the durability that the topic promises. Where acknowledgements wait for
the disk it moves when the disk has the records, so no consumer reads what a power cut can still take back; elsewhere it
moves with the append. With several replicas `LeaderState` computes it from their fetches (replication/leader.py).
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Final, Protocol
from uuid import UUID

from streamlog.broker.acknowledgement import Acknowledgement, WaitingProducers
from streamlog.broker.disk_watch import DiskWatch
from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.log.partition import AppendResult, Origin, PartitionLog
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.log.validate import PreparedBatch
from streamlog.broker.replication.follower import FollowerState
from streamlog.broker.replication.leader import IsrProposal, LeaderState
from streamlog.env import Buffer, Clock, Scope
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.records import WritableBuffer

READ_COMMITTED: Final = 1
"""Isolation level of fetches and lookups that do not see undecided transactions (KIP-98)."""

ISOLATION_LEVELS: Final = (0, READ_COMMITTED)
"""There are no others. Kafka calls one UNKNOWN_SERVER_ERROR, for want of a check; here it is an INVALID_REQUEST."""


HIGH_WATERMARK_LINGER_S: Final = 0.005
"""How long a follower's waiting fetch may know less of the high watermark than the leader does. Under load the next
records bring it along before; without this pause every record would cost every follower a fetch more."""

NEVER_MS: Final = 2**62


class Role(Enum):
    LEADER = "leader"
    FOLLOWER = "follower"
    DELETED = "deleted"


class IsrChanges(Protocol):
    """Whoever puts a leader's proposals to the controller."""

    def submit(self, partition: Partition, proposal: IsrProposal) -> None: ...


class GrowthWait:
    """A fetch that waits for bytes, in any of its partitions."""

    __slots__ = ("_linger", "done", "is_overdue", "missing_bytes")

    def __init__(self, missing_bytes: int) -> None:
        self.missing_bytes = missing_bytes
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_overdue = False
        """There is something to tell besides bytes, and it has waited for them long enough."""
        self._linger: asyncio.TimerHandle | None = None

    def grow(self, count: int) -> None:
        self.missing_bytes -= count
        if self.missing_bytes <= 0:
            self.wake()

    def wake(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def linger(self) -> None:
        """The high watermark has moved: say so soon, with records if some come."""
        if self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(HIGH_WATERMARK_LINGER_S, self._tell)

    def _tell(self) -> None:
        self.is_overdue = True
        self.wake()

    def close(self) -> None:
        if self._linger is not None:
            self._linger.cancel()


class Partition:
    """See the module's essay. Made without a role; `lead` or `follow` comes next."""

    __slots__ = (
        "_clock",
        "_flush_task_runs",
        "_flusher",
        "_is_overdue",
        "_isr_changes",
        "_scope",
        "_told_high_watermark",
        "_unflushed_since_ms",
        "_unseen_bytes",
        "_waiting_for_disk",
        "_waiting_for_replicas",
        "_watch",
        "append_waits",
        "flush_before_ack",
        "follower",
        "growth_waits",
        "index",
        "leader",
        "leader_epoch",
        "log",
        "log_start_waits",
        "replica_count",
        "role",
        "topic",
        "topic_id",
    )

    def __init__(
        self,
        topic: str,
        index: int,
        topic_id: UUID,
        log: PartitionLog,
        flusher: Flusher,
        scope: Scope,
        watch: DiskWatch,
        clock: Clock,
        isr_changes: IsrChanges,
    ) -> None:
        self.topic = topic
        self.index = index
        self.topic_id = topic_id
        self.log = log
        self.role = Role.FOLLOWER
        self.leader_epoch = -1
        """The newest that the metadata told, whoever leads in it."""
        self.replica_count = 0
        self.leader: LeaderState | None = None
        """What we know of the other replicas; None unless this broker leads and there are any."""
        self.follower: FollowerState | None = None
        """Whom we follow; None when we lead, or nobody does."""
        self.flush_before_ack = False
        self.growth_waits: dict[GrowthWait, None] = {}
        """Fetches that wait for readable bytes, in the order they came."""
        self.append_waits: dict[GrowthWait, None] = {}
        """Followers' fetches: they read what is not committed yet."""
        self.log_start_waits: dict[asyncio.Future[None], int] = {}
        """Who waits for all replicas' log starts to reach an offset."""
        self._clock = clock
        self._flusher = flusher
        self._isr_changes = isr_changes
        self._scope = scope
        self._watch = watch
        self._waiting_for_disk: WaitingProducers[Partition] = WaitingProducers(self)
        self._waiting_for_replicas: WaitingProducers[Partition] = WaitingProducers(self)
        self._flush_task_runs = False
        self._is_overdue = False  # flush.ms has passed since something was appended
        self._unflushed_since_ms: int | None = None  # monotonic time of the tick that saw it first; None: nothing is
        self._told_high_watermark = -1  # the leader's, as it told us last; ours follows as far as our disk has come
        self._unseen_bytes = 0  # appended above the high watermark, and not told to growth_waits yet

    def __repr__(self) -> str:
        return f"{self.topic}-{self.index}"

    @property
    def is_leader(self) -> bool:
        return self.role is Role.LEADER

    @property
    def closed(self) -> bool:
        return self.role is Role.DELETED

    @property
    def is_waited_for(self) -> bool:
        """Whether producers wait for the replicas to have what they sent."""
        return bool(self._waiting_for_replicas)

    # -- roles ------------------------------------------------------------------------------------------------

    def lead(self, leader_epoch: int, state: LeaderState | None, replica_count: int) -> None:
        """Lead from now on, in a new epoch or with other replicas. `state`: None when this is the only one."""
        log = self.log
        is_first = self.leader_epoch < 0
        self.role, self.follower = Role.LEADER, None
        self.leader_epoch, self.leader = leader_epoch, state
        self.set_replica_count(replica_count)
        if state is not None:
            # A follower that asks about an epoch of its own, which we have never seen, needs the next one to compare.
            log.epochs.assign(leader_epoch, log.log_end_offset)
            self.advance()
        elif self.flush_before_ack and log.flushed_offset < log.log_end_offset:
            # What recovery left behind is what there is: with one replica nobody else could still disagree. But what a
            # killed process left in the page cache may be read only when it is on disk, where it goes now.
            if is_first:
                log.high_watermark = log.flushed_offset
            self._start_flushing()
        else:
            self._advance(log.log_end_offset)
            self._waiting_for_replicas.settle(log.high_watermark)

    def follow(self, leader_epoch: int, state: FollowerState | None, replica_count: int) -> None:
        """Follow from now on; `state`: None while nobody leads."""
        self.role, self.leader = Role.FOLLOWER, None
        self.leader_epoch, self.follower = leader_epoch, state
        self._told_high_watermark = -1
        self.set_replica_count(replica_count)
        # An epoch in which nothing was written is none that the leader has to know.
        self.log.epochs.truncate_from_end(self.log.log_end_offset)
        self._unseen_bytes = 0
        self._dismiss()

    def close(self) -> None:
        """Nobody reads or writes here any more."""
        self.role, self.leader, self.follower = Role.DELETED, None, None
        self._dismiss()

    def _dismiss(self) -> None:
        """Producers that wait get an error, fetches look again."""
        self._waiting_for_disk.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        self._waiting_for_replicas.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        for wait in (*self.growth_waits, *self.append_waits):
            wait.wake()
        for done in self.log_start_waits:
            if not done.done():
                done.set_result(None)

    def set_replica_count(self, replica_count: int) -> None:
        """How many replicas there are, and with that how the topic's configs are to be read."""
        self.replica_count = replica_count
        self.flush_before_ack = self.log.config.flushes_before_ack(replica_count)
        if self.leader is not None:
            self.leader.min_insync_replicas = self.log.config.min_insync_replicas

    # -- appending --------------------------------------------------------------------------------------------

    def append(
        self,
        batches: WritableBuffer,
        now_ms: int,
        origin: Origin = Origin.CLIENT,
        prepared: PreparedBatch | None = None,
    ) -> AppendResult:
        """Append at once. Raises AppendRefused or PartitionOffline; nothing is visible then.

        `batches` is patched in place and may be reused afterwards.
        """
        log = self.log
        try:
            result = log.append(
                batches, leader_epoch=self.leader_epoch, now_ms=now_ms, origin=origin, prepared=prepared
            )
        except PartitionOffline as error:
            self._tell_refused(error)
            raise
        if self._watch.is_refusing:
            self._watch.accepted()
        if not result.is_duplicate:
            self._unseen_bytes += len(batches)
            if self.leader is not None:
                for wait in list(self.append_waits):
                    wait.grow(len(batches))
                if len(self.leader.maximal_isr) == 1:
                    self.advance()
            if self.flush_before_ack:
                self._start_flushing()
            else:
                if self.leader is None:
                    self._advance(log.log_end_offset)
                if log.log_end_offset - log.flushed_offset >= log.config.flush_messages:
                    self._start_flushing()
        return result

    def _tell_refused(self, error: PartitionOffline) -> None:
        if self.log.failure is None:
            self._watch.refused(f"{self.topic}-{self.index}", error.message)

    @property
    def is_cut_off(self) -> bool:
        """We lead it by what we know, commit nothing any more, and have most likely been replaced."""
        return self.leader is not None and self.leader.is_cut_off(self._clock.mono_ms())

    def check_can_commit(self) -> None:
        """Raise NOT_LEADER_OR_FOLLOWER when acks=all had better look for another leader, NOT_ENOUGH_REPLICAS when
        what it promises cannot be kept now.
        """
        if self.is_cut_off:
            raise KafkaError(
                ErrorCode.NOT_LEADER_OR_FOLLOWER,
                f"{self!r}: neither the controller nor all in-sync replicas have been heard for a session",
            )
        self.check_min_isr()

    def check_min_isr(self) -> None:
        """Raise NOT_ENOUGH_REPLICAS when what acks=all promises cannot be kept now."""
        if self.leader is not None and self.leader.is_under_min_isr:
            raise KafkaError(
                ErrorCode.NOT_ENOUGH_REPLICAS,
                f"{self!r} has {len(self.leader.isr)} in-sync replicas, fewer than min.insync.replicas",
            )

    def is_stored(self, end_offset: int, acks: int = 1) -> bool:
        """Whether everything below `end_offset` is stored as the topic and `acks` promise."""
        if self.leader is not None and acks < 0:
            return self.log.high_watermark >= end_offset
        return not self.flush_before_ack or self.log.durability.flushed_offset >= end_offset

    def acknowledge_when_stored(
        self, end_offset: int, acknowledgement: Acknowledgement[Partition], acks: int = 1
    ) -> None:
        """Settle `acknowledgement` when `is_stored(end_offset, acks)`, which it is not yet."""
        if self.leader is not None and acks < 0:
            self._waiting_for_replicas.add(end_offset, acknowledgement)
        else:
            self._waiting_for_disk.add(end_offset, acknowledgement)
            self._start_flushing()

    async def committed(self, end_offset: int) -> None:
        """Return once everything below `end_offset` is stored as the topic promises to acks=all.

        Raises KafkaError: it cannot happen here any more. Cancelling leaves nothing behind.
        """
        if self.leader is None:
            if self.flush_before_ack:
                await self._flusher.flushed(self.log, end_offset)
                self._on_flushed()
            return
        if self.log.high_watermark >= end_offset:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        acknowledgement: Acknowledgement[Partition] = Acknowledgement(NEVER_MS)
        acknowledgement.add_done_callback(lambda _: None if done.done() else done.set_result(None))
        self.acknowledge_when_stored(end_offset, acknowledgement, acks=-1)
        await done
        if self in acknowledgement.failures:
            raise KafkaError(acknowledgement.failures[self])

    def _start_flushing(self) -> None:
        if not self._flush_task_runs:
            self._flush_task_runs = True
            self._scope.spawn(f"acknowledge {self.topic}-{self.index}", self._flush_while_needed())

    async def _flush_while_needed(self) -> None:
        log = self.log
        try:
            while not self.closed and self._must_flush():
                self._is_overdue = False
                await self._flusher.flushed(log, log.log_end_offset)
                self._on_flushed()
        except PartitionOffline:
            self._waiting_for_disk.fail(ErrorCode.KAFKA_STORAGE_ERROR)
            self._waiting_for_replicas.fail(ErrorCode.KAFKA_STORAGE_ERROR)
        finally:
            self._flush_task_runs = False

    def _must_flush(self) -> bool:
        log = self.log
        unflushed = log.log_end_offset - log.flushed_offset
        somebody_waits = self.flush_before_ack or bool(self._waiting_for_disk)
        return unflushed > 0 and (somebody_waits or self._is_overdue or unflushed >= log.config.flush_messages)

    def flush_overdue(self, now_ms: int) -> None:
        """Honour `flush.ms`, as exactly as this is called; nobody waits for it."""
        log = self.log
        if log.flushed_offset >= log.log_end_offset:
            self._unflushed_since_ms = None
        elif self._unflushed_since_ms is None:
            self._unflushed_since_ms = now_ms
        elif now_ms - self._unflushed_since_ms >= log.config.flush_ms:
            self._unflushed_since_ms = None
            self._is_overdue = True
            self._start_flushing()

    def _on_flushed(self) -> None:
        flushed_offset = self.log.flushed_offset
        if self.leader is not None:
            self.advance()
        elif self.role is Role.LEADER and flushed_offset > self.log.high_watermark:
            # Where the high watermark follows the append it is ahead of the disk, and must not go back.
            self._advance(flushed_offset)
            self._waiting_for_replicas.settle(flushed_offset)  # there were others when they began to wait
        self._waiting_for_disk.settle(flushed_offset)

    def expire(self, now_ms: int) -> None:
        """Answer REQUEST_TIMED_OUT to producers whose time is up; their records may still be stored."""
        self._waiting_for_disk.expire(now_ms)
        self._waiting_for_replicas.expire(now_ms)

    # -- as the leader of followers ---------------------------------------------------------------------------

    def on_replica_fetch(
        self, replica_id: int, offset: int, log_start_offset: int, broker_epoch: int, now_ms: int
    ) -> ErrorCode:
        """A follower fetches from `offset`, which is within our log and not diverged from it."""
        state = self.leader
        if state is None or not state.on_fetch(
            replica_id, offset, log_start_offset, broker_epoch, self.log.log_end_offset, now_ms
        ):
            # Most likely it knows of its office before we do. It asks again.
            return ErrorCode.UNKNOWN_LEADER_EPOCH
        if replica_id not in state.maximal_isr:
            proposal = state.expand(replica_id, self.log.high_watermark, self.log.log_start_offset)
            if proposal is not None:
                self._isr_changes.submit(self, proposal)
        self.advance(now_ms)
        if self.log_start_waits:
            self._tell_log_start()
        return ErrorCode.NONE

    def shrink_isr(self, now_ms: int) -> None:
        """By the clock: drop who lags, and let go of who was about to join and did not."""
        if self.leader is not None:
            proposal = self.leader.shrink(self.log.log_end_offset, now_ms)
            if proposal is not None:
                self._isr_changes.submit(self, proposal)
            self.advance(now_ms)

    def advance(self, now_ms: int | None = None) -> None:
        """Move the high watermark as far as the replicas that count have come."""
        state, log = self.leader, self.log
        if state is None:
            return
        own_offset = log.durability.flushed_offset if self.flush_before_ack else log.log_end_offset
        offset = state.replicated_offset(
            own_offset, log.log_end_offset, self._clock.mono_ms() if now_ms is None else now_ms
        )
        if offset > log.high_watermark:
            self._advance(offset)
            for wait in self.append_waits:
                wait.linger()
        if self._waiting_for_replicas:
            enough = len(state.isr) >= min(state.min_insync_replicas, self.replica_count)
            code = ErrorCode.NONE if enough else ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND
            self._waiting_for_replicas.settle(log.high_watermark, code)

    @property
    def low_watermark(self) -> int:
        """Lowest log start of all replicas that live, as far as they have told."""
        own = self.log.log_start_offset
        return own if self.leader is None else self.leader.low_watermark(own)

    async def log_starts_reached(self, offset: int) -> None:
        """Return once `low_watermark` is `offset` or more, or nothing is led here any more."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.log_start_waits[done] = offset
        try:
            self._tell_log_start()
            await done
        finally:
            self.log_start_waits.pop(done, None)

    def _tell_log_start(self) -> None:
        lowest = self.low_watermark
        for done, offset in self.log_start_waits.items():
            if offset <= lowest and not done.done():
                done.set_result(None)

    # -- as a follower ----------------------------------------------------------------------------------------

    def append_from_leader(self, batches: Buffer, high_watermark: int, log_start_offset: int, now_ms: int) -> None:
        """What the leader answered to a fetch from our log's end. Raises AppendRefused, PartitionOffline."""
        if len(batches):
            end_offset = self.log.log_end_offset
            try:
                self.log.append_from_leader(batches, log_start_offset, now_ms)
            except PartitionOffline as error:
                self._tell_refused(error)
                raise
            if self._watch.is_refusing:
                self._watch.accepted()
            if self.log.log_end_offset > end_offset:
                self._unseen_bytes += len(batches)
        self._follow_high_watermark(high_watermark)
        if log_start_offset > self.log.log_start_offset:
            self.log.advance_log_start(log_start_offset)
            self.on_log_start_moved()

    def _follow_high_watermark(self, high_watermark: int) -> None:
        """Never back: a new leader that has not heard from its followers yet knows less than we do."""
        self._told_high_watermark = high_watermark
        log = self.log
        known = min(high_watermark, log.durability.flushed_offset if self.flush_before_ack else log.log_end_offset)
        if known > log.high_watermark:
            self._advance(known)

    def on_follower_flushed(self) -> None:
        """What the leader told beyond our disk counts now: it does not tell the same twice."""
        if self.follower is not None:
            self._follow_high_watermark(self._told_high_watermark)

    def truncate(self, offset: int, now_ms: int) -> None:
        """Cut what the leader does not have. Blocks until the cut is on disk. Raises PartitionOffline."""
        self.log.truncate_to(offset, now_ms)
        self._unseen_bytes = 0

    def start_over(self, offset: int, now_ms: int) -> None:
        """Throw everything away: the leader's log begins behind our end. Raises PartitionOffline."""
        self.log.truncate_fully_and_start_at(offset, now_ms)
        self._unseen_bytes = 0
        self.on_log_start_moved()

    # -- reading ----------------------------------------------------------------------------------------------

    def readable_end_offset(self, isolation_level: int) -> int:
        """Exclusive end of what a consumer may see."""
        return self.log.last_stable_offset if isolation_level == READ_COMMITTED else self.log.high_watermark

    @property
    def is_high_watermark_known(self) -> bool:
        """False for a new leader whose followers have not told yet how far the one before had committed."""
        return self.leader is None or self.log.high_watermark >= self.leader.epoch_start_offset

    def _advance(self, high_watermark: int) -> None:
        self.log.high_watermark = high_watermark
        if self._unseen_bytes and high_watermark == self.log.log_end_offset:
            grown, self._unseen_bytes = self._unseen_bytes, 0
            if self.growth_waits:
                for wait in list(self.growth_waits):
                    wait.grow(grown)
        elif self.growth_waits:
            # Part of what was appended is visible now. How many bytes is not known; let them look.
            for wait in list(self.growth_waits):
                wait.wake()

    # -- changes ----------------------------------------------------------------------------------------------

    def update_config(self, config: LogConfig) -> None:
        """Go by another config; `on_config_updated` follows when the partition is as the same metadata have it."""
        self.log.update_config(config)
        self.set_replica_count(self.replica_count)

    def on_config_updated(self) -> None:
        """What was not committed yet may be by this config."""
        if self.leader is not None:
            self.advance()
        elif self.is_leader and not self.flush_before_ack:
            self._advance(self.log.log_end_offset)

    def on_log_start_moved(self) -> None:
        """Readers that wait below the new log start are to be told."""
        for wait in list(self.growth_waits):
            wait.wake()
        for wait in self.append_waits:
            wait.linger()
