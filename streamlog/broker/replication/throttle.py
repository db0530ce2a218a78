"""How much of the network moving replicas may use: a rate for what this broker leads, one for what it follows.

The rates are configs of the broker, `leader.replication.throttled.rate` and `follower.replication.throttled.rate`.
Which replicas they are for is a config of the topic, `*` or `partition:broker,...` (KIP-73). A replica that is in sync
is never throttled, or it would fall out: leaders know that, followers are told by the metadata.

A rate is measured over the last ten seconds. What exceeds it is not sent, or not asked for, until it no longer does; so
one fetch may overshoot, and the mean is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

LEADER_RATE: Final = "leader.replication.throttled.rate"
FOLLOWER_RATE: Final = "follower.replication.throttled.rate"
LEADER_REPLICAS: Final = "leader.replication.throttled.replicas"
FOLLOWER_REPLICAS: Final = "follower.replication.throttled.replicas"

UNLIMITED: Final = 2**63 - 1

SAMPLE_MS: Final = 1_000
"""Kafka's replication.quota.window.size.seconds."""

SAMPLES_MAX: Final = 11
"""Kafka's replication.quota.window.num: ten whole ones and the one that is running."""


class Throttle:
    """One rate, and what has been counted against it."""

    def __init__(self) -> None:
        self.bytes_per_second = UNLIMITED
        self._samples: deque[tuple[int, int]] = deque()  # (begin in ms, bytes), oldest first

    def count(self, size_bytes: int, now_ms: int) -> None:
        if self._samples and now_ms - self._samples[-1][0] < SAMPLE_MS:
            begin_ms, counted = self._samples[-1]
            self._samples[-1] = begin_ms, counted + size_bytes
        else:
            self._samples.append((now_ms, size_bytes))

    def is_exceeded(self, now_ms: int) -> bool:
        if self.bytes_per_second == UNLIMITED:
            return False
        while self._samples and now_ms - self._samples[0][0] >= SAMPLES_MAX * SAMPLE_MS:
            self._samples.popleft()
        if not self._samples:
            return False
        elapsed_ms = max(SAMPLE_MS, now_ms - self._samples[0][0])
        return sum(counted for _, counted in self._samples) * 1000 > self.bytes_per_second * elapsed_ms


def throttled_partitions(config: Mapping[str, str], name: str, broker_id: int) -> frozenset[int] | None:
    """Partitions of a topic that are throttled on this broker, by its config `name`; None: all of them."""
    value = config.get(name, "").strip()
    if value == "*":
        return None
    items = (item.strip().split(":") for item in value.split(",") if item.strip())
    return frozenset(int(partition) for partition, broker in items if int(broker) == broker_id)


def rate_of(config: Mapping[str, str], name: str) -> int:
    """The rate in a broker's dynamic configs, bytes per second."""
    return int(config.get(name, UNLIMITED))
