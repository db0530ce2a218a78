"""Members come, go, restart and fall silent; the group forms generations with whoever is there."""

from __future__ import annotations

import pytest

from streamlog.broker.coordinator.group.limits import NEW_MEMBER_JOIN_TIMEOUT_MS, PENDING_IDS_MAX, GroupLimits
from streamlog.broker.coordinator.group.records import GroupStored
from streamlog.broker.coordinator.group.requests import ForgetNewcomer
from streamlog.broker.coordinator.group.state import GroupState
from streamlog.broker.coordinator.shard import Caller, Token
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from streamlog.wire.messages.leave_group import MemberIdentity
from streamlog.wire.messages.sync_group import SyncGroupResponse
from tests.broker.coordinator.bench import GROUP, REBALANCE_MS, SESSION_MS, TOPIC, Bench, subscription

PROTOCOL = JoinGroupRequestProtocol(name="range")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_members_form_a_stable_group_with_the_first_as_leader(count: int) -> None:
    """Everybody gets the same generation; only the leader sees the members; everybody gets its assignment."""
    bench = Bench()
    ids, generation = bench.stable_group(count)
    assert generation == 1
    described = bench.describe()
    assert described.group_state == "Stable"
    assert described.protocol_type == "consumer"
    assert described.protocol_data == "range"
    assert {member.member_id: member.member_assignment for member in described.members} == {
        one: one.encode() for one in ids
    }
    stored = bench.shard.table.stored[GROUP]
    assert stored.leader_id == ids[0]
    assert [member.assignment for member in stored.members] == [one.encode() for one in ids]


def test_only_the_leader_gets_the_member_list() -> None:
    """A follower needs no list, and a large group would send it to everybody."""
    bench = Bench()
    first, second = bench.new_id(), bench.new_id()
    joins = [bench.join(first), bench.join(second)]
    bench.wait(0)
    leader, follower = (bench.reply(token, JoinGroupResponse) for token in joins)
    assert leader.leader == follower.leader == first
    assert [member.member_id for member in leader.members] == [first, second]
    assert follower.members == []


def test_a_new_dynamic_member_is_first_given_an_id() -> None:
    """KIP-394: a client that retries its first JoinGroup is one member, not several."""
    bench = Bench()
    response = bench.reply(bench.join(), JoinGroupResponse)
    assert response.error_code == ErrorCode.MEMBER_ID_REQUIRED
    assert response.member_id.startswith("c-")
    assert bench.state() is GroupState.EMPTY


def test_an_old_client_is_a_member_at_once() -> None:
    """JoinGroup before version 4 knows no MEMBER_ID_REQUIRED."""
    bench = Bench()
    token = bench.join(api_version=3)
    bench.wait(0)
    assert bench.reply(token, JoinGroupResponse).generation_id == 1


def test_a_second_member_makes_the_first_rejoin() -> None:
    """Heartbeats say REBALANCE_IN_PROGRESS until the first member comes back, then both are in the next generation."""
    bench = Bench()
    (first,), generation = bench.stable_group(1)
    second = bench.new_id()
    joining = bench.join(second)
    assert bench.is_parked(joining)
    assert bench.heartbeat(first, generation) is ErrorCode.REBALANCE_IN_PROGRESS
    rejoining = bench.join(first)
    assert bench.settle([rejoining, joining]) == generation + 1


