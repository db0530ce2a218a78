"""Carries out what `membership.py` decides: requests to the coordinator, callbacks of the application, heartbeats.

Requests and callbacks run as tasks of their own and report back to the core, which is only ever touched from this
event loop, synchronously. So heartbeats go on while a callback works, and a slow coordinator holds up nothing.

Callbacks run one after another, in the order of the core's effects. Partitions that are to be given up are held back
from the application at once; then we wait until it comes for more records, because only then it is done with those it
has.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, assert_never

from streamlog.client.cluster import GROUP_COORDINATOR, Cluster
from streamlog.client.committing import Committer
from streamlog.client.failures import one_line
from streamlog.client.fetcher import Fetcher
from streamlog.client.lease import Lease
from streamlog.client.links import Lane
from streamlog.client.member_effects import (
    NO_GENERATION,
    Adopt,
    Effect,
    Fail,
    ForgetCoordinator,
    LoadTopics,
    Phase,
    Release,
    Send,
)
from streamlog.client.membership import Membership
from streamlog.client.values import GroupMetadata, TopicPartition
from streamlog.env import cancel_requests
from streamlog.errors import StreamlogError, UserError
from streamlog.wire.apis import ApiKey
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages import (
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    LeaveGroupResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)

log = logging.getLogger(__name__)

PartitionsCallback: TypeAlias = Callable[[list[TopicPartition]], Awaitable[None] | None]

JOIN_GRACE_MS = 5_000
"""A broker answers JoinGroup within the rebalance timeout; this much more is for the way (Java waits as long)."""

LEAVE_TIMEOUT_MS = 2_000
"""Leaving is a courtesy to the others; who cannot leave is removed when its session ends."""


class Group:
    """See the module's essay."""

    def __init__(
        self,
        cluster: Cluster,
        fetcher: Fetcher,
        membership: Membership,
        *,
        max_poll_interval_ms: int,
        auto_commit: bool,
        lease: Lease | None = None,
    ) -> None:
        """`lease`: is given for as long as we are surely a member."""
        self._lease = lease
        self.membership = membership
        self.failure: BaseException | None = None  # why this consumer gets nothing any more
        self.on_assigned: PartitionsCallback | None = None
        self.on_revoked: PartitionsCallback | None = None
        self.on_lost: PartitionsCallback | None = None
        self._cluster = cluster
        self._clock = cluster.env.clock
        self._fetcher = fetcher
        self._group_id = membership.settings.group_id
        self._max_poll_interval_ms = max_poll_interval_ms
        self._auto_commit = auto_commit
        self._callbacks: deque[Release | Adopt] = deque()
        self._callbacks_wanted = asyncio.Event()
        self._callbacks_done = asyncio.Event()  # set while no callback runs or waits
        self._callbacks_done.set()
        self._at_fetch = True  # the application waits for records, or has not begun yet
        self._may_release = asyncio.Event()  # it has none in hand, or has them without right
        self._may_release.set()
        self._left_fetch_at_ms = 0  # when it went away with some; valid while not _at_fetch
        self._settled = asyncio.Event()  # set while commits are not refused for a rebalance, or we are closing
        self.committer = Committer(cluster, fetcher.positions, membership, self._settled, self._on_generation_lost)
        self._timer: asyncio.TimerHandle | None = None
        self._started = False
        self._closing = False
        self._join_under_way = False  # a JoinGroup has left and is not answered
        cluster.on_change(self._on_metadata)

    # -- the application

    def subscribe(self, topics: Sequence[str]) -> None:
        """Be a member that wants these topics."""
        self._cluster.track(topics)
        if not self._started:
            self._started = True
            self._cluster.scope.spawn("callbacks", self._run_callbacks())
        self._do(self.membership.subscribe(topics, self._clock.mono_ms()))

    def enter_fetch(self) -> None:
        """The application comes for records: it is done with those it had."""
        self._at_fetch = True
        self._open_gate()
        out = self.membership.phase is Phase.OUT and self._callbacks_done.is_set()
        if self._started and out and not self._closing:
            self._do(self.membership.resume(self._clock.mono_ms()))

    def leave_fetch(self) -> None:
        """The application goes away with records, or to do something else."""
        self._at_fetch = False
        self._open_gate()
        self.progress()

    def _open_gate(self) -> None:
        """Callbacks that take partitions away wait for the application, unless they belong to others already."""
        if self._at_fetch or self._closing or self.membership.generation_id == NO_GENERATION:
            self._may_release.set()
        else:
            self._may_release.clear()

    def progress(self) -> None:
        """The application says that it gets on: max.poll.interval.ms begins again."""
        self._left_fetch_at_ms = self._clock.mono_ms()

    def _on_generation_lost(self, generation_id: int) -> None:
        self._do(self.membership.on_generation_lost(generation_id, self._clock.mono_ms()))

    def metadata(self) -> GroupMetadata:
        return self.membership.metadata()

    async def close(self) -> None:
        """Have the application give everything up, leave the group. Bounded by the callbacks' own time."""
        try:
            if self._started and self.failure is None and not self._closing:
                self._closing = True
                self._settled.set()
                self._open_gate()
                if self.membership.owned and self._cluster.crashed is None:
                    lost = self.membership.generation_id == NO_GENERATION
                    self._add_callback(Release(self.membership.owned, lost))
                await self._callbacks_done.wait()
                self._end_lease()  # others can have the partitions from the next line on
                request = self.membership.leave_request("the consumer was closed")
                if request is not None:
                    await self._leave(request)
        finally:
            self._closing = True
            self._end_lease()
            if self._timer is not None:
                self._timer.cancel()

    # -- what the membership entitles to

    def _follow_lease(self) -> None:
        """At every word of the coordinator, before anybody acts on it."""
        if self._lease is not None and self.failure is None:
            self._lease.give(self.membership.lease_until_ms)

    def _end_lease(self) -> None:
        """For good; what is still to be answered changes nothing."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.give(None)

    # -- effects

    def _do(self, effects: Sequence[Effect]) -> None:
        self._follow_lease()
        scope = self._cluster.scope
        for effect in effects:
            match effect:
                case Send(request):
                    if isinstance(request, LeaveGroupRequest):
                        scope.spawn("leave", self._leave(request))
                    else:
                        scope.spawn(type(request).__name__, self._send(request))
                case ForgetCoordinator():
                    self._cluster.forget_coordinator(GROUP_COORDINATOR, self._group_id)
                case LoadTopics(topics):
                    scope.spawn("load topics", self._load_topics(topics))
                case Release() | Adopt():
                    self._add_callback(effect)
                case Fail(error):
                    log.error("group=%s %s", self._group_id, one_line(error))
                    self.failure = error
                    self._fetcher.wake()
                case _:
                    assert_never(effect)
        if not self._closing and self.membership.phase in (Phase.JOINING, Phase.LOADING, Phase.SYNCING):
            self._settled.clear()
        else:
            self._settled.set()
        self._open_gate()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_ms = self.membership.deadline_ms
        if self._closing or deadline_ms is None:
            return
        delay_ms = max(deadline_ms - self._clock.mono_ms(), 0)
        self._timer = asyncio.get_running_loop().call_later(delay_ms / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now_ms = self._clock.mono_ms()
        if self._overdue(now_ms):
            log.warning("group=%s left: no progress for %d ms", self._group_id, self._max_poll_interval_ms)
            self._do(self.membership.on_overdue(now_ms))
        else:
            self._do(self.membership.on_deadline(now_ms))

    def _overdue(self, now_ms: int) -> bool:
        return not self._at_fetch and now_ms - self._left_fetch_at_ms > self._max_poll_interval_ms

    def _on_metadata(self) -> None:
        if self._started and not self._closing:
            self._do(self.membership.on_topics_changed(self._cluster.metadata, self._clock.mono_ms()))

    async def _load_topics(self, topics: Sequence[str]) -> None:
        """Know the sizes of the group's topics; those that nobody can tell count as empty."""
        while not self._cluster.track(topics):
            try:
                await self._cluster.refresh(topics)
                break
            except StreamlogError as failure:
                log.info("group=%s leader waits for metadata: %s", self._group_id, one_line(failure))
        try:
            effects = self.membership.on_topics_loaded(self._cluster.metadata, self._clock.mono_ms())
        except Exception as failure:
            self._on_application_failure(failure)  # an assignor of the application
            return
        self._do(effects)

    async def _send(self, request: JoinGroupRequest | SyncGroupRequest | HeartbeatRequest) -> None:
        """One request to the coordinator, and its answer to the core."""
        membership = self.membership
        settings = membership.settings
        try:
            node_id = await self._cluster.coordinator(GROUP_COORDINATOR, self._group_id)
            connection = await self._cluster.connection(node_id, Lane.GROUP)
            if isinstance(request, HeartbeatRequest):
                heartbeat = await connection.request(request, HeartbeatResponse, timeout_ms=settings.session_timeout_ms)
                effects = membership.on_heartbeat(request, heartbeat.error_code, self._clock.mono_ms())
            elif isinstance(request, JoinGroupRequest):
                if self._closing:
                    return  # nobody would be there for what it brings
                timeout_ms = settings.rebalance_timeout_ms + JOIN_GRACE_MS
                self._join_under_way = True
                try:
                    joined = await connection.request(request, JoinGroupResponse, timeout_ms=timeout_ms)
                finally:
                    self._join_under_way = False
                effects = membership.on_join(request, joined, self._clock.mono_ms())
            else:
                timeout_ms = settings.rebalance_timeout_ms + JOIN_GRACE_MS
                synced = await connection.request(request, SyncGroupResponse, timeout_ms=timeout_ms)
                effects = membership.on_sync(request, synced, self._clock.mono_ms())
        except StreamlogError as failure:
            log.info("group=%s coordinator unreachable: %s", self._group_id, one_line(failure))
            self._cluster.forget_coordinator(GROUP_COORDINATOR, self._group_id)
            effects = membership.on_failure(request, self._clock.mono_ms())
        self._follow_lease()
        if not self._closing:
            self._do(effects)
            log.debug("group=%s generation=%d phase=%s", self._group_id, membership.generation_id, membership.phase)

    async def _leave(self, request: LeaveGroupRequest) -> None:
        """Say that we go. Cancelling, or a coordinator that does not answer, leaves it to the end of the session.

        The JoinGroup that may be under way goes another road, because it is answered last of all, and so it can arrive
        behind us: then nobody knows us yet, and would wait for us later. So we say it again.
        """
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_MS / 1000):
                node_id = await self._cluster.coordinator(GROUP_COORDINATOR, self._group_id)
                connection = await self._cluster.connection(node_id, Lane.CONTROL)
                if connection.version_of(ApiKey.LEAVE_GROUP) < 3:
                    request = LeaveGroupRequest(group_id=request.group_id, member_id=request.members[0].member_id)
                while True:
                    may_come_later = self._join_under_way
                    left = await connection.request(request, LeaveGroupResponse)
                    codes = {left.error_code, *(member.error_code for member in left.members)}
                    if not may_come_later or ErrorCode.UNKNOWN_MEMBER_ID not in codes:
                        return
                    await asyncio.sleep(self._cluster.settings.retry_backoff_ms / 1000)
        except (StreamlogError, TimeoutError) as failure:
            log.info("group=%s could not leave, its session will end: %s", self._group_id, one_line(failure))

    # -- callbacks

    def _add_callback(self, effect: Release | Adopt) -> None:
        if isinstance(effect, Release):
            self._fetcher.hold(effect.partitions)
        self._callbacks.append(effect)
        self._callbacks_done.clear()
        self._callbacks_wanted.set()

    async def _run_callbacks(self) -> None:
        while True:
            await self._callbacks_wanted.wait()
            self._callbacks_wanted.clear()
            while self._callbacks:
                effect = self._callbacks.popleft()
                requests = cancel_requests()
                try:
                    if isinstance(effect, Release):
                        await self._release(effect)
                    else:
                        await self._adopt(effect)
                except asyncio.CancelledError as error:
                    if cancel_requests() > requests:
                        raise
                    failure = UserError("a callback of the group awaited something that was cancelled")
                    failure.__cause__ = error
                    self._on_application_failure(failure)
                except Exception as failure:
                    self._on_application_failure(failure)
            self._callbacks_done.set()

    async def _release(self, effect: Release) -> None:
        partitions = [one for one in effect.partitions if one in self._fetcher.positions.by_partition]
        lost = effect.lost
        if partitions:
            if not lost:
                await self._may_release.wait()
                lost = self.membership.generation_id == NO_GENERATION  # it took too long, or something else went wrong
            log.info("group=%s %s %s", self._group_id, "lost" if lost else "revoked", _listed(partitions))
            if lost and self.on_lost is not None:
                await _call(self.on_lost, partitions)
            elif self._auto_commit and not lost:
                await self.committer.commit_processed(partitions)
            if (not lost or self.on_lost is None) and self.on_revoked is not None:
                await _call(self.on_revoked, partitions)
            self._fetcher.remove(partitions)
        effects = self.membership.on_released(effect.partitions, self._clock.mono_ms())
        if not self._closing:
            self._do(effects)

    async def _adopt(self, effect: Adopt) -> None:
        partitions = list(effect.partitions)
        log.info(
            "group=%s generation=%d assigned %s", self._group_id, self.membership.generation_id, _listed(partitions)
        )
        self._fetcher.add(partitions)
        if self.on_assigned is not None:
            await _call(self.on_assigned, partitions)
        self._fetcher.release(partitions)
        effects = self.membership.on_adopted(self._clock.mono_ms())
        if not self._closing:
            self._do(effects)

    def _on_application_failure(self, failure: Exception) -> None:
        """A callback or an assignor of the application raised: a member that is half rebalanced must not go on."""
        log.error("group=%s stops: %r", self._group_id, failure)
        self.failure = failure
        self._closing = True
        self._end_lease()
        self._settled.set()
        partitions = list(self._fetcher.positions.by_partition)
        self._fetcher.remove(partitions)
        request = self.membership.leave_request("a callback failed")
        if request is not None:
            self._cluster.scope.spawn("leave", self._leave(request))
        self._fetcher.wake()


async def _call(callback: PartitionsCallback, partitions: list[TopicPartition]) -> None:
    result = callback(list(partitions))
    if inspect.isawaitable(result):
        await result


def _listed(partitions: Sequence[TopicPartition]) -> str:
    names = [str(one) for one in partitions[:20]]
    return ",".join(names) + (f" and {len(partitions) - 20} more" if len(partitions) > 20 else "") or "nothing"
