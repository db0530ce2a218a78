"""Bodies of the control records that carry the quorum's voters (KIP-853). They stand in the metadata log and at the
start of its snapshots.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from streamlog.wire.message import Message
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Struct, UInt16


class KRaftVersionRecord(Message):
    """The quorum's protocol: 0 has a fixed set of voters, 1 a changing one."""

    flexible_since = 0

    version: Int16 = 0
    kraft_version: Int16 = 0


class Endpoint(Struct):
    name: str = ""
    host: str = ""
    port: UInt16 = 0


class KRaftVersionFeature(Struct):
    min_supported_version: Int16 = 0
    max_supported_version: Int16 = 0


class Voter(Struct):
    voter_id: Int32 = 0
    voter_directory_id: UUID = ZERO_UUID
    endpoints: list[Endpoint] = []
    kraft_version_feature: KRaftVersionFeature = msgspec.field(default_factory=KRaftVersionFeature)


class VotersRecord(Message):
    """The set of voters from here on."""

    flexible_since = 0

    version: Int16 = 0
    voters: list[Voter] = []
