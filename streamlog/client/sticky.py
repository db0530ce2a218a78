"""Spreading partitions evenly while moving as few as possible.

Members want different sets of topics and hold partitions from before. The result has three properties, in this order:

1. every partition of a wanted topic goes to exactly one member that wants the topic;
2. it is balanced: no chain of hand-overs could make a fuller member smaller than it and an emptier one larger;
3. a partition stays where it was unless 1 or 2 forbid it.

Partitions without a valid holder go to the emptiest member that wants them. Then fuller members hand over, one
partition at a time along the shortest chain of members (a breadth-first search: A may only share topics with B, and B
with C), until no chain leads to a member with at least two partitions fewer. When all members want the same topics
every chain has one link.

Two members may claim the same partition, after one of them missed a generation: the claim of the higher generation
holds; equal ones void each other, because then nobody knows who is right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from streamlog.client.values import TopicPartition


@dataclass(frozen=True, slots=True)
class Claim:
    """What a member wants and says it holds."""

    member_id: str
    topics: frozenset[str]
    owned: tuple[TopicPartition, ...]
    generation_id: int


@dataclass(slots=True)
class _Share:
    """One member's part of the assignment while it is being made."""

    claim: Claim
    by_topic: dict[str, list[TopicPartition]] = field(default_factory=dict)
    count: int = 0  # sum of the lengths in by_topic

    def add(self, partition: TopicPartition) -> None:
        self.by_topic.setdefault(partition.topic, []).append(partition)
        self.count += 1

    def take(self, topics: frozenset[str], old: Mapping[TopicPartition, str], receiver: str) -> TopicPartition:
        """Give up a partition of one of `topics`: rather one the receiver had, then one that is new to us."""

        def cost(partition: TopicPartition) -> tuple[int, TopicPartition]:
            owner = old.get(partition)
            return (0 if owner == receiver else 2 if owner == self.claim.member_id else 1, partition)

        best = min((one for topic, mine in self.by_topic.items() if topic in topics for one in mine), key=cost)
        self.by_topic[best.topic].remove(best)
        self.count -= 1
        return best

    def can_give(self, topics: frozenset[str]) -> bool:
        return any(mine and topic in topics for topic, mine in self.by_topic.items())


def spread(partition_counts: Mapping[str, int], claims: Sequence[Claim]) -> dict[str, list[TopicPartition]]:
    """The assignment by member id. Deterministic for a given order of `claims`."""
    shares = [_Share(claim) for claim in claims]
    by_id = {share.claim.member_id: share for share in shares}
    old = _valid_claims(partition_counts, claims)
    for topic in sorted(partition_counts):
        for number in range(partition_counts[topic]):
            partition = TopicPartition(topic, number)
            if partition in old:
                by_id[old[partition]].add(partition)
    for topic in sorted(partition_counts):
        wanting = [share for share in shares if topic in share.claim.topics]
        for number in range(partition_counts[topic] if wanting else 0):
            partition = TopicPartition(topic, number)
            if partition not in old:
                min(wanting, key=lambda share: (share.count, len(share.by_topic.get(topic, ())))).add(partition)
    while any(_level(share, shares, old) for share in sorted(shares, key=lambda share: -share.count)):
        pass
    return {share.claim.member_id: sorted(one for mine in share.by_topic.values() for one in mine) for share in shares}


def _valid_claims(partition_counts: Mapping[str, int], claims: Sequence[Claim]) -> dict[TopicPartition, str]:
    best: dict[TopicPartition, tuple[int, str | None]] = {}
    for claim in claims:
        for partition in claim.owned:
            exists = 0 <= partition.partition < partition_counts.get(partition.topic, 0)
            if not exists or partition.topic not in claim.topics:
                continue
            generation_id, owner = best.get(partition, (claim.generation_id - 1, None))
            if claim.generation_id > generation_id:
                best[partition] = (claim.generation_id, claim.member_id)
            elif claim.generation_id == generation_id and owner != claim.member_id:
                best[partition] = (generation_id, None)
    return {partition: owner for partition, (_, owner) in best.items() if owner is not None}


def _level(share: _Share, shares: Sequence[_Share], old: Mapping[TopicPartition, str]) -> bool:
    """Hand partitions of `share` over until nobody it can reach has two fewer. Whether anything moved."""
    moved = False
    while (chain := _chain_to_emptier(share, shares)) is not None:
        for giver, taker in pairwise(chain):
            taker.add(giver.take(taker.claim.topics, old, taker.claim.member_id))
        moved = True
    return moved


def _chain_to_emptier(start: _Share, shares: Sequence[_Share]) -> list[_Share] | None:
    """The shortest chain of hand-overs from `start` to the emptiest member that has at least two fewer."""
    came_from: dict[str, _Share | None] = {start.claim.member_id: None}
    queue = deque([start])
    best: _Share | None = None
    while queue:
        giver = queue.popleft()
        for taker in shares:
            if taker.claim.member_id in came_from or not giver.can_give(taker.claim.topics):
                continue
            came_from[taker.claim.member_id] = giver
            queue.append(taker)
            if taker.count <= start.count - 2 and (best is None or taker.count < best.count):
                best = taker
    if best is None:
        return None
    chain = [best]
    while (giver_before := came_from[chain[-1].claim.member_id]) is not None:
        chain.append(giver_before)
    return chain[::-1]
