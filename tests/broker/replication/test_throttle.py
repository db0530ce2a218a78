"""Rates for moving replicas, and whom they are for."""

from __future__ import annotations

import pytest

from streamlog.broker.replication.throttle import (
    FOLLOWER_REPLICAS,
    LEADER_RATE,
    Throttle,
    rate_of,
    throttled_partitions,
)


def test_a_rate_is_kept_over_time() -> None:
    """Sending whenever it is allowed comes to the rate, give or take one send."""
    throttle = Throttle()
    throttle.bytes_per_second = 1000
    sent = 0
    for now_ms in range(0, 30_000, 10):
        if not throttle.is_exceeded(now_ms):
            throttle.count(300, now_ms)
            sent += 300
    assert 29_000 <= sent <= 33_000


def test_what_is_over_is_forgotten() -> None:
    """A burst holds up as long as it takes to pay for, not for ever."""
    throttle = Throttle()
    throttle.bytes_per_second = 1000
    throttle.count(5_000, 0)
    assert throttle.is_exceeded(4_000)
    assert not throttle.is_exceeded(5_000)


def test_no_rate_is_no_limit() -> None:
    """The configs are absent most of the time."""
    throttle = Throttle()
    throttle.count(10**12, 0)
    assert not throttle.is_exceeded(1)
    assert rate_of({}, LEADER_RATE) == throttle.bytes_per_second
    assert rate_of({LEADER_RATE: "7"}, LEADER_RATE) == 7


@pytest.mark.parametrize(("value", "partitions"), [("", []), ("*", None), ("0:1,1:2, 2:1", [0, 2]), ("0:11", [])])
def test_replicas_are_named_by_partition_and_broker(value: str, partitions: list[int] | None) -> None:
    """Only those of the broker that asks."""
    found = throttled_partitions({FOLLOWER_REPLICAS: value}, FOLLOWER_REPLICAS, 1)
    assert found == (None if partitions is None else frozenset(partitions))
