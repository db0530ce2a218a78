"""What can go wrong on the way to a broker, as a caller has to tell it apart."""

from __future__ import annotations

from streamlog.errors import EnvironmentFailure
from streamlog.wire.error_codes import ErrorCode, KafkaError

LOST_COORDINATOR = frozenset({ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE})
"""Answers of a broker that does not coordinate the group or the transactional id we asked about (any more)."""


class BrokerUnreachable(EnvironmentFailure):
    """A broker could not be reached, or stopped answering; the message names its address.

    The client keeps trying by itself wherever a Kafka client would. Who sees this ran out of time.
    """


class BufferFull(EnvironmentFailure):
    """The producer's buffer has no room; nothing was taken. Await `room()`, or use `send`, which does."""


class NotDelivered(EnvironmentFailure):
    """The record was certainly not written: it could not be sent in time, or the producer was closed."""


class DeliveryUnknown(EnvironmentFailure):
    """Nobody knows whether the record was written: it was sent, and no answer came in time."""


class ProducerFenced(KafkaError):
    """Another producer has the transactional id: this one can do nothing any more but close."""


def one_line(error: BaseException) -> str:
    """An exception as a clause of a message: its text, or its name when it has none."""
    text = str(error) or type(error).__name__
    return " ".join(text.split())
