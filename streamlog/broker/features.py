"""Feature levels (KIP-584): what this software can do, and what a new cluster is formatted with."""

from __future__ import annotations

from typing import Final, NamedTuple


class LevelRange(NamedTuple):
    low: int
    high: int


METADATA_VERSION: Final = "metadata.version"
KRAFT_VERSION: Final = "kraft.version"

ELIGIBLE_LEADER_REPLICAS: Final = "eligible.leader.replicas.version"

METADATA_VERSION_LEVEL: Final = 30
"""4.3-IV0: the record formats `metadata/` writes. Fields of the levels below it are all understood; levels above
may mean what we do not know."""

KRAFT_VERSION_LEVEL: Final = 1
"""Voters are records of the quorum's own log, with directory ids (KIP-853)."""

ELIGIBLE_LEADER_REPLICAS_LEVEL: Final = 1
"""KIP-966: who left the ISR below min ISR can still lead; the high watermark does not move there."""

SUPPORTED_FEATURES: Final[dict[str, LevelRange]] = {
    ELIGIBLE_LEADER_REPLICAS: LevelRange(0, ELIGIBLE_LEADER_REPLICAS_LEVEL),
    KRAFT_VERSION: LevelRange(0, KRAFT_VERSION_LEVEL),
    METADATA_VERSION: LevelRange(METADATA_VERSION_LEVEL, METADATA_VERSION_LEVEL),
}
"""Absent, because it does not exist here yet: group.version (KIP-848), transaction.version, share.version,
streams.version. A client that sees them absent uses the older protocol."""

BOOTSTRAP_FEATURES: Final[dict[str, int]] = {
    METADATA_VERSION: METADATA_VERSION_LEVEL,
    ELIGIBLE_LEADER_REPLICAS: ELIGIBLE_LEADER_REPLICAS_LEVEL,
}
"""Finalized when a cluster is formatted. kraft.version is not among them: the quorum keeps it in its own records."""
