"""The earliest deadline is always the true one, whatever was moved before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamlog.broker.coordinator.deadlines import STALE_ENTRIES_MAX, Deadlines

STEPS = st.lists(
    st.tuples(st.sampled_from(["set", "cancel", "pop"]), st.integers(0, 5), st.integers(0, 30)), max_size=60
)


@given(STEPS)
def test_like_a_dictionary_searched_for_its_smallest_value(steps: list[tuple[str, int, int]]) -> None:
    """Against the obvious slow implementation."""
    deadlines: Deadlines[int] = Deadlines()
    truth: dict[int, int] = {}
    for verb, key, time_ms in steps:
        if verb == "set":
            deadlines.set(key, time_ms)
            truth[key] = time_ms
        elif verb == "cancel":
            deadlines.cancel(key)
            truth.pop(key, None)
        else:
            popped = deadlines.pop_due(time_ms)
            due = [at_ms for at_ms in truth.values() if at_ms <= time_ms]
            assert (popped is None) == (not due)
            if popped is not None:
                assert truth.pop(popped) == min(due)
        assert deadlines.next_ms() == min(truth.values(), default=None)
        assert len(deadlines) == len(truth)


def test_moving_a_deadline_later_leaves_one_entry() -> None:
    """A heartbeat must not grow anything."""
    deadlines: Deadlines[str] = Deadlines()
    for time_ms in range(1000):
        deadlines.set("member", time_ms)
    assert len(deadlines._heap) == 1
    assert deadlines.next_ms() == 999


def test_equal_deadlines_come_in_the_order_they_were_set() -> None:
    """So that a simulation replays."""
    deadlines: Deadlines[str] = Deadlines()
    for key in "cab":
        deadlines.set(key, 7)
    assert [deadlines.pop_due(7) for _ in range(4)] == ["c", "a", "b", None]


def test_cancelled_deadlines_do_not_pile_up() -> None:
    """Their entries go long before their time."""
    deadlines: Deadlines[int] = Deadlines()
    deadlines.set(-1, 1_000_000)
    for key in range(10 * STALE_ENTRIES_MAX):
        deadlines.set(key, 500_000)
        deadlines.cancel(key)
    assert len(deadlines._heap) <= STALE_ENTRIES_MAX + 3
    assert deadlines.next_ms() == 1_000_000
