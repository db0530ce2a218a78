"""Metadata records as the bytes of `__cluster_metadata`, every one that is ever written."""

from __future__ import annotations

from typing import Final

from streamlog.broker.metadata.image import KnownRecord
from streamlog.env import Buffer
from streamlog.errors import EnvironmentFailure, RemoteProtocolError
from streamlog.wire.internal.framing import decode_metadata_record, encode_metadata_record
from streamlog.wire.internal.metadata import (
    METADATA_RECORDS,
    AccessControlEntryRecord,
    BeginTransactionRecord,
    BrokerRegistrationChangeRecord,
    ClearElrRecord,
    ClientQuotaRecord,
    ConfigRecord,
    DelegationTokenRecord,
    EndTransactionRecord,
    FeatureLevelRecord,
    NoOpRecord,
    PartitionChangeRecord,
    PartitionRecord,
    ProducerIdsRecord,
    RegisterBrokerRecord,
    RegisterControllerRecord,
    RemoveAccessControlEntryRecord,
    RemoveDelegationTokenRecord,
    RemoveTopicRecord,
    RemoveUserScramCredentialRecord,
    TopicRecord,
    UnregisterBrokerRecord,
    UserScramCredentialRecord,
)
from streamlog.wire.message import Message

VERSIONS: Final[dict[type[KnownRecord], int]] = {
    BeginTransactionRecord: 0,
    BrokerRegistrationChangeRecord: 0,
    ClearElrRecord: 0,
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
    UnregisterBrokerRecord: 0,
}
"""The lowest version each is written in at metadata.version 30."""

WITHOUT_MEANING: Final[dict[type[Message], str]] = {
    AccessControlEntryRecord: "ACLs",
    ClientQuotaRecord: "client quotas",
    DelegationTokenRecord: "delegation tokens",
    RemoveAccessControlEntryRecord: "ACLs",
    RemoveDelegationTokenRecord: "delegation tokens",
    RemoveUserScramCredentialRecord: "SCRAM credentials",
    UserScramCredentialRecord: "SCRAM credentials",
}
"""What controllers of Apache Kafka write and streamlog does not have: who may do what, and how much. To step over it
would be to allow what is forbidden; and a node that votes would leave it out of its snapshots, for all."""

ELR_VERSION: Final = 2
SHUTDOWN_VERSION: Final = 1
DIRECTORIES_VERSION: Final = 2


def _version(record: KnownRecord) -> int:
    """Kafka writes some records in the version that came with what they say, and so do we: others can be read by more
    releases.
    """
    match record:
        case PartitionRecord() | PartitionChangeRecord():
            if record.eligible_leader_replicas is not None or record.last_known_elr is not None:
                return ELR_VERSION
        case BrokerRegistrationChangeRecord():
            if record.log_dirs:
                return DIRECTORIES_VERSION
            if record.in_controlled_shutdown:
                return SHUTDOWN_VERSION
    return VERSIONS[type(record)]


def encode_record(record: KnownRecord) -> bytes:
    return encode_metadata_record(record, _version(record))


def decode_record(value: Buffer) -> KnownRecord:
    """Read a record of the log. Raises EnvironmentFailure: it is damaged, or written by a release we do not know.

    Stepping over it is no choice: who does not understand a record does not know the cluster's state.
    """
    try:
        record, _ = decode_metadata_record(METADATA_RECORDS, value)
    except RemoteProtocolError as error:
        raise EnvironmentFailure(f"a record of the metadata log cannot be read: {error}") from error
    if not isinstance(record, KnownRecord):
        name = type(record).__name__
        what = WITHOUT_MEANING.get(type(record), "something that this release does not know")
        raise EnvironmentFailure(
            f"the cluster's metadata has {what} ({name}), and this node would act as if they were not there. Remove "
            "them from the cluster and start it with an empty data directory, or keep it out of that cluster"
        )
    return record
