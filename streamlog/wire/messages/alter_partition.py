"""AlterPartition (API 56): a leader asks the controller to change the ISR (KIP-497).

Versions: 2 names topics by id (KIP-841); 3 carries broker epochs (KIP-903).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request
from streamlog.wire.schema import ZERO_UUID, Int8, Int32, Int64, Struct, since, until


class BrokerState(Struct):
    broker_id: Int32 = 0
    broker_epoch: Int64 = -1


class PartitionData(Struct):
    partition_index: Int32 = 0
    leader_epoch: Int32 = 0
    new_isr: Annotated[list[Int32], until(2)] = []
    new_isr_with_epochs: Annotated[list[BrokerState], since(3)] = []
    leader_recovery_state: Int8 = 0
    partition_epoch: Int32 = 0


class TopicData(Struct):
    topic_id: UUID = ZERO_UUID
    partitions: list[PartitionData] = []


class AlterPartitionRequest(Request):
    """Proposed ISRs. `leader_recovery_state` 1: the leader still recovers from an unclean election (KIP-704)."""

    api_key = 56
    min_version = 2
    max_version = 3
    flexible_since = 0

    broker_id: Int32 = 0
    broker_epoch: Int64 = -1
    topics: list[TopicData] = []
