"""The records of `__consumer_offsets` as bytes, exactly as Kafka 4.3 writes and reads them.

Kafka 4.3 writes OffsetCommitValue v4 (v1 when the commit carries its own expiry, which only old clients send) and
GroupMetadataValue v3; all versions are read. Records of groups of other types (KIP-848, KIP-932, KIP-1071) share
the topic and decode to None here.

Source: KIP-211 (expiry), KIP-345 (instance ids), KIP-848 (record types).
"""

from __future__ import annotations

from streamlog.broker.coordinator.group.records import (
    GroupForgotten,
    GroupRecord,
    GroupStored,
    MemberStored,
    OffsetCommitted,
    OffsetForgotten,
)
from streamlog.wire.internal.framing import (
    decode_coordinator_key,
    decode_versioned,
    encode_coordinator_key,
    encode_versioned,
)
from streamlog.wire.internal.group import (
    GROUP_RECORDS,
    GroupMetadataKey,
    GroupMetadataValue,
    LegacyOffsetCommitKey,
    LegacyOffsetCommitValue,
    MemberMetadata,
    OffsetCommitKey,
    OffsetCommitValue,
)

OFFSET_VALUE_VERSION = 4
OFFSET_VALUE_VERSION_WITH_EXPIRY = 1
GROUP_VALUE_VERSION = 3
NO_TIMESTAMP = -1


def encode(record: GroupRecord) -> tuple[bytes, bytes | None]:
    """Key and value bytes as Kafka 4.3 writes them; the value of a tombstone is None."""
    match record:
        case OffsetCommitted():
            return _offset_key(record), _offset_value(record)
        case OffsetForgotten():
            return _offset_key(record), None
        case GroupStored():
            return _group_key(record.group_id), _group_value(record)
        case GroupForgotten():
            return _group_key(record.group_id), None


def decode(key: bytes, value: bytes | None) -> GroupRecord | None:
    """The record behind key and value bytes, or None for a kind this room does not keep.

    Raises: RemoteProtocolError when a known kind does not parse.
    """
    decoded = decode_coordinator_key(GROUP_RECORDS, key)
    match decoded:
        case LegacyOffsetCommitKey() | OffsetCommitKey():
            return _decode_offset(decoded, value)
        case GroupMetadataKey():
            return _decode_group(decoded.group, value)
        case _:
            return None


def _offset_key(record: OffsetCommitted | OffsetForgotten) -> bytes:
    key = OffsetCommitKey(group=record.group_id, topic=record.topic, partition=record.partition)
    return encode_coordinator_key(key)


def _group_key(group_id: str) -> bytes:
    return encode_coordinator_key(GroupMetadataKey(group=group_id))


def _offset_value(record: OffsetCommitted) -> bytes:
    value = OffsetCommitValue(
        offset=record.offset,
        leader_epoch=record.leader_epoch,
        metadata=record.metadata,
        commit_timestamp=record.committed_at_ms,
        expire_timestamp=NO_TIMESTAMP if record.expires_at_ms is None else record.expires_at_ms,
        topic_id=record.topic_id,
    )
    has_expiry = record.expires_at_ms is not None
    return encode_versioned(value, OFFSET_VALUE_VERSION_WITH_EXPIRY if has_expiry else OFFSET_VALUE_VERSION)


def _group_value(record: GroupStored) -> bytes:
    value = GroupMetadataValue(
        protocol_type=record.protocol_type or "",
        generation=record.generation_id,
        protocol=record.protocol_name,
        leader=record.leader_id,
        current_state_timestamp=NO_TIMESTAMP if record.state_changed_at_ms is None else record.state_changed_at_ms,
        members=[
            MemberMetadata(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                rebalance_timeout=member.rebalance_timeout_ms,
                session_timeout=member.session_timeout_ms,
                subscription=member.subscription,
                assignment=member.assignment,
            )
            for member in record.members
        ],
    )
    return encode_versioned(value, GROUP_VALUE_VERSION)


def _decode_offset(key: LegacyOffsetCommitKey | OffsetCommitKey, data: bytes | None) -> GroupRecord:
    if data is None:
        return OffsetForgotten(key.group, key.topic, key.partition)
    kind = LegacyOffsetCommitValue if isinstance(key, LegacyOffsetCommitKey) else OffsetCommitValue
    value = decode_versioned(kind, data)
    assert isinstance(value, LegacyOffsetCommitValue | OffsetCommitValue), "the two kinds just named"
    if isinstance(value, LegacyOffsetCommitValue):
        value = OffsetCommitValue(offset=value.offset, metadata=value.metadata, commit_timestamp=value.commit_timestamp)
    return OffsetCommitted(
        group_id=key.group,
        topic=key.topic,
        partition=key.partition,
        offset=value.offset,
        leader_epoch=value.leader_epoch,
        metadata=value.metadata,
        committed_at_ms=value.commit_timestamp,
        expires_at_ms=None if value.expire_timestamp == NO_TIMESTAMP else value.expire_timestamp,
        topic_id=value.topic_id,
    )


def _decode_group(group_id: str, data: bytes | None) -> GroupRecord:
    if data is None:
        return GroupForgotten(group_id)
    value = decode_versioned(GroupMetadataValue, data)
    timestamp_ms = value.current_state_timestamp
    return GroupStored(
        group_id=group_id,
        generation_id=value.generation,
        protocol_type=value.protocol_type or None,
        protocol_name=value.protocol,
        leader_id=value.leader,
        state_changed_at_ms=None if timestamp_ms == NO_TIMESTAMP else timestamp_ms,
        members=tuple(
            MemberStored(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                # Version 0 has one timeout for both.
                rebalance_timeout_ms=(
                    member.session_timeout if member.rebalance_timeout < 0 else member.rebalance_timeout
                ),
                session_timeout_ms=member.session_timeout,
                subscription=member.subscription,
                assignment=member.assignment,
            )
            for member in value.members
        ),
    )
