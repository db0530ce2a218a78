"""What consumers of the classic protocol say to each other through JoinGroup and SyncGroup.

Both start with their version and never became flexible: later versions only add fields at the end, so a reader takes
what it knows of a version that it does not know (`framing.decode_versioned`). Versions: 1 adds owned partitions
(KIP-429); 2 the generation they belong to (KIP-792); 3 the rack (KIP-881).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Message
from streamlog.wire.schema import Int32, Struct, since


class TopicPartition(Struct):
    topic: str = ""
    partitions: list[Int32] = []


class ConsumerProtocolSubscription(Message):
    """A member's subscription."""

    max_version = 3
    exact = False

    topics: list[str] = []
    user_data: bytes | None = None
    owned_partitions: Annotated[list[TopicPartition], since(1, ignorable=True)] = []
    generation_id: Annotated[Int32, since(2, ignorable=True)] = -1
    rack_id: Annotated[str | None, since(3, ignorable=True)] = None


class ConsumerProtocolAssignment(Message):
    """A member's assignment. All versions look the same."""

    max_version = 3
    exact = False

    assigned_partitions: list[TopicPartition] = []
    user_data: bytes | None = None
