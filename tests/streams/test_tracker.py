"""The commit rule against the dumbest possible model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamlog.streams.tracker import OffsetTracker


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[tuple[str, int]]]:
    """Offsets with gaps are handed out in order; up to `concurrency` are out at a time and end in any order; and the
    position is moved over stretches that need no processing."""
    start = draw(st.integers(0, 5))
    concurrency = draw(st.integers(1, 6))
    steps: list[tuple[str, int]] = []
    out: list[int] = []
    position = start
    for _ in range(draw(st.integers(0, 60))):
        choices = ["pass"] + (["hand_out"] if len(out) < concurrency else []) + (["done"] if out else [])
        choice = draw(st.sampled_from(choices))
        if choice == "hand_out":
            offset = position + draw(st.integers(0, 3))
            out.append(offset)
            position = offset + 1
            steps.append(("hand_out", offset))
        elif choice == "done":
            steps.append(("done", out.pop(draw(st.integers(0, len(out) - 1)))))
        else:
            position += draw(st.integers(0, 3))
            steps.append(("pass", position))
    return start, steps


@given(histories())
def test_committable_is_the_largest_offset_below_which_nothing_is_unprocessed(
    history: tuple[int, list[tuple[str, int]]],
) -> None:
    """At every moment, for any concurrency and any order of completion."""
    start, steps = history
    tracker = OffsetTracker(start)
    unprocessed: set[int] = set()
    seen_to = start
    before = start
    for action, offset in steps:
        if action == "hand_out":
            tracker.hand_out(offset)
            unprocessed.add(offset)
            seen_to = offset + 1
        elif action == "done":
            tracker.done(offset)
            unprocessed.remove(offset)
        else:
            tracker.pass_to(offset)
            seen_to = max(seen_to, offset)
        expected = next(end for end in range(seen_to, -1, -1) if not any(one < end for one in unprocessed))
        assert tracker.committable == expected
        assert tracker.committable >= before, "a commit never goes back"
        before = tracker.committable
        assert tracker.in_flight == len(unprocessed)
