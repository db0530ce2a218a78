"""The file quorum-state: what a voter must not forget about elections (KIP-595, KIP-853).

It is one line of JSON, with Kafka's names in camel case and the version as `data_version`. Version 0 goes with a
fixed set of voters, 1 with a changing one.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec

from streamlog.errors import RemoteProtocolError
from streamlog.wire.compiler import Buffer
from streamlog.wire.message import Message
from streamlog.wire.schema import ZERO_UUID, Int32, Int64, Struct, since, until
from streamlog.wire.uuids import uuid_from_text, uuid_to_text


class Voter(Struct):
    voter_id: Int32 = 0


class QuorumState(Message):
    """The newest epoch seen, its leader and our vote in it; -1 where there is none."""

    max_version = 1
    flexible_since = 0

    cluster_id: Annotated[str, until(0)] = ""
    leader_id: Int32 = -1
    leader_epoch: Int32 = -1
    voted_id: Int32 = -1
    voted_directory_id: Annotated[UUID, since(1)] = ZERO_UUID
    applied_offset: Annotated[Int64, until(0)] = 0
    current_voters: Annotated[list[Voter] | None, until(0)] = []


class _VoterLine(msgspec.Struct, rename="camel"):
    voter_id: int


class _Version0(msgspec.Struct, rename="camel"):
    cluster_id: str
    leader_id: int
    leader_epoch: int
    voted_id: int
    applied_offset: int
    current_voters: list[_VoterLine] | None
    data_version: int = msgspec.field(name="data_version", default=0)


class _Version1(msgspec.Struct, rename="camel"):
    leader_id: int
    leader_epoch: int
    voted_id: int
    voted_directory_id: str
    data_version: int = msgspec.field(name="data_version", default=1)


class _AnyVersion(msgspec.Struct):
    data_version: int


def encode_quorum_state(state: QuorumState, version: int) -> bytes:
    """The file's content. Raises: LocalProtocolError if `version` cannot carry the state."""
    state.encode(version)
    ids = (state.leader_id, state.leader_epoch, state.voted_id)
    if version == 0:
        voters = state.current_voters
        lines = None if voters is None else [_VoterLine(voter.voter_id) for voter in voters]
        return msgspec.json.encode(_Version0(state.cluster_id, *ids, state.applied_offset, lines))
    return msgspec.json.encode(_Version1(*ids, uuid_to_text(state.voted_directory_id)))


def decode_quorum_state(content: Buffer) -> tuple[QuorumState, int]:
    """Read the file. Returns the state and its version. Raises: RemoteProtocolError if it is not such a file."""
    try:
        version = msgspec.json.decode(content, type=_AnyVersion).data_version
        if version == 0:
            old = msgspec.json.decode(content, type=_Version0)
            voters = old.current_voters
            return QuorumState(
                cluster_id=old.cluster_id,
                leader_id=old.leader_id,
                leader_epoch=old.leader_epoch,
                voted_id=old.voted_id,
                applied_offset=old.applied_offset,
                current_voters=None if voters is None else [Voter(voter_id=voter.voter_id) for voter in voters],
            ), version
        if version == 1:
            line = msgspec.json.decode(content, type=_Version1)
            return QuorumState(
                leader_id=line.leader_id,
                leader_epoch=line.leader_epoch,
                voted_id=line.voted_id,
                voted_directory_id=uuid_from_text(line.voted_directory_id),
            ), version
    except (msgspec.DecodeError, ValueError) as error:
        raise RemoteProtocolError(f"not a quorum-state file: {error}") from error
    raise RemoteProtocolError(f"quorum-state file of version {version}; 0 and 1 are known")
