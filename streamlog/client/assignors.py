"""How the leader of a classic group spreads partitions over its members.

Three strategies, with the names and the bytes of Kafka's Java client, so that groups can be mixed: `range`,
`roundrobin` and `cooperative-sticky`. The stream engine brings a fourth that places tasks where their state is, and
puts its query address into the userdata. Assignors are pure: same members, same topics, same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct, error
from typing import Protocol

from streamlog.client.sticky import Claim, spread
from streamlog.client.subscription import Assignment, Member
from streamlog.client.values import NO_EPOCH, TopicPartition

_GENERATION = Struct(">i")


class TopicSizes(Protocol):
    """What an assignor may know of the cluster."""

    def partition_count(self, topic: str) -> int:
        """Partitions of `topic`; 0 while it does not exist."""
        ...


class Assignor(Protocol):
    """One strategy of one member. A consumer owns its instances; they may keep state between rebalances."""

    @property
    def name(self) -> str:
        """The protocol's name on the wire. The group uses one that all its members offer."""
        ...

    @property
    def cooperative(self) -> bool:
        """Whether members keep their partitions while they join (KIP-429). If any assignor of a member says no,
        the member gives up everything before it joins."""
        ...

    def subscription_userdata(self, topics: Sequence[str]) -> bytes | None:
        """What this member tells the leader besides its topics and the partitions it owns."""
        ...

    def assign(self, cluster: TopicSizes, members: Sequence[Member]) -> Mapping[str, Assignment]:
        """The leader's decision, by member id; members that are left out get nothing. A cooperative assignor must
        not give away a partition that another member still owns: that member has to give it up first."""
        ...

    def on_assignment(self, assignment: Assignment, generation_id: int) -> None:
        """What this member got, in which generation."""
        ...


class RangeAssignor:
    """Per topic, a contiguous run of partitions for each member: partition n of equal topics meets on one member."""

    name = "range"
    cooperative = False

    def subscription_userdata(self, topics: Sequence[str]) -> bytes | None:
        return None

    def assign(self, cluster: TopicSizes, members: Sequence[Member]) -> Mapping[str, Assignment]:
        partitions: dict[str, list[TopicPartition]] = {member.member_id: [] for member in members}
        ordered = sorted(members, key=_order)
        for topic in _topics(members):
            subscribed = [member for member in ordered if topic in member.subscription.topics]
            share, extra = divmod(cluster.partition_count(topic), len(subscribed))
            start = 0
            for index, member in enumerate(subscribed):
                end = start + share + (1 if index < extra else 0)
                partitions[member.member_id].extend(TopicPartition(topic, number) for number in range(start, end))
                start = end
        return _assignments(partitions)

    def on_assignment(self, assignment: Assignment, generation_id: int) -> None:
        return None


class RoundRobinAssignor:
    """All partitions of all topics dealt out in turn to the members that want them."""

    name = "roundrobin"
    cooperative = False

    def subscription_userdata(self, topics: Sequence[str]) -> bytes | None:
        return None

    def assign(self, cluster: TopicSizes, members: Sequence[Member]) -> Mapping[str, Assignment]:
        partitions: dict[str, list[TopicPartition]] = {member.member_id: [] for member in members}
        ordered = sorted(members, key=_order)
        turn = 0
        for topic in _topics(members):
            for number in range(cluster.partition_count(topic)):
                while topic not in ordered[turn % len(ordered)].subscription.topics:
                    turn += 1
                partitions[ordered[turn % len(ordered)].member_id].append(TopicPartition(topic, number))
                turn += 1
        return _assignments(partitions)

    def on_assignment(self, assignment: Assignment, generation_id: int) -> None:
        return None


class CooperativeStickyAssignor:
    """Balanced, with as few moves as balance allows; a moving partition is first given up, then given (KIP-429)."""

    name = "cooperative-sticky"
    cooperative = True

    def __init__(self) -> None:
        self._generation_id = NO_EPOCH  # generation of the last assignment we got

    def subscription_userdata(self, topics: Sequence[str]) -> bytes | None:
        return _GENERATION.pack(self._generation_id)

    def assign(self, cluster: TopicSizes, members: Sequence[Member]) -> Mapping[str, Assignment]:
        counts = {topic: cluster.partition_count(topic) for topic in _topics(members)}
        claims = [_claim(member) for member in sorted(members, key=_order)]
        return _assignments(without_partitions_in_use(claims, spread(counts, claims)))

    def on_assignment(self, assignment: Assignment, generation_id: int) -> None:
        self._generation_id = generation_id


def without_partitions_in_use(
    claims: Sequence[Claim], target: Mapping[str, Sequence[TopicPartition]]
) -> dict[str, list[TopicPartition]]:
    """`target` less every partition that some other member still owns: phase one of the two-phase hand-over."""
    owners: dict[TopicPartition, set[str]] = {}
    for claim in claims:
        for partition in claim.owned:
            owners.setdefault(partition, set()).add(claim.member_id)
    return {
        member_id: [one for one in partitions if one not in owners or member_id in owners[one]]
        for member_id, partitions in target.items()
    }


def _claim(member: Member) -> Claim:
    subscription = member.subscription
    generation_id = subscription.generation_id
    if generation_id == NO_EPOCH and subscription.userdata:
        try:
            (generation_id,) = _GENERATION.unpack_from(subscription.userdata)
        except error:
            generation_id = NO_EPOCH
    return Claim(member.member_id, frozenset(subscription.topics), tuple(sorted(subscription.owned)), generation_id)


def _order(member: Member) -> tuple[bool, str]:
    """Static members first, by instance id, so that a restart does not reshuffle ranges; then by member id."""
    return (member.instance_id is None, member.instance_id or member.member_id)


def _topics(members: Iterable[Member]) -> list[str]:
    return sorted({topic for member in members for topic in member.subscription.topics})


def _assignments(partitions: Mapping[str, Sequence[TopicPartition]]) -> dict[str, Assignment]:
    return {member_id: Assignment(tuple(sorted(mine))) for member_id, mine in partitions.items()}
