"""The group member's core: what it asks for, in which order, and what it does when the group says no."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlog.client.assignors import Assignor, CooperativeStickyAssignor, RangeAssignor
from streamlog.client.member_effects import (
    Adopt,
    Effect,
    Fail,
    ForgetCoordinator,
    LoadTopics,
    MembershipSettings,
    Phase,
    Release,
    Send,
)
from streamlog.client.membership import Membership
from streamlog.client.subscription import (
    Assignment,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from streamlog.client.values import TopicPartition
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages import (
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    SyncGroupRequest,
    SyncGroupResponse,
)
from streamlog.wire.messages.join_group import JoinGroupResponseMember

SIX = [TopicPartition("t", number) for number in range(6)]


class Sizes:
    def __init__(self, **counts: int) -> None:
        self.counts = counts

    def partition_count(self, topic: str) -> int:
        return self.counts.get(topic, 0)


def member(assignor: Assignor | None = None, instance_id: str | None = None) -> Membership:
    settings_ = MembershipSettings("g", instance_id, 10_000, 60_000, 3_000, 100, None)
    return Membership(settings_, [assignor or CooperativeStickyAssignor()], lambda: 0.5)


def sent(effects: Sequence[Effect]) -> object:
    (effect,) = effects
    assert isinstance(effect, Send)
    return effect.request


def join_request(effects: Sequence[Effect]) -> JoinGroupRequest:
    request = sent(effects)
    assert isinstance(request, JoinGroupRequest)
    return request


def sync_request(effects: Sequence[Effect]) -> SyncGroupRequest:
    request = sent(effects)
    assert isinstance(request, SyncGroupRequest)
    return request


def joined(
    generation_id: int, *, name: str = "cooperative-sticky", leader: str = "other", member_id: str = "me"
) -> JoinGroupResponse:
    return JoinGroupResponse(generation_id=generation_id, protocol_name=name, leader=leader, member_id=member_id)


def synced(*partitions: TopicPartition) -> SyncGroupResponse:
    return SyncGroupResponse(assignment=encode_assignment(Assignment(tuple(partitions))))


def stable(core: Membership, *partitions: TopicPartition, generation_id: int = 1) -> None:
    """Bring a new member into a generation, as a follower."""
    request = join_request(core.subscribe(["t"], 0))
    effects = core.on_join(request, joined(generation_id, name=core.assignors[0].name), 0)
    assert core.on_sync(sync_request(effects), synced(*partitions), 0) == [Adopt(tuple(sorted(partitions)))]
    assert core.on_adopted(0) == []
    assert core.phase is Phase.STABLE


def heartbeat(core: Membership, now_ms: int) -> HeartbeatRequest:
    request = sent(core.on_deadline(now_ms))
    assert isinstance(request, HeartbeatRequest)
    return request


def test_a_new_member_joins_syncs_and_adopts() -> None:
    """JoinGroup with the subscription, SyncGroup, then the partitions, then heartbeats."""
    core = member()
    request = join_request(core.subscribe(["t", "s"], 0))
    assert (request.member_id, request.protocol_type) == ("", "consumer")
    assert decode_subscription(request.protocols[0].metadata).topics == ("s", "t")
    effects = core.on_join(request, joined(3), 1)
    sync = sync_request(effects)
    assert (sync.generation_id, sync.member_id, sync.assignments) == (3, "me", [])
    assert core.on_sync(sync, synced(SIX[1], SIX[0]), 2) == [Adopt((SIX[0], SIX[1]))]
    assert core.on_adopted(3) == []
    assert core.deadline_ms == 3_001
    assert heartbeat(core, 3_001).generation_id == 3


def lease(core: Membership) -> int | None:
    return core.lease_until_ms


def test_the_lease_runs_from_before_a_request_left() -> None:
    """A session of 10 s less a tenth after the last request that was answered well was made; not after the answer."""
    core = member()
    assert lease(core) is None
    request = join_request(core.subscribe(["t"], 1_000))
    assert lease(core) is None
    sync = sync_request(core.on_join(request, joined(1), 5_000))
    assert lease(core) == 1_000 + 9_000
    core.on_sync(sync, synced(*SIX), 6_000)
    assert lease(core) == 5_000 + 9_000
    core.on_adopted(6_000)
    beat = heartbeat(core, 8_000)
    assert lease(core) == 5_000 + 9_000
    core.on_heartbeat(beat, ErrorCode.NONE, 8_500)
    assert lease(core) == 8_000 + 9_000
    beat = heartbeat(core, 11_500)
    core.on_failure(beat, 12_000)
    assert lease(core) == 8_000 + 9_000


def test_a_rebalance_prolongs_the_lease_only_up_to_its_own_end() -> None:
    """The session goes on, but after the rebalance timeout of 60 s the group does so without us."""
    core = member(RangeAssignor())
    stable(core, *SIX)
    core.on_heartbeat(heartbeat(core, 3_000), ErrorCode.REBALANCE_IN_PROGRESS, 3_100)
    assert core.phase is Phase.RELEASING
    assert lease(core) == 3_000 + 9_000
    now_ms = 6_200
    while now_ms < 55_000:
        core.on_heartbeat(heartbeat(core, now_ms), ErrorCode.REBALANCE_IN_PROGRESS, now_ms)
        assert lease(core) == min(now_ms + 9_000, 0 + 59_000)
        now_ms += 3_100


@pytest.mark.parametrize("code", [ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION])
def test_who_loses_its_generation_loses_the_lease_at_once(code: ErrorCode) -> None:
    """Before the application has let go of anything; the next generation gives another one."""
    core = member()
    stable(core, *SIX)
    core.on_heartbeat(heartbeat(core, 3_000), code, 3_100)
    assert lease(core) is None
    request = join_request(core.on_released(SIX, 4_000))
    assert lease(core) is None
    core.on_join(request, joined(7), 4_500)
    assert lease(core) == 4_000 + 9_000


def test_a_member_id_is_taken_and_used_at_once() -> None:
    """KIP-394: the first join is answered with an id to join under."""
    core = member()
    request = join_request(core.subscribe(["t"], 0))
    refusal = JoinGroupResponse(error_code=ErrorCode.MEMBER_ID_REQUIRED, member_id="me")
    assert join_request(core.on_join(request, refusal, 0)).member_id == "me"


def test_the_leader_assigns_for_everybody() -> None:
    """It wants the topics of all members, and sends each its assignment."""
    core = member(RangeAssignor())
    request = join_request(core.subscribe(["t"], 0))
    members = [
        JoinGroupResponseMember(member_id="me", metadata=encode_subscription(Subscription(("t",)))),
        JoinGroupResponseMember(member_id="you", metadata=encode_subscription(Subscription(("t", "u")))),
        JoinGroupResponseMember(member_id="zombie", metadata=b"\x00"),
    ]
    answer = joined(1, name="range", leader="me")
    answer.members = members
    assert core.on_join(request, answer, 0) == [LoadTopics(("t", "u"))]
    sync = sync_request(core.on_topics_loaded(Sizes(t=2, u=1), 0))
    assigned = {one.member_id: decode_assignment(one.assignment).partitions for one in sync.assignments}
    assert assigned == {
        "me": (TopicPartition("t", 0),),
        "you": (TopicPartition("t", 1), TopicPartition("u", 0)),
        "zombie": (),
    }
    core.on_sync(sync, synced(TopicPartition("t", 0)), 0)
    core.on_adopted(0)
    assert core.leads
    assert core.on_topics_changed(Sizes(t=2, u=1), 0) == []
    assert core.on_topics_changed(Sizes(t=3, u=1), 0) == [Release((TopicPartition("t", 0),), lost=False)]


def test_an_eager_member_gives_everything_up_before_it_joins() -> None:
    """Heartbeats go on while the application works on it."""
    core = member(RangeAssignor())
    stable(core, *SIX[:2])
    effects = core.on_heartbeat(heartbeat(core, 3_000), ErrorCode.REBALANCE_IN_PROGRESS, 3_000)
    assert effects == [Release((SIX[0], SIX[1]), lost=False)]
    assert core.phase is Phase.RELEASING
    assert core.on_heartbeat(heartbeat(core, 6_000), ErrorCode.REBALANCE_IN_PROGRESS, 6_000) == []
    request = join_request(core.on_released(SIX[:2], 7_000))
    assert (request.member_id, decode_subscription(request.protocols[0].metadata).owned) == ("me", ())


def test_a_cooperative_member_keeps_its_partitions_and_gives_up_what_moved() -> None:
    """It joins with what it owns, releases what it lost, and joins again so that others can have it."""
    core = member()
    stable(core, *SIX[:4])
    effects = core.on_heartbeat(heartbeat(core, 3_000), ErrorCode.REBALANCE_IN_PROGRESS, 3_000)
    request = join_request(effects)
    subscription = decode_subscription(request.protocols[0].metadata)
    assert (subscription.owned, subscription.generation_id) == (tuple(SIX[:4]), 1)
    sync = sync_request(core.on_join(request, joined(2), 3_001))
    effects = core.on_sync(sync, synced(*SIX[:2], SIX[5]), 3_002)
    assert effects == [Release((SIX[2], SIX[3]), lost=False)]
    assert core.on_released(SIX[2:4], 3_003) == [Adopt((SIX[5],))]
    again = join_request(core.on_adopted(3_004))
    subscription = decode_subscription(again.protocols[0].metadata)
    assert (subscription.owned, subscription.generation_id) == ((SIX[0], SIX[1], SIX[5]), 2)


def test_who_lost_its_generation_loses_its_partitions_and_comes_back() -> None:
    """They may be another's already, so they are lost, not revoked; the member id is forgotten."""
    core = member()
    stable(core, *SIX[:2])
    effects = core.on_heartbeat(heartbeat(core, 3_000), ErrorCode.UNKNOWN_MEMBER_ID, 3_000)
    assert effects == [Release((SIX[0], SIX[1]), lost=True)]
    request = join_request(core.on_released(SIX[:2], 3_001))
    assert (request.member_id, decode_subscription(request.protocols[0].metadata).owned) == ("", ())


