"""A follower: where it cuts, and what it does about each answer."""

from __future__ import annotations

import pytest

from streamlog.broker.log.epochs import EpochCache
from streamlog.broker.replication.follower import FollowerState, Step, StepKind, truncation_offset
from streamlog.wire.error_codes import ErrorCode


@pytest.mark.parametrize(
    ("epochs", "end", "leader_epoch", "leader_end", "cut"),
    [
        pytest.param([(1, 0)], 10, 1, 7, 7, id="same epoch, the leader has less of it"),
        pytest.param([(1, 0), (3, 6)], 10, 1, 8, 6, id="an epoch the leader never saw, and less of the one before"),
        pytest.param([(1, 0), (3, 6)], 10, 2, 8, 6, id="the leader names one we never saw: ask again from below it"),
        pytest.param([(1, 0), (3, 6)], 10, 1, 4, 4, id="both"),
        pytest.param([(3, 20)], 30, 1, 12, 12, id="below all we have: down to where the leader's ends"),
        pytest.param([], 10, 1, 4, 4, id="no epochs known here"),
        pytest.param([(1, 0)], 10, -1, -1, 10, id="nothing said"),
    ],
)
def test_a_follower_cuts_where_the_pasts_part(
    epochs: list[tuple[int, int]], end: int, leader_epoch: int, leader_end: int, cut: int
) -> None:
    """KIP-101, KIP-279: never above what both have, never below."""
    assert truncation_offset(EpochCache(epochs), end, leader_epoch, leader_end) == cut


def test_out_of_range_below_starts_over_and_above_cuts() -> None:
    """Once the leader has said where its log is."""
    state = FollowerState(2, 5, 1000)
    assert state.on_answer(ErrorCode.OFFSET_OUT_OF_RANGE, 0).kind is StepKind.FIND_RANGE
    assert state.is_looking_for_range
    assert state.on_range(10, 20, 40) == Step(StepKind.START_OVER, 20)
    assert state.on_range(50, 20, 40) == Step(StepKind.TRUNCATE, 40)
    assert state.on_range(30, 20, 40).kind is StepKind.APPEND
    assert not state.is_looking_for_range


def test_retries_wait_longer_each_time_and_begin_anew_after_success() -> None:
    """A leader that has not heard of its office is asked again soon; a dead one costs little. Success is what is in the
    log: a full disk refuses every answer of a leader that is well."""
    state = FollowerState(2, 5, 1000)
    pauses = []
    for _ in range(8):
        assert state.on_answer(ErrorCode.NOT_LEADER_OR_FOLLOWER, 0).kind is StepKind.RETRY
        pauses.append(state.retry_at_ms)
    assert pauses == [20, 40, 80, 160, 320, 640, 1000, 1000]
    assert not state.is_due(999)
    assert state.is_due(1000)
    assert state.on_answer(ErrorCode.NONE, 0).kind is StepKind.APPEND
    state.on_failure(2000)
    assert state.retry_at_ms == 3000, "there were records, and they could not be stored"
    state.on_performed()
    state.on_failure(4000)
    assert state.retry_at_ms == 4020


def test_who_is_fenced_waits_for_the_metadata() -> None:
    """There is a newer epoch, and the metadata brings a new state with it."""
    assert FollowerState(2, 5, 1000).on_answer(ErrorCode.FENCED_LEADER_EPOCH, 0).kind is StepKind.WAIT