def test_the_rebalance_timeout_kicks_the_laggard() -> None:
    """A member that heartbeats but never rejoins is left behind when the longest rebalance timeout is over."""
    bench = Bench()
    (first,), generation = bench.stable_group(1)
    joining = bench.join(bench.new_id())
    for _ in range(REBALANCE_MS // 5_000 - 1):
        bench.wait(5_000)
        assert bench.heartbeat(first, generation) is ErrorCode.REBALANCE_IN_PROGRESS
        assert bench.is_parked(joining)
    bench.wait(5_000)
    assert bench.settle([joining]) == generation + 1
    assert bench.heartbeat(first, generation) is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_silent_member_is_out_after_its_session() -> None:
    """No heartbeat for a whole session: the others rebalance without it."""
    bench = Bench()
    (first, second), generation = bench.stable_group(2)
    bench.wait(SESSION_MS - 1)
    assert bench.heartbeat(first, generation) is ErrorCode.NONE
    bench.wait(1)
    assert bench.heartbeat(second, generation) is ErrorCode.UNKNOWN_MEMBER_ID
    assert bench.heartbeat(first, generation) is ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.settle([bench.join(first)]) == generation + 1


def test_when_the_leader_leaves_another_member_leads() -> None:
    """The leader's departure rebalances at once, and the oldest remaining member leads."""
    bench = Bench()
    (first, second, third), generation = bench.stable_group(3)
    assert bench.leave(first) == [ErrorCode.NONE]
    joins = [bench.join(third), bench.join(second)]
    assert bench.settle(joins) == generation + 1
    assert bench.shard.table.groups[GROUP].leader_id == second


def test_when_the_last_member_leaves_the_group_is_empty_and_says_so_in_the_log() -> None:
    """The empty generation is written, so that offsets start to age from here."""
    bench = Bench()
    (only,), generation = bench.stable_group(1)
    bench.leave(only)
    assert bench.state() is GroupState.EMPTY
    record = bench.log[-1].record
    assert isinstance(record, GroupStored)
    assert record.generation_id == generation + 1
    assert record.members == ()
    assert record.protocol_type == "consumer"
    assert record.state_changed_at_ms == bench.now.wall_ms


def test_a_leader_that_rejoins_a_stable_group_forces_a_rebalance() -> None:
    """The leader knows what no metadata shows: a topic grew."""
    bench = Bench()
    (first, second), generation = bench.stable_group(2)
    rejoin = bench.join(first)
    assert bench.is_parked(rejoin)
    assert bench.settle([rejoin, bench.join(second)]) == generation + 1


def test_a_follower_that_rejoins_unchanged_learns_the_current_generation() -> None:
    """It may just have missed an answer; nobody else is disturbed."""
    bench = Bench()
    (_, second), generation = bench.stable_group(2)
    response = bench.reply(bench.join(second), JoinGroupResponse)
    assert response.generation_id == generation
    assert response.members == []
    assert bench.state() is GroupState.STABLE


def test_a_follower_with_new_metadata_forces_a_rebalance() -> None:
    """Another subscription is another assignment."""
    bench = Bench()
    (first, second), generation = bench.stable_group(2)
    token = bench.join(second, protocols={"range": subscription(TOPIC, "refunds")})
    assert bench.is_parked(token)
    assert bench.heartbeat(first, generation) is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_join_repeated_before_the_sync_learns_the_same_generation() -> None:
    """While the assignment is awaited, unchanged metadata changes nothing, also for the leader."""
    bench = Bench()
    first, second = bench.new_id(), bench.new_id()
    bench.join(first)
    bench.join(second)
    bench.wait(0)
    again = bench.reply(bench.join(first), JoinGroupResponse)
    assert again.generation_id == 1
    assert [member.member_id for member in again.members] == [first, second]
    assert bench.state() is GroupState.COMPLETING_REBALANCE


def test_followers_wait_for_the_leaders_assignment() -> None:
    """SyncGroup is parked until the leader's, and then answered with the follower's part."""
    bench = Bench()
    first, second = bench.new_id(), bench.new_id()
    bench.join(first)
    bench.join(second)
    bench.wait(0)
    waiting = bench.sync(second, 1)
    assert bench.is_parked(waiting)
    bench.sync(first, 1, {first: b"0", second: b"1", "stranger": b"2"})
    assert bench.reply(waiting, SyncGroupResponse).assignment == b"1"


def test_a_member_the_leader_forgot_gets_an_empty_assignment() -> None:
    """It is in the generation all the same."""
    bench = Bench()
    first, second = bench.new_id(), bench.new_id()
    bench.join(first)
    bench.join(second)
    bench.wait(0)
    bench.sync(first, 1, {first: b"0"})
    response = bench.reply(bench.sync(second, 1), SyncGroupResponse)
    assert response.error_code == ErrorCode.NONE
    assert response.assignment == b""


def test_a_generation_too_large_to_be_written_is_refused() -> None:
    """All members hear of it and start over; the other groups of the shard do not suffer."""
    bench = Bench()
    first, second = bench.new_id(), bench.new_id()
    bench.join(first)
    bench.join(second)
    bench.wait(0)
    waiting = bench.sync(second, 1)
    leading = bench.sync(first, 1, {second: bytes(bench.limits.group_record_max_bytes)})
    for token in (waiting, leading):
        assert bench.reply(token, SyncGroupResponse).error_code == ErrorCode.UNKNOWN_SERVER_ERROR
    assert bench.state() is GroupState.PREPARING_REBALANCE


def test_a_rebalance_sends_parked_syncs_back_to_joining() -> None:
    """A third member came before the leader assigned: the generation is void."""
    bench = Bench()
    first, second = bench.new_id(), bench.new_id()
    bench.join(first)
    bench.join(second)
    bench.wait(0)
    waiting = bench.sync(second, 1)
    bench.join(bench.new_id())
    assert bench.reply(waiting, SyncGroupResponse).error_code == ErrorCode.REBALANCE_IN_PROGRESS


def test_members_that_never_sync_are_out_after_the_rebalance_timeout() -> None:
    """A member that heartbeats its way around SyncGroup would keep its partitions idle for ever."""
    bench = Bench()
    first, second = bench.new_id(), bench.new_id()
    bench.join(first)
    bench.join(second)
    bench.wait(0)
    bench.sync(first, 1, {})
    for _ in range(REBALANCE_MS // 5_000 - 1):
        bench.wait(5_000)
        assert bench.heartbeat(first, 1) is ErrorCode.NONE
        assert bench.heartbeat(second, 1) is ErrorCode.NONE
    bench.wait(5_000)
    assert bench.heartbeat(second, 1) is ErrorCode.UNKNOWN_MEMBER_ID
    assert bench.heartbeat(first, 1) is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_session_that_ended_while_its_sync_was_parked_is_watched_again() -> None:
    """Parked members are excused; once sent back to joining they must be heard of again."""
    bench = Bench()
    first, second = bench.new_id(), bench.new_id(session_ms=SESSION_MS)
    bench.join(first, session_ms=SESSION_MS * 3)
    bench.join(second)
    bench.wait(0)
    bench.sync(second, 1)
    bench.wait(SESSION_MS * 2)
    assert bench.heartbeat(first, 1) is ErrorCode.NONE
    bench.leave(first)
    joined = bench.shard.table.groups[GROUP].members
    assert list(joined) == [second]
    bench.wait(SESSION_MS)
    assert bench.state() is GroupState.EMPTY


def test_a_pending_id_that_never_joins_expires() -> None:
    """And until then it keeps a rebalance from completing."""
    bench = Bench()
    (first,), generation = bench.stable_group(1)
    ghost = bench.new_id()
    rejoin = bench.join(first)
    assert bench.is_parked(rejoin), "the pending member is expected"
    bench.wait(SESSION_MS)
    assert bench.settle([rejoin]) == generation + 1
    assert bench.reply(bench.join(ghost), JoinGroupResponse).error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_pending_id_whose_connection_ended_is_not_waited_for() -> None:
    """Whoever rejoins meanwhile gets the next generation at once."""
    bench = Bench()
    (first,), generation = bench.stable_group(1)
    ghost = bench.new_id()
    rejoin = bench.join(first)
    assert bench.reply(bench.ask(ForgetNewcomer(GROUP, ghost)), type(None)) is None
    assert bench.settle([rejoin]) == generation + 1
    assert bench.reply(bench.join(ghost), JoinGroupResponse).error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_new_member_whose_connection_ended_in_its_first_join_is_not_waited_for() -> None:
    """Its JoinGroup is answered like that of any other who is out, and the rest form the generation."""
    bench = Bench()
    (first,), generation = bench.stable_group(1)
    ghost = bench.new_id()
    parked = bench.join(ghost)
    assert bench.is_parked(parked)
    bench.ask(ForgetNewcomer(GROUP, ghost))
    assert bench.reply(parked, JoinGroupResponse).error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert bench.settle([bench.join(first)]) == generation + 1
    assert len(bench.describe().members) == 1


def test_a_member_whose_connection_ended_keeps_its_session() -> None:
    """It comes back on another one."""
    bench = Bench()
    ids, generation = bench.stable_group(2)
    bench.ask(ForgetNewcomer(GROUP, ids[1]))
    bench.ask(ForgetNewcomer("nobody", ids[1]))
    assert bench.state() is GroupState.STABLE
    assert len(bench.describe().members) == 2
    rejoining = bench.join(ids[0])
    bench.ask(ForgetNewcomer(GROUP, ids[0]))
    assert bench.settle([rejoining, bench.join(ids[1])]) == generation + 1


def test_ids_that_nobody_uses_do_not_pile_up() -> None:
    """The oldest is forgotten; its owner asks again."""
    bench = Bench()
    oldest = bench.new_id()
    for _ in range(PENDING_IDS_MAX):
        bench.shard.handle(
            JoinGroupRequest(group_id=GROUP, session_timeout_ms=SESSION_MS, protocol_type="x", protocols=[PROTOCOL]),
            Caller(Token(0), 9),
            bench.now,
        )
    assert len(bench.shard.table.groups[GROUP].pending_member_ids) == PENDING_IDS_MAX
    assert bench.reply(bench.join(oldest), JoinGroupResponse).error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_pending_member_may_leave() -> None:
    """It need not be waited for then."""
    bench = Bench()
    (first,), generation = bench.stable_group(1)
    ghost = bench.new_id()
    rejoin = bench.join(first)
    assert bench.leave(ghost) == [ErrorCode.NONE]
    assert bench.settle([rejoin]) == generation + 1


def test_a_parked_first_join_does_not_live_for_ever() -> None:
    """The client behind it may be gone; it cannot heartbeat, so its JoinGroup has a timeout of its own."""
    bench = Bench(GroupLimits(group_initial_rebalance_delay_ms=NEW_MEMBER_JOIN_TIMEOUT_MS * 2))
    token = bench.join(bench.new_id(), rebalance_ms=NEW_MEMBER_JOIN_TIMEOUT_MS * 4)
    bench.wait(NEW_MEMBER_JOIN_TIMEOUT_MS - 1)
    assert bench.is_parked(token)
    bench.wait(1)
    assert bench.reply(token, JoinGroupResponse).error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_the_first_rebalance_waits_for_more_members() -> None:
    """KIP-134: the delay starts again while members keep coming, up to the rebalance timeout."""
    bench = Bench(GroupLimits(group_initial_rebalance_delay_ms=3_000))
    first = bench.join(bench.new_id(), rebalance_ms=8_000)
    bench.wait(2_000)
    second = bench.join(bench.new_id(), rebalance_ms=8_000)
    bench.wait(2_000)
    third = bench.join(bench.new_id(), rebalance_ms=8_000)
    assert bench.is_parked(first), "3 s are over, but a second member came"
    bench.wait(3_999)
    assert bench.is_parked(first), "6 s are over, but a third member came: 2 s are left of 8"
    bench.wait(1)
    assert bench.settle([first, second, third]) == 1


def test_the_initial_delay_ends_when_nobody_else_comes() -> None:
    """One member alone waits once."""
    bench = Bench(GroupLimits(group_initial_rebalance_delay_ms=3_000))
    token = bench.join(bench.new_id())
    bench.wait(2_999)
    assert bench.is_parked(token)
    bench.wait(1)
    assert bench.settle([token]) == 1


def test_the_protocol_with_the_most_votes_wins() -> None:
    """Each member votes for its favourite among those that all support."""
    bench = Bench()
    ids = [bench.new_id() for _ in range(3)]
    lists = [("a", "b", "c"), ("b", "a"), ("b", "a", "c")]
    joins = [
        bench.join(one, protocols={name: subscription(TOPIC) for name in names})
        for one, names in zip(ids, lists, strict=True)
    ]
    bench.wait(0)
    assert {bench.reply(token, JoinGroupResponse).protocol_name for token in joins} == {"b"}


def test_a_protocol_that_not_all_support_cannot_win() -> None:
    """Two prefer c, but one does not know it."""
    bench = Bench()
    ids = [bench.new_id() for _ in range(3)]
    lists = [("a",), ("c", "a"), ("c", "a")]
    joins = [
        bench.join(one, protocols={name: subscription(TOPIC) for name in names})
        for one, names in zip(ids, lists, strict=True)
    ]
    bench.wait(0)
    assert {bench.reply(token, JoinGroupResponse).protocol_name for token in joins} == {"a"}


def test_a_repeated_join_supersedes_the_parked_one() -> None:
    """A client that reconnected asks again; its first request must not dangle."""
    bench = Bench()
    (first,), generation = bench.stable_group(1)
    second = bench.new_id()
    old = bench.join(second)
    new = bench.join(second)
    assert bench.reply(old, JoinGroupResponse).error_code == ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.settle([bench.join(first), new]) == generation + 1


class TestStaticMembers:
    """KIP-345: an instance id outlives its process."""

    def stable(self, bench: Bench, *, api_version: int = 9) -> tuple[str, str, int]:
        joins = [bench.join(instance=name, api_version=api_version) for name in ("one", "two")]
        bench.wait(0)
        answers = [bench.reply(token, JoinGroupResponse) for token in joins]
        generation = bench.settle(joins)
        return answers[0].member_id, answers[1].member_id, generation

    def test_joins_without_a_second_round(self) -> None:
        """It has an identity already, so no id has to be given out first."""
        bench = Bench()
        first, second, generation = self.stable(bench)
        assert generation == 1
        assert first.startswith("one-")
        assert second.startswith("two-")

    def test_a_restarted_follower_gets_its_assignment_without_a_rebalance(self) -> None:
        """Same metadata, stable group: it takes over and the others notice nothing."""
        bench = Bench()
        first, second, generation = self.stable(bench)
        answer = bench.reply(bench.join(instance="two"), JoinGroupResponse)
        assert answer.error_code == ErrorCode.NONE
        assert answer.generation_id == generation
        assert answer.member_id != second
        assert answer.members == []
        assert not answer.skip_assignment
        response = bench.reply(bench.sync(answer.member_id, generation, instance="two"), SyncGroupResponse)
        assert response.assignment == second.encode()
        assert bench.heartbeat(first, generation, instance="one") is ErrorCode.NONE

    def test_a_restarted_leader_is_told_to_skip_the_assignment(self) -> None:
        """KIP-814: it sees the members, so that it can watch their topics, and must not assign."""
        bench = Bench()
        _, second, generation = self.stable(bench)
        answer = bench.reply(bench.join(instance="one"), JoinGroupResponse)
        assert answer.skip_assignment
        assert answer.leader == answer.member_id
        assert {member.member_id for member in answer.members} == {answer.member_id, second}
        assert answer.generation_id == generation

    def test_an_old_restarted_leader_is_led_to_believe_it_follows(self) -> None:
        """Before version 9 it would assign anew; the old leader's id keeps it from that."""
        bench = Bench()
        first, _, _ = self.stable(bench, api_version=8)
        answer = bench.reply(bench.join(instance="one", api_version=8), JoinGroupResponse)
        assert answer.leader == first
        assert answer.members == []

    def test_the_old_incarnation_is_fenced(self) -> None:
        """Whoever still uses the old member id is a zombie."""
        bench = Bench()
        _, second, generation = self.stable(bench)
        bench.join(instance="two")
        assert bench.heartbeat(second, generation, instance="two") is ErrorCode.FENCED_INSTANCE_ID
        assert bench.commit(1, member_id=second, generation_id=generation, instance="two") is (
            ErrorCode.FENCED_INSTANCE_ID
        )
        rejoin = bench.reply(bench.join(second, instance="two"), JoinGroupResponse)
        assert rejoin.error_code == ErrorCode.FENCED_INSTANCE_ID
        sync = bench.reply(bench.sync(second, generation, instance="two"), SyncGroupResponse)
        assert sync.error_code == ErrorCode.FENCED_INSTANCE_ID

    def test_the_parked_join_of_a_duplicate_instance_is_fenced(self) -> None:
        """Two processes with one instance id: the later wins."""
        bench = Bench(GroupLimits(group_initial_rebalance_delay_ms=3_000))
        old = bench.join(instance="one")
        new = bench.join(instance="one")
        assert bench.reply(old, JoinGroupResponse).error_code == ErrorCode.FENCED_INSTANCE_ID
        bench.wait(3_000)
        assert bench.settle([new]) == 1

    def test_the_parked_sync_of_a_duplicate_instance_is_fenced_and_the_generation_is_void(self) -> None:
        """The leader may already be assigning to the old member id."""
        bench = Bench()
        joins = [bench.join(instance=name) for name in ("one", "two")]
        bench.wait(0)
        second = bench.reply(joins[1], JoinGroupResponse).member_id
        waiting = bench.sync(second, 1, instance="two")
        bench.join(instance="two")
        assert bench.reply(waiting, SyncGroupResponse).error_code == ErrorCode.FENCED_INSTANCE_ID
        assert bench.state() is GroupState.PREPARING_REBALANCE

    def test_a_restart_with_another_favourite_protocol_rebalances(self) -> None:
        """The elected protocol would change, so the assignment must."""
        bench = Bench()
        token = bench.join(instance="one", protocols={"a": b"", "b": b""})
        bench.wait(0)
        bench.settle([token])
        again = bench.join(instance="one", protocols={"b": b"", "a": b""})
        assert bench.reply(again, JoinGroupResponse).generation_id == 2
        assert bench.reply(again, JoinGroupResponse).protocol_name == "b"

    def test_a_silent_static_member_keeps_its_place_through_a_rebalance(self) -> None:
        """It is restarting; only its session's end takes it out."""
        bench = Bench()
        first, second, generation = self.stable(bench)
        bench.join(first, instance="one")
        bench.wait(SESSION_MS - 1)
        assert second in bench.shard.table.groups[GROUP].members
        bench.wait(1)
        assert second not in bench.shard.table.groups[GROUP].members
        assert bench.shard.table.groups[GROUP].generation_id == generation + 1

    def test_a_rebalance_goes_on_without_a_static_member_that_is_away(self) -> None:
        """It stays in the generation with what it last said, and another member leads if it was the leader."""
        bench = Bench()
        joins = [bench.join(instance=name, session_ms=10 * REBALANCE_MS) for name in ("one", "two")]
        bench.wait(0)
        first, second = (bench.reply(token, JoinGroupResponse).member_id for token in joins)
        bench.settle(joins)
        rejoin = bench.join(second, instance="two", protocols={"range": subscription(TOPIC, "more")})
        bench.wait(REBALANCE_MS)
        answer = bench.reply(rejoin, JoinGroupResponse)
        assert answer.leader == second
        assert {member.member_id for member in answer.members} == {first, second}

    def test_a_rebalance_to_which_nobody_comes_waits_for_somebody(self) -> None:
        """Both members are away, within their sessions; a third one's leaving started it."""
        bench = Bench()
        joins = [bench.join(instance=name, session_ms=10 * REBALANCE_MS) for name in ("one", "two", "three")]
        bench.wait(0)
        generation = bench.settle(joins)
        bench.leave(MemberIdentity(group_instance_id="three"))
        bench.wait(3 * REBALANCE_MS)
        group = bench.shard.table.groups[GROUP]
        assert (group.state, group.generation_id) == (GroupState.PREPARING_REBALANCE, generation)
        assert len(group.members) == 2
        bench.join(instance="one", session_ms=10 * REBALANCE_MS)
        bench.wait(REBALANCE_MS)
        assert (group.state, group.generation_id) == (GroupState.COMPLETING_REBALANCE, generation + 1)

    def test_an_administrator_removes_members_by_instance_id(self) -> None:
        """KIP-345's batch LeaveGroup: each identity has its own answer."""
        bench = Bench()
        _, second, _ = self.stable(bench)
        assert bench.leave(
            MemberIdentity(group_instance_id="one"),
            MemberIdentity(group_instance_id="three"),
            MemberIdentity(member_id="stranger", group_instance_id="two"),
            MemberIdentity(member_id=second, group_instance_id="two"),
        ) == [
            ErrorCode.NONE,
            ErrorCode.UNKNOWN_MEMBER_ID,
            ErrorCode.FENCED_INSTANCE_ID,
            ErrorCode.NONE,
        ]
        assert bench.state() is GroupState.EMPTY

    def test_a_restart_survives_a_failover(self) -> None:
        """The new member id was written, so the next coordinator knows it."""
        bench = Bench()
        _, _, generation = self.stable(bench)
        member_id = bench.reply(bench.join(instance="two"), JoinGroupResponse).member_id
        bench.restart()
        assert bench.heartbeat(member_id, generation, instance="two") is ErrorCode.NONE


class TestFailover:
    """A new coordinator starts from the last completed generation."""

    def test_a_stable_group_goes_on(self) -> None:
        """Members heartbeat, commit and sync as if nothing had happened."""
        bench = Bench()
        (first, second), generation = bench.stable_group(2)
        bench.restart()
        assert bench.heartbeat(first, generation) is ErrorCode.NONE
        assert bench.commit(7, member_id=second, generation_id=generation) is ErrorCode.NONE
        assert bench.reply(bench.sync(second, generation), SyncGroupResponse).assignment == second.encode()

    def test_a_half_done_rebalance_is_forgotten(self) -> None:
        """The members of the last generation are asked to rejoin by nobody, and may go on."""
        bench = Bench()
        (first,), generation = bench.stable_group(1)
        bench.join(bench.new_id())
        bench.restart()
        assert bench.state() is GroupState.STABLE
        assert bench.heartbeat(first, generation) is ErrorCode.NONE

    def test_members_have_a_whole_session_to_find_the_new_coordinator(self) -> None:
        """And not longer."""
        bench = Bench()
        bench.stable_group(1)
        bench.wait(SESSION_MS - 1)
        bench.restart()
        bench.wait(SESSION_MS - 1)
        assert bench.state() is GroupState.STABLE
        bench.wait(1)
        assert bench.state() is GroupState.EMPTY

    def test_a_group_that_only_handed_out_an_id_is_still_known(self) -> None:
        """Its first JoinGroup was written down."""
        bench = Bench()
        bench.new_id()
        bench.restart()
        assert bench.describe().group_state == "Empty"

    def test_a_group_larger_than_a_lowered_limit_rebalances(self) -> None:
        """Members may commit before they are turned away, one at a time until the limit is met."""
        bench = Bench()
        ids, _ = bench.stable_group(3)
        bench.limits = GroupLimits(group_max_size=2, group_initial_rebalance_delay_ms=0)
        bench.restart()
        assert bench.state() is GroupState.PREPARING_REBALANCE
        answers = [bench.join(one) for one in ids]
        codes = [bench.reply(token, JoinGroupResponse).error_code for token in answers if not bench.is_parked(token)]
        assert codes.count(ErrorCode.GROUP_MAX_SIZE_REACHED) == 1
        assert len(bench.shard.table.groups[GROUP].members) == 2