def test_a_generation_lost_while_releasing_loses_the_rest_afterwards() -> None:
    """The application finishes what it was told; what it still has is lost."""
    core = member()
    stable(core, *SIX[:4])
    request = join_request(core.on_heartbeat(heartbeat(core, 3_000), ErrorCode.REBALANCE_IN_PROGRESS, 3_000))
    core.on_sync(sync_request(core.on_join(request, joined(2), 3_000)), synced(*SIX[:2]), 3_000)
    assert core.on_heartbeat(heartbeat(core, 6_000), ErrorCode.UNKNOWN_MEMBER_ID, 6_000) == []
    assert core.on_released(SIX[2:4], 6_001) == [Release((SIX[0], SIX[1]), lost=True)]
    join_request(core.on_released(SIX[:2], 6_002))


def test_a_commit_that_was_refused_tells_of_the_lost_generation() -> None:
    """But only if nothing newer is known."""
    core = member()
    stable(core, SIX[0])
    assert core.on_generation_lost(0, 10) == []
    assert core.on_generation_lost(1, 10) == [Release((SIX[0],), lost=True)]


def test_who_makes_no_progress_leaves_and_comes_back_when_it_does() -> None:
    """The others get the partitions at once; the application hears that it lost them."""
    core = member()
    stable(core, SIX[0])
    leave, lose = core.on_overdue(1_000)
    assert isinstance(leave, Send)
    assert isinstance(leave.request, LeaveGroupRequest)
    assert leave.request.members[0].member_id == "me"
    assert lose == Release((SIX[0],), lost=True)
    assert core.resume(1_001) == [], "not before the application let go"
    assert core.on_released(SIX[:1], 1_002) == []
    assert join_request(core.resume(1_003)).member_id == ""


