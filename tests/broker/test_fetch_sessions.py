"""The session cache by itself: who gets a slot when there are none."""

from __future__ import annotations

from itertools import count

from streamlog.broker.fetch_sessions import STALE_MS, FetchSessions
from streamlog.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic


def new_sessions(slots_max: int) -> FetchSessions:
    numbers = count(1)
    return FetchSessions(slots_max, lambda bound: next(numbers))


def full_request(partition_count: int) -> FetchRequest:
    asked = [FetchPartition(partition=index) for index in range(partition_count)]
    return FetchRequest(session_epoch=0, topics=[FetchTopic(topic="t", partitions=asked)])


def test_a_full_cache_gives_no_session() -> None:
    """The client names everything each time; nothing breaks."""
    sessions = new_sessions(1)
    assert sessions.plan(full_request(1), 12, 0).session_id == 1
    assert sessions.plan(full_request(100), 12, 0).session_id == 0


def test_a_stale_session_makes_room() -> None:
    """Two minutes unused."""
    sessions = new_sessions(1)
    sessions.plan(full_request(100), 12, 0)
    assert sessions.plan(full_request(1), 12, STALE_MS + 1).session_id == 2
    assert len(sessions) == 1


def test_a_larger_session_replaces_a_smaller_one_that_has_had_its_time() -> None:
    """But not one of its own size."""
    sessions = new_sessions(1)
    first = sessions.plan(full_request(5), 12, 0)
    renewed = FetchRequest(session_id=first.session_id, session_epoch=1)
    sessions.plan(renewed, 12, STALE_MS)
    assert sessions.plan(full_request(5), 12, STALE_MS + 1).session_id == 0
    assert sessions.plan(full_request(6), 12, STALE_MS + 1).session_id == 2


def test_no_slots_mean_no_sessions() -> None:
    """max.incremental.fetch.session.cache.slots=0."""
    assert new_sessions(0).plan(full_request(3), 12, 0).session_id == 0
