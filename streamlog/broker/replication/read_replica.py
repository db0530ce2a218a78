"""Which replica a consumer had better read from (KIP-392): the one in its own rack, if it has what is asked for.

`replica.selector.class` names the rule by Kafka's class names; without it, and for consumers that name no rack, that is
the leader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from streamlog.broker.replication.leader import LeaderState
from streamlog.errors import UserError

RACK_AWARE: Final = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
LEADER: Final = "org.apache.kafka.common.replica.LeaderSelector"


def check_selector(name: str) -> bool:
    """Whether consumers are sent to other replicas at all. Raises UserError: there is no such rule."""
    if name not in ("", LEADER, RACK_AWARE):
        raise UserError(f"replica.selector.class is {name}. It can be {RACK_AWARE} or {LEADER}.")
    return name == RACK_AWARE


def nearest(state: LeaderState, rack: str, offset: int, rack_of: Callable[[int], str | None]) -> int:
    """The broker to read from: in the reader's rack, in sync, with `offset` in its log; the one that has most.

    The leader itself if it is in that rack, or nobody else is.
    """
    if rack_of(state.node_id) == rack:
        return state.node_id
    candidates: Mapping[int, int] = {
        broker_id: follower.log_end_offset
        for broker_id, follower in state.followers.items()
        if broker_id in state.isr
        and follower.log_start_offset <= offset <= follower.log_end_offset
        and rack_of(broker_id) == rack
    }
    return max(candidates, key=lambda broker_id: (candidates[broker_id], -broker_id), default=state.node_id)