def test_a_static_member_does_not_leave() -> None:
    """Its place is kept until its session ends."""
    core = member(instance_id="i")
    stable(core, SIX[0])
    assert core.leave_request("closing") is None
    assert core.on_overdue(1_000) == [Release((SIX[0],), lost=True)]


@pytest.mark.parametrize("code", [ErrorCode.FENCED_INSTANCE_ID, ErrorCode.GROUP_AUTHORIZATION_FAILED])
def test_some_refusals_are_final(code: ErrorCode) -> None:
    """The member loses what it has and says why."""
    core = member(instance_id="i")
    stable(core, SIX[0])
    lose, fail = core.on_heartbeat(heartbeat(core, 3_000), code, 3_000)
    assert lose == Release((SIX[0],), lost=True)
    assert isinstance(fail, Fail)
    assert fail.error.code is code
    assert core.deadline_ms is None


def test_a_moved_coordinator_is_looked_for_again() -> None:
    """Heartbeats and joins are repeated after a pause."""
    core = member()
    request = join_request(core.subscribe(["t"], 0))
    assert core.on_join(request, JoinGroupResponse(error_code=ErrorCode.NOT_COORDINATOR), 0) == [ForgetCoordinator()]
    assert core.deadline_ms == 100
    request = join_request(core.on_deadline(100))
    core.on_sync(sync_request(core.on_join(request, joined(1), 100)), synced(), 100)
    core.on_adopted(100)
    effects = core.on_heartbeat(heartbeat(core, 3_100), ErrorCode.COORDINATOR_NOT_AVAILABLE, 3_100)
    assert effects == [ForgetCoordinator()]
    assert core.deadline_ms == 3_200


def test_a_request_without_an_answer_is_repeated() -> None:
    """With growing pauses, and stale answers are ignored."""
    core = member()
    request = join_request(core.subscribe(["t"], 0))
    assert core.on_failure(request, 0) == []
    assert core.deadline_ms == 100
    again = join_request(core.on_deadline(100))
    assert core.on_join(request, joined(1), 101) == [], "the answer to the first attempt"
    assert core.on_failure(again, 101) == []
    assert core.deadline_ms == 301


