"""One member of a classic consumer group: joins, learns its partitions, stays, gives up, leaves. Pure.

The problem. A group's members agree through a broker who owns which partition. At every change all of them join a new
generation; one, the leader, decides for all. What a member owns must be given up before anybody else gets it, work
in progress must be finished or committed first, and a member that was thrown out has to notice.

    OUT        no member, and not about to become one (not started, parked, left)
    RELEASING  the application is giving partitions up before we join
    JOINING    JoinGroup is under way, or waits for `retry_at_ms`
    LOADING    we lead: the topics of all members are being looked up
    SYNCING    SyncGroup is under way
    ADOPTING   the application is told what it lost and got
    STABLE     a member; heartbeats only
    FAILED     the group refused us for good

    OUT -> JOINING -> SYNCING -> ADOPTING -> STABLE -> RELEASING -> JOINING ...      (LOADING before SYNCING for the
    leader)

A rebalance is noticed by a heartbeat. The eager protocol gives up everything before joining; the cooperative one
(KIP-429) keeps everything, learns in ADOPTING what to give up, and joins again if that was anything, so that others
can get it. Who loses its generation (UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION) owns nothing any more: partitions are
`Lose`d, which the application hears as such, because committing is too late.

Heartbeats go on while the application releases or adopts, however long it takes; `on_overdue` is the driver's word
that it takes too long altogether (max.poll.interval.ms), and parks the member until the application is back.

Left out: KIP-848, where the broker decides. Sources: KIP-62, KIP-134, KIP-345 (static members), KIP-394, KIP-429,
KIP-814.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streamlog.client.assignors import Assignor, TopicSizes
from streamlog.client.failures import LOST_COORDINATOR
from streamlog.client.member_effects import (
    FATAL,
    HEARTBEATING,
    LEASE_MARGIN_SHARE,
    LOST_GENERATION,
    NO_GENERATION,
    Adopt,
    Effect,
    Fail,
    ForgetCoordinator,
    GroupRequest,
    LoadTopics,
    MembershipSettings,
    Phase,
    Release,
    Send,
)
from streamlog.client.subscription import (
    PROTOCOL_TYPE,
    Assignment,
    Member,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from streamlog.client.values import NO_EPOCH, GroupMetadata, TopicPartition
from streamlog.errors import RemoteProtocolError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import (
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    SyncGroupRequest,
    SyncGroupResponse,
)
from streamlog.wire.messages.join_group import JoinGroupRequestProtocol
from streamlog.wire.messages.leave_group import MemberIdentity
from streamlog.wire.messages.sync_group import SyncGroupRequestAssignment


class Membership:
    """See the module's essay. Every input returns the effects, in order."""

    def __init__(self, settings: MembershipSettings, assignors: Sequence[Assignor], draw: Callable[[], float]) -> None:
        self.settings = settings
        self.assignors = tuple(assignors)
        self.cooperative = all(one.cooperative for one in assignors)
        self.phase = Phase.OUT
        self.member_id = ""  # empty until the broker gave one; kept through rebalances
        self.generation_id = NO_GENERATION  # of the last join; valid while we are a member
        self.topics: tuple[str, ...] = ()  # subscribed, sorted
        self.owned: tuple[TopicPartition, ...] = ()  # what the application has, sorted; shrinks in RELEASING
        self.retry_at_ms: int | None = None  # JOINING without a request under way
        self._draw = draw  # uniform in [0, 1), for jitter
        self._owned_generation_id = NO_GENERATION  # in which `owned` was assigned
        self._awaiting: JoinGroupRequest | SyncGroupRequest | None = None  # under way; other answers are stale
        self._attempts = 0  # failed joins in a row
        self._heartbeat_at_ms = 0  # valid in HEARTBEATING phases
        self._heartbeat: HeartbeatRequest | None = None  # under way
        self._heard_at_ms = 0  # when the coordinator last confirmed our generation
        self._asked_at_ms = 0  # when what we are `_awaiting` was asked, at the earliest
        self._heartbeat_asked_at_ms = 0  # the same of `_heartbeat`
        self._confirmed_at_ms = 0  # when the last request was asked whose answer confirmed us; valid in a generation
        self._settled_at_ms = 0  # the same of an answer that told of no rebalance
        self._lost = False  # the generation was lost while the application was busy
        self._rejoin = ""  # why to join again as soon as ADOPTING is over; empty: no need
        self._assigned: Assignment | None = None  # ADOPTING: what the leader gave us
        self._members: tuple[Member, ...] = ()  # LOADING: what we have to decide about
        self._skip_assignment = False  # LOADING: the broker kept the old assignment (KIP-814)
        self._protocol_name = ""  # assignor of the generation
        self._led_sizes: dict[str, int] | None = None  # STABLE leader: the group's topics and partition counts

    # -- what others may know

    def metadata(self) -> GroupMetadata:
        return GroupMetadata(
            self.settings.group_id, self.generation_id, self.member_id, self.settings.group_instance_id
        )

    @property
    def leads(self) -> bool:
        return self._led_sizes is not None

    @property
    def led_topics(self) -> tuple[str, ...]:
        """Topics of all members, when this member leads; their metadata has to be kept fresh."""
        return tuple(self._led_sizes or ())

    @property
    def deadline_ms(self) -> int | None:
        """When `on_deadline` wants to be called."""
        if self.phase is Phase.JOINING:
            return self.retry_at_ms
        if self.phase in HEARTBEATING and self.generation_id != NO_GENERATION and self._heartbeat is None:
            return self._heartbeat_at_ms
        return None

    @property
    def lease_until_ms(self) -> int | None:
        """Until when we are surely a member, so that nobody else can have what is ours; None: we are none.

        The broker counts a session from a request's arrival, we from before it left. It also goes on without a member
        that does not join a rebalance, after the rebalance timeout; the rebalance began after the last answer that
        knew of none. While JoinGroup waits no session ends, but we cannot know how long it waits.
        """
        if self.generation_id == NO_GENERATION:
            return None
        settings = self.settings
        session_ms = settings.session_timeout_ms - settings.session_timeout_ms // LEASE_MARGIN_SHARE
        rebalance_ms = settings.rebalance_timeout_ms - settings.session_timeout_ms // LEASE_MARGIN_SHARE
        return min(self._confirmed_at_ms + session_ms, self._settled_at_ms + rebalance_ms)

    # -- inputs: the application

    def subscribe(self, topics: Sequence[str], now_ms: int) -> list[Effect]:
        """Want these topics from now on, and be a member."""
        self.topics = tuple(sorted(set(topics)))
        if self.phase is Phase.OUT:
            return self.resume(now_ms)
        return self._want_rejoin("the subscription changed", now_ms)

    def resume(self, now_ms: int) -> list[Effect]:
        """The application is back: join, once it has let go of what it had."""
        if self.phase is not Phase.OUT or self.owned or not self.topics:
            return []
        return self._prepare("the application asks for records", now_ms)

    def on_topics_changed(self, cluster: TopicSizes, now_ms: int) -> list[Effect]:
        """Metadata changed: a leader joins again when its group's topics have other sizes than it decided about."""
        if self.phase is not Phase.STABLE or self._led_sizes is None:
            return []
        if all(cluster.partition_count(topic) == count for topic, count in self._led_sizes.items()):
            return []
        return self._want_rejoin("topics changed", now_ms)

    def on_overdue(self, now_ms: int) -> list[Effect]:
        """The application does not come for records any more: leave, so that others can have its partitions."""
        if self.phase in (Phase.OUT, Phase.FAILED):
            return []
        leave = self.leave_request("the application made no progress for max.poll.interval.ms")
        effects: list[Effect] = [Send(leave)] if leave is not None else []
        busy = self.phase in (Phase.RELEASING, Phase.ADOPTING)
        self._forget_generation(forget_member=leave is not None)
        self.phase = Phase.OUT
        if not busy and self.owned:
            effects.append(Release(self.owned, lost=True))
        return effects

    def leave_request(self, reason: str) -> LeaveGroupRequest | None:
        """How to leave, or None: we are no member, or a static one, which is gone only after its session timeout."""
        settings = self.settings
        if settings.group_instance_id is None:
            is_member = bool(self.member_id)
        else:
            # The instance id is enough, also while the JoinGroup that will give us a member id is under way: without
            # this the broker would wait for a member that is gone.
            is_member = settings.leaves_when_static and self.phase is not Phase.OUT
        if not is_member:
            return None
        identity = MemberIdentity(member_id=self.member_id, group_instance_id=settings.group_instance_id, reason=reason)
        return LeaveGroupRequest(group_id=settings.group_id, members=[identity])

    def on_released(self, partitions: Sequence[TopicPartition], now_ms: int) -> list[Effect]:
        """The application is done with partitions it was asked to release."""
        gone = set(partitions)
        self.owned = tuple(one for one in self.owned if one not in gone)
        if self.phase is Phase.RELEASING:
            return self._release_more_or_join(now_ms)
        if self.phase is Phase.ADOPTING and self._assigned is not None:
            return self._adopt(now_ms)
        return self._drop_rest() if self.phase in (Phase.OUT, Phase.FAILED) else []

    def on_adopted(self, now_ms: int) -> list[Effect]:
        """The application has its new partitions."""
        if self.phase is not Phase.ADOPTING:
            return self._drop_rest() if self.phase in (Phase.OUT, Phase.FAILED) else []
        self.phase = Phase.STABLE
        if self._lost:
            return self._lose_everything(now_ms)
        if self._rejoin:
            return self._prepare(self._rejoin, now_ms)
        return []

    def _drop_rest(self) -> list[Effect]:
        """We are out of the group since the application began to release or adopt: nothing is ours any more."""
        return [Release(self.owned, lost=True)] if self.owned else []

    # -- inputs: time

    def on_deadline(self, now_ms: int) -> list[Effect]:
        if self.deadline_ms is None or now_ms < self.deadline_ms:
            return []
        if self.phase is Phase.JOINING:
            return self._join(now_ms)
        settings = self.settings
        self._heartbeat_asked_at_ms = now_ms
        self._heartbeat = HeartbeatRequest(
            group_id=settings.group_id,
            generation_id=self.generation_id,
            member_id=self.member_id,
            group_instance_id=settings.group_instance_id,
        )
        effects: list[Effect] = [Send(self._heartbeat)]
        if now_ms - self._heard_at_ms > settings.session_timeout_ms:
            effects.insert(0, ForgetCoordinator())  # it may have moved without our hearing
        return effects

    # -- inputs: the coordinator

    def on_failure(self, request: GroupRequest, now_ms: int) -> list[Effect]:
        """A request got no answer: no connection, no coordinator, or bytes that make no sense."""
        if request is self._heartbeat:
            self._heartbeat = None
            self._heartbeat_at_ms = now_ms + self._backoff(1)
        elif request is self._awaiting:
            self._awaiting = None
            return self._retry_join(now_ms)
        return []

    def on_heartbeat(self, request: HeartbeatRequest, error_code: int, now_ms: int) -> list[Effect]:
        if request is not self._heartbeat:
            return []
        self._heartbeat = None
        self._heartbeat_at_ms = now_ms + self.settings.heartbeat_interval_ms
        code = ErrorCode.of(error_code)
        if request.generation_id != self.generation_id:
            return []
        if code == ErrorCode.NONE:
            self._heard_at_ms = now_ms
            self._confirm(self._heartbeat_asked_at_ms, settled=True)
            return []
        if code == ErrorCode.REBALANCE_IN_PROGRESS:
            self._heard_at_ms = now_ms
            self._confirm(self._heartbeat_asked_at_ms, settled=False)
            return self._want_rejoin("the group is rebalancing", now_ms)
        if code in LOST_GENERATION:
            return self.on_generation_lost(self.generation_id, now_ms)
        if code in FATAL:
            return self._fail(code, "heartbeat")
        self._heartbeat_at_ms = now_ms + self._backoff(1)
        return [ForgetCoordinator()] if code in LOST_COORDINATOR else []

    def on_generation_lost(self, generation_id: int, now_ms: int) -> list[Effect]:
        """A heartbeat or a commit learned that the group goes on without `generation_id`."""
        if generation_id != self.generation_id or self.phase in (Phase.OUT, Phase.FAILED):
            return []
        if self.phase is Phase.STABLE:
            return self._lose_everything(now_ms)
        if self.phase in (Phase.RELEASING, Phase.ADOPTING):
            self._lost = True
            self._forget_generation(forget_member=False)
        return []  # in the other phases the answer under way will say it

    def on_join(self, request: JoinGroupRequest, response: JoinGroupResponse, now_ms: int) -> list[Effect]:
        if request is not self._awaiting:
            return []
        self._awaiting = None
        code = ErrorCode.of(response.error_code)
        if code == ErrorCode.NONE:
            return self._joined(response, now_ms)
        if code == ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = response.member_id
            return self._join(now_ms)
        if code in LOST_GENERATION and request.member_id:
            return self._lose_everything(now_ms)
        if code in FATAL:
            return self._fail(code, "joining")
        forget: list[Effect] = [ForgetCoordinator()] if code in LOST_COORDINATOR else []
        return forget + self._retry_join(now_ms)

    def on_topics_loaded(self, cluster: TopicSizes, now_ms: int) -> list[Effect]:
        """The leader knows the sizes of all topics: decide."""
        if self.phase is not Phase.LOADING:
            return []
        topics = sorted({topic for member in self._members for topic in member.subscription.topics})
        self._led_sizes = {topic: cluster.partition_count(topic) for topic in topics}
        assignments: list[SyncGroupRequestAssignment] = []
        if not self._skip_assignment:
            decided = self._assignor().assign(cluster, self._members)
            for member in self._members:
                mine = decided.get(member.member_id, Assignment(()))
                assignments.append(
                    SyncGroupRequestAssignment(member_id=member.member_id, assignment=encode_assignment(mine))
                )
        self._members = ()
        return self._sync(assignments, now_ms)

    def on_sync(self, request: SyncGroupRequest, response: SyncGroupResponse, now_ms: int) -> list[Effect]:
        if request is not self._awaiting:
            return []
        self._awaiting = None
        code = ErrorCode.of(response.error_code)
        if code == ErrorCode.NONE:
            try:
                self._assigned = decode_assignment(response.assignment)
            except RemoteProtocolError:
                return self._fail(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, "the leader's assignment is unreadable")
            return self._assignment(now_ms)
        if code in LOST_GENERATION:
            return self._lose_everything(now_ms)
        if code in FATAL:
            return self._fail(code, "syncing")
        if code == ErrorCode.REBALANCE_IN_PROGRESS:
            return self._prepare("the group rebalanced again", now_ms)
        forget: list[Effect] = [ForgetCoordinator()] if code in LOST_COORDINATOR else []
        return forget + self._retry_join(now_ms)

    # -- the way into a generation

    def _want_rejoin(self, why: str, now_ms: int) -> list[Effect]:
        if self.phase is Phase.STABLE:
            return self._prepare(why, now_ms)
        if self.phase is Phase.ADOPTING:
            self._rejoin = why
        return []  # in the other phases we are about to join anyway

    def _prepare(self, why: str, now_ms: int) -> list[Effect]:
        """Give up what has to be given up first, then join."""
        self._rejoin = why
        self._led_sizes = None
        if self.phase not in HEARTBEATING:
            self._heartbeat_at_ms = now_ms
        self.phase = Phase.RELEASING
        leaving = tuple(one for one in self.owned if not self.cooperative or one.topic not in self.topics)
        return [Release(leaving, lost=False)] if leaving else self._release_more_or_join(now_ms)

    def _release_more_or_join(self, now_ms: int) -> list[Effect]:
        if self._lost and self.owned:
            return [Release(self.owned, lost=True)]
        self._lost = False
        return self._join(now_ms)

    def _lose_everything(self, now_ms: int) -> list[Effect]:
        """Others may own our partitions already: drop them and come back as a new member."""
        self._forget_generation(forget_member=True)
        self._rejoin = "the member lost its generation"
        self.phase = Phase.RELEASING
        self._lost = True
        return self._release_more_or_join(now_ms)

    def _forget_generation(self, *, forget_member: bool) -> None:
        self.generation_id = self._owned_generation_id = NO_GENERATION
        if forget_member:
            self.member_id = ""  # a static member is known by its instance id
        self._awaiting = self._heartbeat = None
        self._led_sizes = None

    def _join(self, now_ms: int) -> list[Effect]:
        settings = self.settings
        owned = self.owned if self.cooperative else ()
        protocols = [
            JoinGroupRequestProtocol(
                name=assignor.name,
                metadata=encode_subscription(
                    Subscription(
                        self.topics,
                        assignor.subscription_userdata(self.topics),
                        owned,
                        self._owned_generation_id,
                        settings.rack_id,
                    )
                ),
            )
            for assignor in self.assignors
        ]
        self.phase = Phase.JOINING
        self.retry_at_ms = None
        self._asked_at_ms = now_ms
        self._awaiting = JoinGroupRequest(
            group_id=settings.group_id,
            session_timeout_ms=settings.session_timeout_ms,
            rebalance_timeout_ms=settings.rebalance_timeout_ms,
            member_id=self.member_id,
            group_instance_id=settings.group_instance_id,
            protocol_type=PROTOCOL_TYPE,
            protocols=protocols,
            reason=self._rejoin or None,
        )
        return [Send(self._awaiting)]

    def _retry_join(self, now_ms: int) -> list[Effect]:
        self._attempts += 1
        self.phase = Phase.JOINING
        self.retry_at_ms = now_ms + self._backoff(self._attempts)
        return []

    def _backoff(self, attempts: int) -> int:
        backoff_ms = min(self.settings.retry_backoff_ms << min(attempts - 1, 16), 1_000)
        return int(backoff_ms * (0.8 + 0.4 * self._draw()))

    def _joined(self, response: JoinGroupResponse, now_ms: int) -> list[Effect]:
        self.member_id = response.member_id
        self.generation_id = response.generation_id
        self._protocol_name = response.protocol_name or ""
        self._attempts = 0
        self._heard_at_ms = now_ms
        self._confirm(self._asked_at_ms, settled=True)
        self._heartbeat = None
        self._heartbeat_at_ms = now_ms + self.settings.heartbeat_interval_ms
        if all(one.name != self._protocol_name for one in self.assignors):
            return self._fail(
                ErrorCode.INCONSISTENT_GROUP_PROTOCOL, f"the group uses '{self._protocol_name}', which we did not offer"
            )
        if response.leader != response.member_id:
            return self._sync([], now_ms)
        self._members = tuple(
            Member(one.member_id, one.group_instance_id, _subscription(one.metadata)) for one in response.members
        )
        self._skip_assignment = response.skip_assignment
        self.phase = Phase.LOADING
        return [LoadTopics(tuple(sorted({topic for one in self._members for topic in one.subscription.topics})))]

    def _assignor(self) -> Assignor:
        return next(one for one in self.assignors if one.name == self._protocol_name)

    def _confirm(self, asked_at_ms: int, *, settled: bool) -> None:
        """The answer to what was asked then says that we are a member; `settled`: and that no rebalance had begun."""
        self._confirmed_at_ms = max(self._confirmed_at_ms, asked_at_ms)
        if settled:
            self._settled_at_ms = max(self._settled_at_ms, asked_at_ms)

    def _sync(self, assignments: list[SyncGroupRequestAssignment], now_ms: int) -> list[Effect]:
        self.phase = Phase.SYNCING
        self._asked_at_ms = now_ms
        self._awaiting = SyncGroupRequest(
            group_id=self.settings.group_id,
            generation_id=self.generation_id,
            member_id=self.member_id,
            group_instance_id=self.settings.group_instance_id,
            protocol_type=PROTOCOL_TYPE,
            protocol_name=self._protocol_name,
            assignments=assignments,
        )
        return [Send(self._awaiting)]

    def _assignment(self, now_ms: int) -> list[Effect]:
        """We know what we get: first give up the rest, then take what is new."""
        assert self._assigned is not None, "set by on_sync"
        self.phase = Phase.ADOPTING
        self._rejoin = ""
        self._lost = False
        self._heard_at_ms = now_ms
        self._confirm(self._asked_at_ms, settled=True)
        mine = set(self._assigned.partitions)
        leaving = tuple(one for one in self.owned if one not in mine)
        if leaving:
            self._rejoin = "partitions were given up for others"
            return [Release(leaving, lost=False)]
        return self._adopt(now_ms)

    def _adopt(self, now_ms: int) -> list[Effect]:
        assigned, self._assigned = self._assigned, None
        assert assigned is not None, "ADOPTING begins with an assignment"
        if self._lost:
            return self._lose_everything(now_ms)
        before = set(self.owned)
        added = tuple(sorted(one for one in set(assigned.partitions) if one not in before))
        self.owned = tuple(sorted({*before, *added}))
        self._owned_generation_id = self.generation_id
        self._assignor().on_assignment(assigned, self.generation_id)
        return [Adopt(added)]

    def _fail(self, code: ErrorCode, what: str) -> list[Effect]:
        owned = self.owned
        self._forget_generation(forget_member=True)
        self.phase = Phase.FAILED
        error = KafkaError(code, f"group '{self.settings.group_id}' refused this consumer: {what}")
        return [Release(owned, lost=True), Fail(error)] if owned else [Fail(error)]


def _subscription(metadata: bytes) -> Subscription:
    """What a member said; who says nonsense gets nothing, and the others their partitions."""
    try:
        return decode_subscription(metadata)
    except RemoteProtocolError:
        return Subscription((), None, (), NO_EPOCH)
