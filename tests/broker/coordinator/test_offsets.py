"""Positions are kept, forgotten when nobody needs them, and become stable with their transaction."""

from __future__ import annotations

from uuid import UUID

import pytest

from streamlog.broker.coordinator.group.limits import GroupLimits
from streamlog.broker.coordinator.group.records import (
    GroupForgotten,
    GroupRecord,
    OffsetCommitted,
    OffsetForgotten,
)
from streamlog.broker.coordinator.group.requests import FetchOffsets, ForgetTopics
from streamlog.broker.coordinator.group.subscription import subscribed_topics
from streamlog.broker.coordinator.shard import Applied
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.offset_fetch import (
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponseGroup,
)
from tests.broker.coordinator.bench import GROUP, TOPIC, WALL_EPOCH_MS, Bench, subscription

DAY_MS = 24 * 60 * 60 * 1000
CHECK_MS = GroupLimits().offsets_retention_check_interval_ms
RETENTION_MS = GroupLimits().offsets_retention_ms


def test_a_commit_is_read_back_also_after_a_failover() -> None:
    """The last one wins."""
    bench = Bench()
    bench.commit(1)
    bench.commit(2)
    bench.commit(3, partition=1)
    assert bench.fetch_all() == {(TOPIC, 0): 2, (TOPIC, 1): 3}
    bench.restart()
    assert bench.fetch_all() == {(TOPIC, 0): 2, (TOPIC, 1): 3}
    bench.restart(compacted=True)
    assert bench.fetch_all() == {(TOPIC, 0): 2, (TOPIC, 1): 3}


def test_what_was_never_committed_has_offset_minus_one() -> None:
    """Unknown groups, topics and partitions alike, without an error."""
    bench = Bench()
    assert bench.fetch() == -1
    bench.commit(1)
    assert bench.fetch(partition=7) == -1
    assert bench.fetch(topic="other") == -1
    assert bench.fetch_all("nobody") == {}


def test_a_commit_writes_kafkas_record() -> None:
    """Timestamps are the wall clock's."""
    bench = Bench()
    bench.wait(5)
    bench.commit(42, metadata=None)
    assert bench.log[-1].record == OffsetCommitted(
        group_id=GROUP,
        topic=TOPIC,
        partition=0,
        offset=42,
        leader_epoch=-1,
        metadata="",
        committed_at_ms=WALL_EPOCH_MS + 5,
    )


def test_a_simple_group_is_listed_as_empty_and_can_be_deleted() -> None:
    """Its positions go with it, also for the next coordinator."""
    bench = Bench()
    bench.commit(1)
    (listed,) = bench.list_groups()
    assert (listed.group_id, listed.group_state, listed.group_type, listed.protocol_type) == (
        GROUP,
        "Empty",
        "classic",
        "",
    )
    assert bench.delete_group() is ErrorCode.NONE
    assert [applied.record for applied in bench.log[-2:]] == [OffsetForgotten(GROUP, TOPIC, 0), GroupForgotten(GROUP)]
    assert bench.list_groups() == []
    bench.restart()
    assert bench.list_groups() == []
    assert bench.fetch() == -1


def test_lists_are_filtered_by_state_and_type() -> None:
    """Filters are lower case; what no group can be matches nothing."""
    bench = Bench()
    bench.stable_group(1)
    bench.commit(1, group_id="another")
    assert [one.group_id for one in bench.list_groups()] == ["another", GROUP]
    assert [one.group_id for one in bench.list_groups(states=frozenset({"stable"}))] == [GROUP]
    assert [one.group_id for one in bench.list_groups(states=frozenset({"empty", "dead"}))] == ["another"]
    assert [one.group_id for one in bench.list_groups(types=frozenset({"classic"}))] == ["another", GROUP]
    assert bench.list_groups(types=frozenset({"consumer"})) == []


