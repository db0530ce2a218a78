"""Metadata records as the bytes of `__cluster_metadata`, every one that is ever written."""

from __future__ import annotations

from typing import Final

from streamlog.broker.metadata.image import KnownRecord
from streamlog.env import Buffer
from streamlog.errors import EnvironmentFailure, RemoteProtocolError
from streamlog.wire.internal.framing import decode_metadata_record, encode_metadata_record
from streamlog.wire.internal.metadata import (
    METADATA_RECORDS,
    BeginTransactionRecord,
    BrokerRegistrationChangeRecord,
    ConfigRecord,
    EndTransactionRecord,
    FeatureLevelRecord,
    NoOpRecord,
    PartitionChangeRecord,
    PartitionRecord,
    ProducerIdsRecord,
    RegisterBrokerRecord,
    RegisterControllerRecord,
    RemoveTopicRecord,
    TopicRecord,
)

VERSIONS: Final[dict[type[KnownRecord], int]] = {
    BeginTransactionRecord: 0,
    BrokerRegistrationChangeRecord: 0,
    ConfigRecord: 0,
    EndTransactionRecord: 0,
    FeatureLevelRecord: 0,
    NoOpRecord: 0,
    PartitionChangeRecord: 1,
    PartitionRecord: 1,
    ProducerIdsRecord: 0,
    RegisterBrokerRecord: 4,
    RegisterControllerRecord: 0,
    RemoveTopicRecord: 0,
    TopicRecord: 0,
}
"""The version each is written in at metadata.version 30: what Kafka 4.3 writes while eligible.leader.replicas.version
is not finalized."""


def encode_record(record: KnownRecord) -> bytes:
    return encode_metadata_record(record, VERSIONS[type(record)])


def decode_record(value: Buffer) -> KnownRecord:
    """Read a record of the log. Raises EnvironmentFailure: it is damaged, or written by a release we do not know.

    Stepping over it is no choice: who does not understand a record does not know the cluster's state.
    """
    try:
        record, _ = decode_metadata_record(METADATA_RECORDS, value)
    except RemoteProtocolError as error:
        raise EnvironmentFailure(f"a record of the metadata log cannot be read: {error}") from error
    if not isinstance(record, KnownRecord):
        raise EnvironmentFailure(
            f"the metadata log has a {type(record).__name__}; this release does not know what to do with it"
        )
    return record
