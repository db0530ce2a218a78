"""Where the replicas of new partitions go."""

from __future__ import annotations

from collections.abc import Sequence

from streamlog.broker.metadata.decision import refuse
from streamlog.wire.error_codes import ErrorCode


def place_replicas(
    active_brokers: Sequence[int], first_partition: int, partition_count: int, replication_factor: int
) -> list[tuple[int, ...]]:
    """Replicas of each new partition, the preferred leader first: leaders and replicas go round the brokers.

    Raises KafkaError INVALID_REPLICATION_FACTOR when there are not enough brokers.
    """
    count = len(active_brokers)
    if replication_factor > count:
        raise refuse(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"cannot place {replication_factor} replicas: {count} broker(s) are registered and active",
        )
    brokers = sorted(active_brokers)
    return [
        tuple(brokers[(index + replica) % count] for replica in range(replication_factor))
        for index in range(first_partition, first_partition + partition_count)
    ]
