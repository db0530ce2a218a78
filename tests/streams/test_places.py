"""Where a task begins: never behind an event that is to be processed."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlog.client.values import OffsetAndMetadata
from streamlog.state.store import SourceOffset
from streamlog.streams.places import SourceLog, place_of
from streamlog.streams.progress import Progress, encode_progress

OLD, NEW = UUID(int=1), UUID(int=2)
LOG = SourceLog(start_offset=3, end_offset=1000, topic_id=NEW)


def group(offset: int, by: str = "", topic: UUID = NEW, **ahead: int) -> OffsetAndMetadata:
    metadata = encode_progress(Progress(by, topic=topic.hex, ahead=ahead)) if by else ""
    return OffsetAndMetadata(offset, metadata=metadata)


def stored(offset: int, by: str, after: str = "", topic: UUID = NEW, **ahead: int) -> SourceOffset:
    return SourceOffset(offset, topic, metadata=encode_progress(Progress(by, after, ahead=ahead)))


@pytest.mark.parametrize(
    ("committed", "kept", "expected"),
    [
        (None, None, 3),
        (group(50, "a"), None, 50),
        (None, stored(60, "a"), 60),  # expired
        (group(50, "a"), stored(60, "a"), 60),  # a crash between the commits
        (group(70, "a"), stored(60, "a"), 70),  # a power cut took the store's last commits
        (group(50, "a"), stored(60, "b", after="a"), 60),  # a crash before the first commit to the group
        (group(50, "c"), stored(60, "b", after="a"), 50),  # elsewhere meanwhile
        (group(50), stored(60, "a"), 50),  # set by a tool
        (group(70), stored(60, "a"), 70),
        (group(50), stored(60, "a", after=""), 50),
        (group(50, "a", OLD), None, 3),  # made again
        (None, stored(60, "a", topic=OLD), 3),
        (group(50, "a", OLD), stored(60, "a", topic=OLD), 3),
        (group(50, "b"), stored(60, "a", topic=OLD), 50),  # made again, and read elsewhere meanwhile
        (group(20), stored(60, "a", topic=OLD), 20),  # made again, and set by a tool
        (group(2000, "a"), stored(2001, "a"), 3),  # the log was cut
    ],
)
def test_the_place(committed: OffsetAndMetadata | None, kept: SourceOffset | None, expected: int) -> None:
    """Case by case; the essay of the module says why."""
    assert place_of(committed, kept, LOG).offset == expected


def test_lanes_ahead_come_with_the_offset_they_belong_to() -> None:
    """A reset forgets them."""
    assert place_of(group(5, "a", x=9), stored(6, "a", x=8, y=7), LOG).ahead == {"x": 9, "y": 7}
    assert place_of(group(5, "b", x=9), stored(6, "a", y=7), LOG).ahead == {"x": 9}
    assert place_of(group(5), stored(6, "a", y=7), LOG).ahead == {}
    assert place_of(group(5, "a", OLD, x=9), stored(6, "a", topic=OLD, y=7), LOG).ahead == {}


def test_somebody_is_told_when_offsets_do_not_count() -> None:
    """And nobody when all is as usual."""
    assert place_of(group(5, "a"), stored(6, "b"), LOG).notice is None
    for place, word in (
        (place_of(group(5), stored(6, "a"), LOG), "was set from 6 to 5"),
        (place_of(group(5, "a", OLD), None, LOG), "made again"),
        (place_of(group(2000, "a"), None, LOG), "the log ends at 1000"),
    ):
        assert word in (place.notice or "")
        assert "tables keep their rows" in (place.notice or "")


def test_brokers_without_topic_ids_are_believed() -> None:
    """Nothing can be compared, so nothing is thrown away."""
    assert place_of(group(5, "a"), stored(6, "a"), SourceLog(0, 10)).offset == 6


steps = st.lists(
    st.tuples(
        st.sampled_from(["run", "run", "crash before the group", "crash before the store", "reset", "power cut"]),
        st.sampled_from(["here", "there"]),
        st.integers(0, 5),
    ),
    max_size=30,
)


@given(steps)
def test_no_event_is_passed_over_whatever_happened_between(script: list[tuple[str, str, int]]) -> None:
    """Two machines, crashes at every step of a commit, resets: a life begins at or before what is to be processed.

    And on one machine, with nothing lost from its disk, exactly there; unless a life crashed before it told the group
    that it went on from a reset: then nobody can tell whether the reset came before it or after.
    """
    committed: OffsetAndMetadata | None = None
    stores: dict[str, list[SourceOffset]] = {"here": [], "there": []}
    to_do = 0  # the first offset that was not processed since the last reset
    alone = len({machine for what, machine, _ in script if what != "reset"}) < 2
    exact = alone and not any(what == "power cut" for what, _, _ in script)
    for number, (what, machine, size) in enumerate(script):
        disk = stores[machine]
        if what == "reset":
            to_do = min(size, to_do)
            committed = OffsetAndMetadata(to_do)
            continue
        if what == "power cut":
            del disk[len(disk) - size :]
            continue
        place = place_of(committed, disk[-1] if disk else None, SourceLog(0, 10_000, NEW))
        assert place.offset <= to_do, f"{what} on {machine} begins at {place.offset} and {to_do} is to be processed"
        if exact:
            assert place.offset == to_do
        end, life = place.offset + size, f"life-{number}"
        if what == "crash before the store" or not size:
            continue
        to_do = max(to_do, end)
        disk.append(stored(end, life, place.after))
        if what == "run":
            committed = group(end, life)
        elif committed is not None and not committed.metadata:
            exact = False
