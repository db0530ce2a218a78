"""What can be set for an app, with the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass

PARTITIONS_DEFAULT = 8
"""Of topics that nobody sized: enough for a few workers with several processes each, few enough that a task's store
costs nothing on a laptop."""

DATA_DIR_DEFAULT = "./streamlog-data"

SESSION_TIMEOUT_MS = 45_000
"""Kafka's default: survives a pause of the machine, and a dead worker's tasks stand still no longer than that."""

METADATA_MAX_AGE_MS = 10_000
"""How soon a worker notices that a topic it reads got more partitions, at the latest. Kafka's clients take up to five
minutes, while records wait there; one small request in ten seconds is nothing to a broker."""

COMMIT_INTERVAL_MS = 100
"""How often a worker commits. What is processed twice after a crash is at most this much; ten commits a second cost a
few percent."""

COMMIT_EVENTS_MAX = 100_000
"""A commit also begins after so many events, so that the rows that wait for it stay few."""

BUFFERED_EVENTS_MAX = 20_000
"""Events of one partition that wait for its slowest lane before its fetches pause: some 50 ms of work, and a few MB."""

DRAIN_TIMEOUT_S = 10.0
"""How long bodies get to finish their current event when a partition is given up. Others of the group wait for it."""

STOP_TIMEOUT_S = 30.0
"""How long a worker takes to stop in all; systemd and Kubernetes kill after 90 and 30 seconds."""

RETRY_BACKOFF_S_FIRST, RETRY_BACKOFF_S_MAX = 0.1, 10.0
"""Pauses between attempts to open, restore or commit while the broker is away."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one app; the command line and the environment go before `broker` and `data_dir`."""

    broker: str | None = None
    data_dir: str | None = None
    partitions: int = PARTITIONS_DEFAULT
    commit_interval_ms: int = COMMIT_INTERVAL_MS
    commit_events_max: int = COMMIT_EVENTS_MAX
    replication_factor: int | None = None
    buffered_events_max: int = BUFFERED_EVENTS_MAX
    drain_timeout_s: float = DRAIN_TIMEOUT_S
    stop_timeout_s: float = STOP_TIMEOUT_S
