"""What the controller answers to a request: records to append, and the response once they are committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from streamlog.broker.metadata.image import KnownRecord
from streamlog.wire.error_codes import ErrorCode, KafkaError

A = TypeVar("A")

PARTITIONS_PER_REQUEST_MAX = 10_000
"""Kafka's limit. The records of one request are one batch of the metadata log, and every broker applies them in one
go: more would stall all of them."""


@dataclass(frozen=True, slots=True)
class Decision(Generic[A]):
    """The outcome of a `handle_` function. Nothing has changed yet when it is returned."""

    records: tuple[KnownRecord, ...]
    """One atomic batch. Empty: nothing to write, the response may leave at once."""
    response: A


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """What the controller needs of the node's configuration."""

    cluster_id: str = ""
    num_partitions: int = 1
    default_replication_factor: int = 1
    delete_topic_enable: bool = True
    topic_defaults: Mapping[str, str] = field(default_factory=dict)
    """The broker-side names of topic configs that are set."""


def refuse(code: ErrorCode, message: str) -> KafkaError:
    """An error that stays with one item of a request. To be raised."""
    return KafkaError(code, message)