def test_deleted_offsets_are_gone() -> None:
    """Only what exists gets a tombstone."""
    bench = Bench()
    bench.commit(1)
    length = len(bench.log)
    assert bench.delete_offset(partition=9) is ErrorCode.NONE
    assert len(bench.log) == length
    assert bench.delete_offset() is ErrorCode.NONE
    assert bench.fetch() == -1


def test_deleted_topics_take_their_positions_along() -> None:
    """In every group of the shard."""
    bench = Bench()
    bench.commit(1)
    bench.commit(1, topic="kept")
    bench.commit(1, group_id="another")
    bench.ask(ForgetTopics({TOPIC: UUID(int=1)}))
    assert bench.fetch_all() == {("kept", 0): 1}
    assert bench.fetch_all("another") == {}


def test_a_topic_created_anew_starts_without_positions() -> None:
    """Also before the tombstones of its predecessor are written, and those do not take what was committed since."""
    bench = Bench()
    old, new = UUID(int=1), UUID(int=2)
    bench.commit(5, topic_id=old)
    assert bench.fetch(topic_id=old) == 5
    assert bench.fetch(topic_id=new) == -1
    assert bench.fetch() == 5, "a client that knows no ids"
    bench.commit(7, topic_id=new)
    bench.ask(ForgetTopics({TOPIC: old}))
    assert bench.fetch(topic_id=new) == 7


