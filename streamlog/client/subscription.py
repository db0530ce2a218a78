"""What members of a classic consumer group tell each other, through a broker that does not read it.

A member joins with a `Subscription`; the leader answers with one `Assignment` per member. Both are Kafka's
`ConsumerProtocol` (KIP-54, KIP-429, KIP-792, KIP-881), so that members written in Java or C can share a group with
ours. Bytes here come from other programs: every length is checked against what remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct, error

from streamlog.client.values import NO_EPOCH, TopicPartition, partitions_by_topic
from streamlog.errors import RemoteProtocolError

SUBSCRIPTION_VERSION = 3
ASSIGNMENT_VERSION = 0
"""Versions 0 to 3 of the assignment are the same bytes; 0 is read by everybody."""

PROTOCOL_TYPE = "consumer"

_INT16 = Struct(">h")
_INT32 = Struct(">i")


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one member wants and holds."""

    topics: tuple[str, ...]
    userdata: bytes | None = None
    owned: tuple[TopicPartition, ...] = ()
    """Partitions the member still holds while it joins; empty under the eager protocol."""
    generation_id: int = NO_EPOCH
    """Generation in which it got them; -1 when it does not say (before version 2)."""
    rack_id: str | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A member as the leader's assignor sees it."""

    member_id: str
    instance_id: str | None
    subscription: Subscription


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one member gets."""

    partitions: tuple[TopicPartition, ...]
    userdata: bytes | None = None


def encode_subscription(subscription: Subscription) -> bytes:
    """Version 3 of ConsumerProtocolSubscription, its version number in front."""
    out = bytearray(_INT16.pack(SUBSCRIPTION_VERSION))
    out += _INT32.pack(len(subscription.topics))
    for topic in subscription.topics:
        out += _string(topic)
    out += _bytes(subscription.userdata)
    out += _partitions(subscription.owned)
    out += _INT32.pack(subscription.generation_id)
    out += _string(subscription.rack_id)
    return bytes(out)


def decode_subscription(data: bytes) -> Subscription:
    """Any version, also later ones, whose further fields are ignored. Raises RemoteProtocolError."""
    reader = _Reader(data)
    version = reader.int16()
    topics = tuple(reader.string() for _ in range(reader.count(2)))
    userdata = reader.nullable_bytes()
    owned = reader.partitions() if version >= 1 else ()
    generation_id = reader.int32() if version >= 2 else NO_EPOCH
    rack_id = reader.nullable_string() if version >= 3 else None
    return Subscription(topics, userdata, owned, generation_id, rack_id)


def encode_assignment(assignment: Assignment) -> bytes:
    """ConsumerProtocolAssignment, its version number in front."""
    return (
        _INT16.pack(ASSIGNMENT_VERSION) + bytes(_partitions(assignment.partitions)) + bytes(_bytes(assignment.userdata))
    )


def decode_assignment(data: bytes) -> Assignment:
    """Any version. No bytes at all mean nothing assigned. Raises RemoteProtocolError."""
    if not data:
        return Assignment(())
    reader = _Reader(data)
    reader.int16()
    return Assignment(reader.partitions(), reader.nullable_bytes())


def _string(text: str | None) -> bytes:
    if text is None:
        return _INT16.pack(-1)
    data = text.encode()
    return _INT16.pack(len(data)) + data


def _bytes(data: bytes | None) -> bytes:
    return _INT32.pack(-1) if data is None else _INT32.pack(len(data)) + data


def _partitions(partitions: Sequence[TopicPartition]) -> bytearray:
    grouped = partitions_by_topic(partitions)
    out = bytearray(_INT32.pack(len(grouped)))
    for topic, numbers in grouped.items():
        out += _string(topic) + _INT32.pack(len(numbers))
        for number in numbers:
            out += _INT32.pack(number)
    return out


class _Reader:
    """Reads in order; what does not fit is the other member's fault."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def int16(self) -> int:
        return self._number(_INT16)

    def int32(self) -> int:
        return self._number(_INT32)

    def count(self, item_bytes_min: int) -> int:
        """Length of an array whose items take at least `item_bytes_min` each; null counts as empty."""
        count = self.int32()
        if count > (len(self._data) - self._position) // item_bytes_min:
            raise RemoteProtocolError(f"group protocol: an array of {count} items in {len(self._data)} bytes")
        return max(count, 0)

    def string(self) -> str:
        return self.nullable_string() or ""

    def nullable_string(self) -> str | None:
        data = self._take(self.int16())
        try:
            return None if data is None else data.decode()
        except UnicodeDecodeError as failure:
            raise RemoteProtocolError(f"group protocol: text that is not UTF-8: {failure}") from None

    def nullable_bytes(self) -> bytes | None:
        return self._take(self.int32())

    def partitions(self) -> tuple[TopicPartition, ...]:
        found: list[TopicPartition] = []
        for _ in range(self.count(6)):
            topic = self.string()
            found.extend(TopicPartition(topic, self.int32()) for _ in range(self.count(4)))
        return tuple(found)

    def _number(self, layout: Struct) -> int:
        try:
            (number,) = layout.unpack_from(self._data, self._position)
        except error:
            raise RemoteProtocolError("group protocol: the bytes end in the middle of a number") from None
        self._position += layout.size
        return int(number)

    def _take(self, length: int) -> bytes | None:
        if length < 0:
            return None
        end = self._position + length
        if end > len(self._data):
            raise RemoteProtocolError(f"group protocol: a field of {length} bytes does not fit the message")
        data = self._data[self._position : end]
        self._position = end
        return data