def test_a_group_that_uses_another_protocol_is_refused() -> None:
    """The member cannot obey an assignor it does not have."""
    core = member()
    request = join_request(core.subscribe(["t"], 0))
    (fail,) = core.on_join(request, joined(1, name="range"), 0)
    assert isinstance(fail, Fail)
    assert fail.error.code is ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_a_session_without_answers_looks_for_the_coordinator_elsewhere() -> None:
    """It may have moved without our hearing."""
    core = member()
    stable(core, SIX[0])
    core.on_failure(heartbeat(core, 3_000), 3_000)
    assert isinstance(core.on_deadline(11_000)[0], ForgetCoordinator)


EVENTS = [
    "answer",
    "fail",
    "rebalance",
    "unknown",
    "fenced",
    "released",
    "adopted",
    "time",
    "overdue",
    "resume",
    "lost",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.frozensets(st.integers(0, 5))), max_size=60), st.booleans())
def test_the_application_is_told_of_every_partition_in_turn(
    events: list[tuple[str, frozenset[int]]], cooperative: bool
) -> None:
    """Whatever happens: nothing is adopted twice, nothing kept in secret, and the core never waits for nobody."""
    core = member(CooperativeStickyAssignor() if cooperative else RangeAssignor())
    name = core.assignors[0].name
    now_ms = 0
    having: set[TopicPartition] = set()
    callbacks: list[Release | Adopt] = []
    requests: list[JoinGroupRequest | SyncGroupRequest | HeartbeatRequest] = []
    generation_id = 0

    def perform(effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Release | Adopt):
                callbacks.append(effect)
            elif isinstance(effect, Send) and not isinstance(effect.request, LeaveGroupRequest):
                requests.append(effect.request)

    perform(core.subscribe(["t"], 0))
    for event, numbers in events:
        now_ms += 500
        if event == "time":
            now_ms += 3_000
            perform(core.on_deadline(now_ms))
        elif event in ("released", "adopted") and callbacks:
            callback = callbacks.pop(0)
            if isinstance(callback, Release):
                mine = [one for one in callback.partitions if one in having]
                having.difference_update(mine)
                perform(core.on_released(callback.partitions, now_ms))
            else:
                assert having.isdisjoint(callback.partitions)
                having.update(callback.partitions)
                perform(core.on_adopted(now_ms))
        elif event == "overdue":
            perform(core.on_overdue(now_ms) if numbers else core.on_generation_lost(core.generation_id, now_ms))
        elif event == "resume" and core.phase is Phase.OUT:
            perform(core.resume(now_ms))
        elif requests and event in ("answer", "fail", "rebalance", "unknown", "fenced"):
            request = requests.pop(0)
            codes = {"rebalance": 27, "unknown": 25, "fenced": 82 if len(numbers) > 4 else 0}
            code = codes.get(event, 0)
            if event == "fail":
                perform(core.on_failure(request, now_ms))
            elif isinstance(request, HeartbeatRequest):
                perform(core.on_heartbeat(request, code, now_ms))
            elif isinstance(request, JoinGroupRequest):
                generation_id += 1
                answer = joined(generation_id, name=name)
                answer.error_code = code
                perform(core.on_join(request, answer, now_ms))
            else:
                answer_sync = synced(*(TopicPartition("t", number) for number in numbers))
                answer_sync.error_code = code
                perform(core.on_sync(request, answer_sync, now_ms))
        if not callbacks and core.phase in (Phase.STABLE, Phase.JOINING, Phase.SYNCING):
            assert having == set(core.owned)
        if not callbacks and core.phase in (Phase.OUT, Phase.FAILED):
            assert having == set()
        if core.phase in (Phase.RELEASING, Phase.ADOPTING):
            assert callbacks, "the core waits for a callback that nobody runs"


def test_closing_while_partitions_are_adopted_asks_for_nothing_more() -> None:
    """Everything is released at once; a second word about it changes nothing."""
    core = member()
    stable(core, *SIX[:4])
    request = join_request(core.on_heartbeat(heartbeat(core, 3_000), ErrorCode.REBALANCE_IN_PROGRESS, 3_000))
    core.on_sync(sync_request(core.on_join(request, joined(2), 3_000)), synced(*SIX[:2], SIX[5]), 3_000)
    assert core.on_released(SIX[2:4], 3_001) == [Adopt((SIX[5],))]
    assert core.on_released(SIX, 3_002) == []
    assert core.owned == ()
