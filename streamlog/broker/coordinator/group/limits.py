"""The settings of a group coordinator, under Kafka's names with dots turned to underscores."""

from __future__ import annotations

from dataclasses import dataclass

NEW_MEMBER_JOIN_TIMEOUT_MS = 5 * 60 * 1000
"""How long a parked first JoinGroup keeps a member alive. It cannot heartbeat, because it does not know its id yet,
and a client that gave up and retried would otherwise leave one ghost per retry in the rebalance (Kafka's value)."""

PENDING_IDS_MAX = 10_000
"""Member ids that a group has handed out and that nobody has used yet. Beyond it the oldest is forgotten: a client
that only ever asks for ids must not fill the memory, and a rebalance waits for each of them anyway."""

NOTE_CHARS_MAX = 255
"""Of a client's reason in our log: KIP-800's own limit, which clients may ignore."""


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """What an operator may set. Defaults are Kafka's."""

    group_min_session_timeout_ms: int = 6_000
    group_max_session_timeout_ms: int = 1_800_000
    group_initial_rebalance_delay_ms: int = 3_000
    group_max_size: int = 0x7FFFFFFF
    group_record_max_bytes: int = 1_000_000
    """What a generation may weigh in the log: a little below the 1048588 bytes that topics accept by default, so that
    one group's greed is refused here and does not fail an append, which would cost all groups of the shard."""
    offset_metadata_max_bytes: int = 4_096
    offsets_retention_ms: int = 10_080 * 60_000
    offsets_retention_check_interval_ms: int = 600_000
