"""Which worker gets which task.

The consumer group's leader runs this. A task is partition p of every topic the app reads, and moves as a whole, because
its state does. Three properties, in this order:

1. every task has exactly one owner;
2. the members' counts differ by at most one;
3. a task stays with its owner; else it goes where its state is on disk; else to whoever has the fewest.

Members say in their subscription's userdata where their tables can be queried and which tasks' state they have. It is
msgpack with a version, and fields of later versions are ignored, so that workers can be upgraded one by one. Each is
told its own address again with its assignment, because that is all that a coordinator tells others during a rebalance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from streamlog.client.assignors import TopicSizes, without_partitions_in_use
from streamlog.client.sticky import Claim
from streamlog.client.subscription import Assignment, Member
from streamlog.client.values import TopicPartition

NAME = "streamlog"
"""The protocol's name in the group: workers of an app share a group with nobody else."""

VERSION = 1


@dataclass(frozen=True, slots=True)
class MemberData:
    """What a worker tells the others and whoever wants to query its tables."""

    version: int = VERSION
    endpoint: str | None = None
    """host:port of the worker's HTTP server; None when it has none."""
    process_id: str = ""
    """A random id of the process, new at each start."""
    slot: int = 0
    """Which of several processes over one data directory this is."""
    warm_tasks: tuple[int, ...] = ()
    """Tasks whose state is on this worker's disk."""
    app_id: str = ""


def encode_member_data(data: MemberData) -> bytes:
    return msgspec.msgpack.encode(data)


def decode_member_data(userdata: bytes | None) -> MemberData:
    """Userdata from the group. Unreadable bytes count as a member that says nothing: others must not stop a
    rebalance."""
    if not userdata:
        return MemberData(version=0)
    try:
        return msgspec.msgpack.decode(userdata, type=MemberData)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return MemberData(version=0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One member, as the placement sees it."""

    member_id: str
    owned: frozenset[int]
    warm: frozenset[int]


def place_tasks(task_count: int, candidates: Sequence[Candidate]) -> dict[str, list[int]]:
    """Tasks 0 to `task_count` - 1 over the candidates, each with its sorted tasks. No task is owned twice."""
    members = sorted(candidates, key=lambda one: one.member_id)
    if not members:
        return {}
    least, extra = divmod(task_count, len(members))
    # The members that may have one more: those that would have to give up more otherwise.
    ranked = sorted(members, key=lambda one: (-len(one.owned), -len(one.warm), one.member_id))
    quota = {one.member_id: least + (1 if rank < extra else 0) for rank, one in enumerate(ranked)}
    placed: dict[str, list[int]] = {one.member_id: [] for one in members}
    free = set(range(task_count))

    def give(member_id: str, task: int) -> None:
        placed[member_id].append(task)
        free.discard(task)

    for one in members:
        others_warm = {task for other in members if other is not one for task in other.warm}
        wanted = (task for task in one.owned if task < task_count)
        for task in sorted(wanted, key=lambda task: (task in others_warm, task))[: quota[one.member_id]]:
            give(one.member_id, task)
    for task in sorted(free):
        warm = [one for one in members if task in one.warm and len(placed[one.member_id]) < quota[one.member_id]]
        if warm:
            give(min(warm, key=lambda one: len(placed[one.member_id])).member_id, task)
    for task in sorted(free):
        open_members = [one for one in members if len(placed[one.member_id]) < quota[one.member_id]]
        give(min(open_members, key=lambda one: len(placed[one.member_id])).member_id, task)
    return {member_id: sorted(tasks) for member_id, tasks in placed.items()}


class TaskAssignor:
    """The strategy of the stream engine's consumers (see `streamlog.client.assignors.Assignor`)."""

    name = NAME
    cooperative = True

    def __init__(
        self,
        describe: Callable[[], MemberData],
        allowed: Callable[[Mapping[str, int]], Mapping[str, int]] = lambda counts: counts,
    ) -> None:
        """
        Args: describe: asked at each join what this member says about itself.
              allowed: asked by the leader how many of these partitions of each topic are given out.
        """
        self._describe, self._allowed = describe, allowed

    def subscription_userdata(self, topics: Sequence[str]) -> bytes | None:
        return encode_member_data(self._describe())

    def assign(self, cluster: TopicSizes, members: Sequence[Member]) -> Mapping[str, Assignment]:
        topics = sorted({topic for member in members for topic in member.subscription.topics})
        counts = self._allowed({topic: cluster.partition_count(topic) for topic in topics})
        owners = _owners(members)
        candidates = [
            Candidate(
                member.member_id,
                frozenset(task for task, owner in owners.items() if owner == member.member_id),
                frozenset(decode_member_data(member.subscription.userdata).warm_tasks),
            )
            for member in members
        ]
        placed = place_tasks(max(counts.values(), default=0), candidates)
        target = _partitions(placed, counts, members)
        claims = [
            Claim(
                member.member_id,
                frozenset(member.subscription.topics),
                member.subscription.owned,
                member.subscription.generation_id,
            )
            for member in members
        ]
        given = without_partitions_in_use(claims, target)
        said = {member.member_id: _address(member) for member in members}
        return {member_id: Assignment(tuple(sorted(mine)), said[member_id]) for member_id, mine in given.items()}

    def on_assignment(self, assignment: Assignment, generation_id: int) -> None:
        return None


def _address(member: Member) -> bytes:
    """Where the member is, of what it said: all that readers of the assignment look for."""
    return encode_member_data(replace(decode_member_data(member.subscription.userdata), warm_tasks=()))


def _owners(members: Sequence[Member]) -> dict[int, str]:
    """Who has which task now. Two claims happen after a member missed a rebalance: the later generation is right."""
    best: dict[int, tuple[int, str]] = {}
    for member in sorted(members, key=lambda one: one.member_id):
        generation_id = member.subscription.generation_id
        for task in sorted({one.partition for one in member.subscription.owned}):
            if task not in best or generation_id > best[task][0]:
                best[task] = (generation_id, member.member_id)
    return {task: member_id for task, (_, member_id) in best.items()}


def _partitions(
    placed: Mapping[str, Sequence[int]], counts: Mapping[str, int], members: Sequence[Member]
) -> dict[str, list[TopicPartition]]:
    """The partitions of each member's tasks. A topic that the owner does not read (it runs an older version of the app)
    goes to the first member that does."""
    wants: dict[str, Any] = {member.member_id: frozenset(member.subscription.topics) for member in members}
    found: dict[str, list[TopicPartition]] = {member.member_id: [] for member in members}
    for owner, tasks in placed.items():
        for task in tasks:
            for topic, count in counts.items():
                if task < count:
                    reader = owner if topic in wants[owner] else min(one for one in wants if topic in wants[one])
                    found[reader].append(TopicPartition(topic, task))
    return found
