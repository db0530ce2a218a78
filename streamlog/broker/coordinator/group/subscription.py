"""The one thing the coordinator reads in a member's opaque metadata: the topics of a consumer.

Version 0 of ConsumerProtocolSubscription is a prefix of every later version, so the version is skipped and the
topics are read; whatever follows belongs to the assignors. Needed so that offsets of subscribed topics neither
expire nor get deleted under a running group (KIP-211, KIP-496).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

CONSUMER_PROTOCOL_TYPE = "consumer"


def subscribed_topics(subscriptions: Sequence[bytes]) -> frozenset[str] | None:
    """All topics that these members subscribe to, or None when one of them does not parse."""
    topics: list[str] = []
    for subscription in subscriptions:
        try:
            topics.extend(_topics(subscription))
        except (struct.error, UnicodeDecodeError, ValueError):
            return None
    return frozenset(topics)


def _topics(subscription: bytes) -> list[str]:
    _version, count = struct.unpack_from(">hi", subscription)
    position = 6
    if count < 0 or count * 2 > len(subscription) - position:
        raise ValueError(f"{count} topics do not fit into {len(subscription)} bytes")
    topics: list[str] = []
    for _ in range(count):
        (length,) = struct.unpack_from(">h", subscription, position)
        position += 2
        if length < 0 or length > len(subscription) - position:
            raise ValueError(f"a name of {length} bytes does not fit")
        topics.append(subscription[position : position + length].decode())
        position += length
    return topics