class TestExpiry:
    """KIP-211."""

    def test_an_empty_groups_positions_live_for_the_retention_time_after_it_became_empty(self) -> None:
        """However old they were; then the group goes too."""
        bench = Bench(GroupLimits(group_max_session_timeout_ms=30 * DAY_MS, group_initial_rebalance_delay_ms=0))
        (member,), generation = bench.stable_group(1, session_ms=20 * DAY_MS)
        bench.commit(1, member_id=member, generation_id=generation)
        bench.wait(10 * DAY_MS)
        bench.leave(member)
        bench.wait(RETENTION_MS - CHECK_MS)
        assert bench.fetch() == 1
        bench.wait(2 * CHECK_MS)
        assert bench.fetch() == -1
        assert isinstance(bench.log[-1].record, GroupForgotten)
        assert bench.describe().group_state == "Dead"

    def test_a_running_group_keeps_what_it_consumes(self) -> None:
        """And loses, by age, what it no longer subscribes to."""
        bench = Bench(GroupLimits(group_max_session_timeout_ms=30 * DAY_MS, group_initial_rebalance_delay_ms=0))
        (member,), generation = bench.stable_group(1, session_ms=20 * DAY_MS)
        bench.commit(1, member_id=member, generation_id=generation)
        bench.commit(1, member_id=member, generation_id=generation, topic="left")
        bench.wait(RETENTION_MS + CHECK_MS)
        assert bench.fetch_all() == {(TOPIC, 0): 1}

    def test_an_unreadable_subscription_keeps_everything(self) -> None:
        """Better too much than a lost position."""
        bench = Bench(GroupLimits(group_max_session_timeout_ms=30 * DAY_MS, group_initial_rebalance_delay_ms=0))
        (member,), generation = bench.stable_group(1, session_ms=20 * DAY_MS, protocols={"range": b"\0"})
        bench.commit(1, member_id=member, generation_id=generation)
        bench.wait(RETENTION_MS + CHECK_MS)
        assert bench.fetch() == 1
        assert bench.delete_offset() is ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC

    def test_a_simple_consumers_positions_expire_by_their_own_age(self) -> None:
        """There is no membership to go by."""
        bench = Bench()
        bench.commit(1)
        bench.wait(RETENTION_MS // 2)
        bench.commit(1, partition=1)
        bench.wait(RETENTION_MS // 2 + CHECK_MS)
        assert bench.fetch_all() == {(TOPIC, 1): 1}

    @pytest.mark.parametrize("kept_ms", [CHECK_MS, 2 * RETENTION_MS])
    def test_old_clients_choose_their_own_retention(self, kept_ms: int) -> None:
        """OffsetCommit v2 to v4."""
        bench = Bench()
        bench.commit(1, retention_ms=kept_ms, api_version=4)
        bench.wait(kept_ms - 1)
        assert bench.fetch() == 1
        bench.wait(CHECK_MS)
        assert bench.fetch() == -1

    def test_a_group_that_only_handed_out_an_id_goes_at_the_next_round(self) -> None:
        """Nothing of it is left once the id has expired."""
        bench = Bench()
        bench.new_id()
        bench.wait(2 * CHECK_MS)
        assert bench.list_groups() == []
        bench.restart()
        assert bench.list_groups() == []


class TestTransactions:
    """Positions committed inside a transaction (KIP-98, KIP-447)."""

    def pending(self, bench: Bench, offset: int, producer_id: int = 1000) -> None:
        record = OffsetCommitted(GROUP, TOPIC, 0, offset, -1, "", bench.now.wall_ms)
        applied: Applied[GroupRecord] = Applied(record, len(bench.log), producer_id)
        bench.log.append(applied)
        bench.shard.apply(applied)

    def unstable(self, bench: Bench, *, require_stable: bool) -> int:
        group = OffsetFetchRequestGroup(
            group_id=GROUP, topics=[OffsetFetchRequestTopics(name=TOPIC, partition_indexes=[0])]
        )
        token = bench.ask(FetchOffsets(group, require_stable))
        return bench.reply(token, OffsetFetchResponseGroup).topics[0].partitions[0].error_code

    def test_a_pending_position_is_unstable_for_those_who_ask_for_stable_ones(self) -> None:
        """Others read the last committed one."""
        bench = Bench()
        bench.commit(1)
        self.pending(bench, 5)
        assert self.unstable(bench, require_stable=True) == ErrorCode.UNSTABLE_OFFSET_COMMIT
        assert self.unstable(bench, require_stable=False) == ErrorCode.NONE
        assert bench.fetch_all() == {(TOPIC, 0): 1}

    @pytest.mark.parametrize(("committed", "offset"), [(True, 5), (False, 1)])
    def test_the_marker_decides(self, committed: bool, offset: int) -> None:
        """Commit makes it the position, abort forgets it."""
        bench = Bench()
        bench.commit(1)
        self.pending(bench, 5)
        bench.shard.apply_marker(1000, committed)
        assert bench.fetch() == offset

    def test_a_later_plain_commit_outlives_an_earlier_pending_one(self) -> None:
        """The place in the log decides, not the time of the marker."""
        bench = Bench()
        bench.commit(1)
        self.pending(bench, 5)
        bench.commit(9)
        bench.shard.apply_marker(1000, True)
        assert bench.fetch() == 9

    def test_a_pending_position_keeps_its_group(self) -> None:
        """Neither expiry nor the lack of anything else takes it away."""
        bench = Bench()
        bench.commit(1)
        self.pending(bench, 5)
        bench.wait(RETENTION_MS + CHECK_MS)
        bench.shard.apply_marker(1000, True)
        assert bench.fetch() == 5

    def test_deleting_a_group_forgets_what_is_pending(self) -> None:
        """A marker that comes later finds nothing."""
        bench = Bench()
        bench.commit(1)
        self.pending(bench, 5)
        assert bench.delete_group() is ErrorCode.NONE
        bench.shard.apply_marker(1000, True)
        assert bench.fetch() == -1


def test_subscriptions_of_any_version_are_read() -> None:
    """Version 0 is a prefix of all of them."""
    later = b"\x00\x03" + subscription("a", "b")[2:] + b"whatever follows"
    assert subscribed_topics([later, subscription("c")]) == frozenset({"a", "b", "c"})
    for length in range(len(subscription("a", "b")) - 4):
        assert subscribed_topics([subscription("a", "b")[:length]]) is None
    assert subscribed_topics([b"\0\0\x7f\xff\xff\xff"]) is None
