"""Who votes: a value, and how it changes along the log (KIP-853).

The newest set in the log counts from the moment it is appended, committed or not. Two sets that follow each other
differ by one voter at most, so every majority of one meets every majority of the other. A set that is cut off the log
again gives way to the one before it; `VoterHistory` remembers those that may still be needed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from streamlog.broker.raft.messages import Endpoint, Endpoints, ReplicaKey, VersionRange
from streamlog.wire.internal.voters import Endpoint as EndpointRecord
from streamlog.wire.internal.voters import KRaftVersionFeature, KRaftVersionRecord, Voter, VotersRecord
from streamlog.wire.schema import ZERO_UUID

BOOTSTRAP_OFFSET: Final = -1
"""Offset of what stands in the snapshot a cluster is formatted with, before all records."""

ANY_KRAFT_VERSION: Final = VersionRange(0, 1)


class VoterNode(msgspec.Struct, frozen=True):
    key: ReplicaKey
    endpoints: Endpoints = ()
    versions: VersionRange = ANY_KRAFT_VERSION

    def is_replica(self, key: ReplicaKey) -> bool:
        """Whether that replica is meant. A voter whose directory nobody knows is any disk of that node."""
        return self.key.id == key.id and self.key.directory_id in (ZERO_UUID, key.directory_id)

    def address(self, listener: str) -> tuple[str, int] | None:
        """Where the voter listens under this name; under its first name when it has none such."""
        for endpoint in self.endpoints:
            if endpoint.name == listener:
                return endpoint.host, endpoint.port
        return None


class VoterSet:
    """Immutable, ordered by node number."""

    __slots__ = ("_by_id", "nodes")

    def __init__(self, nodes: Iterable[VoterNode] = ()) -> None:
        self.nodes = tuple(sorted(nodes, key=lambda node: node.key.id))
        self._by_id = {node.key.id: node for node in self.nodes}
        assert len(self._by_id) == len(self.nodes), "a node votes once"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VoterSet) and self.nodes == other.nodes

    def __hash__(self) -> int:
        return hash(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[VoterNode]:
        return iter(self.nodes)

    def __repr__(self) -> str:
        return f"VoterSet({', '.join(str(node.key) for node in self.nodes)})"

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(self._by_id)

    @property
    def majority(self) -> int:
        return len(self.nodes) // 2 + 1

    def get(self, node_id: int) -> VoterNode | None:
        return self._by_id.get(node_id)

    def endpoints(self, node_id: int) -> Endpoints:
        node = self._by_id.get(node_id)
        return () if node is None else node.endpoints

    def has(self, key: ReplicaKey) -> bool:
        node = self._by_id.get(key.id)
        return node is not None and node.is_replica(key)

    def is_only(self, key: ReplicaKey) -> bool:
        return len(self.nodes) == 1 and self.has(key)

    def others(self, key: ReplicaKey) -> list[VoterNode]:
        return [node for node in self.nodes if not node.is_replica(key)]

    def with_voter(self, node: VoterNode) -> VoterSet | None:
        """None when a voter has that number already."""
        return None if node.key.id in self._by_id else VoterSet((*self.nodes, node))

    def without_voter(self, key: ReplicaKey) -> VoterSet | None:
        """None when there is no such voter, or no other."""
        node = self._by_id.get(key.id)
        if node is None or node.key != key or len(self.nodes) == 1:
            return None
        return VoterSet(other for other in self.nodes if other is not node)

    def with_update(self, node: VoterNode) -> VoterSet | None:
        """None when there is no such voter."""
        if not self.has(node.key):
            return None
        return VoterSet((*(other for other in self.nodes if other.key.id != node.key.id), node))

    def to_record(self) -> VotersRecord:
        return VotersRecord(
            voters=[
                Voter(
                    voter_id=node.key.id,
                    voter_directory_id=node.key.directory_id,
                    endpoints=[EndpointRecord(name=name, host=host, port=port) for name, host, port in node.endpoints],
                    kraft_version_feature=KRaftVersionFeature(
                        min_supported_version=node.versions.low, max_supported_version=node.versions.high
                    ),
                )
                for node in self.nodes
            ]
        )

    @classmethod
    def from_record(cls, record: VotersRecord) -> VoterSet:
        return cls(
            VoterNode(
                ReplicaKey(voter.voter_id, voter.voter_directory_id),
                tuple(Endpoint(at.name, at.host, at.port) for at in voter.endpoints),
                VersionRange(
                    voter.kraft_version_feature.min_supported_version,
                    voter.kraft_version_feature.max_supported_version,
                ),
            )
            for voter in record.voters
        )


class VoterHistory:
    """The voter sets and kraft.versions of the log, by the offset at which they stand."""

    def __init__(self, static_voters: VoterSet) -> None:
        """`static_voters`: those of the settings, which count until the log says otherwise."""
        self._static = static_voters
        self._sets: list[tuple[int, VoterSet]] = []  # offsets rise
        self._versions: list[tuple[int, int]] = []  # offsets rise

    def note(self, offset: int, record: VotersRecord | KRaftVersionRecord) -> None:
        """This record stands at `offset`, behind all that were noted before."""
        if isinstance(record, VotersRecord):
            self._sets.append((offset, VoterSet.from_record(record)))
        else:
            self._versions.append((offset, record.kraft_version))

    @property
    def voters(self) -> VoterSet:
        """The newest set, committed or not: the one that counts."""
        return self._sets[-1][1] if self._sets else self._static

    @property
    def voters_offset(self) -> int | None:
        """Where the newest set stands; None for the one of the settings."""
        return self._sets[-1][0] if self._sets else None

    @property
    def kraft_version(self) -> int:
        return self._versions[-1][1] if self._versions else 0

    def voters_at(self, offset: int) -> VoterSet | None:
        """The newest set at or below `offset`, for a snapshot that ends there; None for the one of the settings."""
        number = bisect_right(self._sets, offset, key=lambda entry: entry[0])
        return self._sets[number - 1][1] if number else None

    def kraft_version_at(self, offset: int) -> int:
        number = bisect_right(self._versions, offset, key=lambda entry: entry[0])
        return self._versions[number - 1][1] if number else 0

    def forget_from(self, offset: int) -> bool:
        """The log was cut there. Says whether the voters are others now."""
        before = self.voters
        del self._sets[bisect_left(self._sets, offset, key=lambda entry: entry[0]) :]
        del self._versions[bisect_left(self._versions, offset, key=lambda entry: entry[0]) :]
        return self.voters != before

    def forget_before(self, offset: int) -> None:
        """A snapshot holds everything below: only the newest entries there can still count."""
        del self._sets[: max(0, bisect_left(self._sets, offset, key=lambda entry: entry[0]) - 1)]
        del self._versions[: max(0, bisect_left(self._versions, offset, key=lambda entry: entry[0]) - 1)]

    def forget_all(self) -> None:
        """The log was replaced; its snapshot says what counts."""
        self._sets.clear()
        self._versions.clear()
