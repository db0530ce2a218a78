"""Where replicas should be: evenly, over racks, and with as little copying as that takes.

A reassignment copies every replica that moves, so a plan keeps what is well where it is. Three steps. Replicas on
brokers that may not have them, and those above the wanted number, go; missing ones come to the broker that has fewest.
Then single replicas move from the fullest to the emptiest broker, until they differ by one at most. Last, the order of
replicas changes, which copies nothing, until preferred leaders are spread as evenly.

Racks come before evenness: no step puts two replicas of a partition into one rack while another rack has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from streamlog.client.values import TopicPartition

Placement = dict[TopicPartition, list[int]]


def plan(
    current: Mapping[TopicPartition, Sequence[int]],
    racks: Mapping[int, str | None],
    replication_factor: int | None = None,
) -> dict[TopicPartition, tuple[int, ...]]:
    """Replicas for each partition on the brokers of `racks`; the first one is the preferred leader.

    `replication_factor` None: as many as each partition has now. Asserts that there are as many brokers.
    """
    wanted = {one: replication_factor or len(replicas) for one, replicas in current.items()}
    assert max(wanted.values(), default=0) <= len(racks), "who asks has compared the numbers"
    placed: Placement = {}
    load = Counter(dict.fromkeys(racks, 0))
    for one in sorted(current):
        placed[one] = _kept(current[one], wanted[one], racks)
        load.update(placed[one])
    for one in sorted(current):
        while len(placed[one]) < wanted[one]:
            broker = min(_candidates(placed[one], racks), key=lambda broker: (load[broker], broker))
            placed[one].append(broker)
            load[broker] += 1
    _even_out(placed, load, racks)
    _spread_leaders(placed, racks)
    return {one: tuple(replicas) for one, replicas in placed.items()}


def _kept(replicas: Sequence[int], count: int, racks: Mapping[int, str | None]) -> list[int]:
    """Up to `count` of the replicas that may stay; of two in one rack the later one goes first."""
    allowed = [one for one in replicas if one in racks]
    seen: set[str] = set()
    first: list[int] = []
    again: list[int] = []
    for one in allowed:
        rack = _rack(racks, one)
        (again if rack in seen else first).append(one)
        seen.add(rack)
    stays = set((first + again)[:count])
    while len(stays) > 1 and _is_crowded(stays, racks):
        stays.remove(next(one for one in reversed(allowed) if one in stays and one in again))
    return [one for one in allowed if one in stays]


def _is_crowded(replicas: set[int], racks: Mapping[int, str | None]) -> bool:
    """Whether a rack has two of them while another has none."""
    used = Counter(_rack(racks, one) for one in replicas)
    every = {_rack(racks, one) for one in racks}
    return max(used.values()) > 1 and len(used) < len(every)


def _rack(racks: Mapping[int, str | None], broker: int) -> str:
    """A broker without a rack stands alone."""
    return racks[broker] or f"broker {broker}"


def _candidates(replicas: Sequence[int], racks: Mapping[int, str | None]) -> list[int]:
    """Brokers for one more replica: in the racks that have fewest."""
    used = Counter(_rack(racks, one) for one in replicas)
    free = [one for one in sorted(racks) if one not in replicas]
    fewest = min(used[_rack(racks, one)] for one in free)
    return [one for one in free if used[_rack(racks, one)] == fewest]


def _even_out(placed: Placement, load: Counter[int], racks: Mapping[int, str | None]) -> None:
    """Each move lowers the sum of the loads' squares, so this ends."""
    moved = True
    while moved:
        moved = False
        for full in sorted(load, key=lambda one: (-load[one], one)):
            for empty in sorted(load, key=lambda one: (load[one], one)):
                if load[full] - load[empty] > 1 and _move(placed, racks, full, empty):
                    load[full] -= 1
                    load[empty] += 1
                    moved = True
                    break
            if moved:
                break


def _move(placed: Placement, racks: Mapping[int, str | None], full: int, empty: int) -> bool:
    """Move one replica between two brokers, if some partition allows it; a preferred leader only if no other can."""
    for leaders_too in (False, True):
        for replicas in placed.values():
            if full not in replicas or empty in replicas or (replicas[0] == full and not leaders_too):
                continue
            rest = [one for one in replicas if one != full]
            if not rest or empty in _candidates(rest, racks):
                replicas[replicas.index(full)] = empty
                return True
    return False


def _spread_leaders(placed: Placement, racks: Mapping[int, str | None]) -> None:
    """Along chains: a leads p, b has a replica of p and leads q, c one of q; then c leads one more and a one less."""
    leads: dict[int, list[TopicPartition]] = {one: [] for one in racks}
    for one, replicas in placed.items():
        leads[replicas[0]].append(one)
    improved = True
    while improved:
        improved = False
        for full in sorted(leads, key=lambda one: (-len(leads[one]), one)):
            chain = _chain(placed, leads, full)
            if chain:
                for one, broker in chain:
                    replicas = placed[one]
                    leads[replicas[0]].remove(one)
                    replicas.remove(broker)
                    replicas.insert(0, broker)
                    leads[broker].append(one)
                improved = True
                break


def _chain(
    placed: Placement, leads: Mapping[int, Sequence[TopicPartition]], full: int
) -> list[tuple[TopicPartition, int]]:
    """Which partitions to lead by whom so that `full` leads one less and a broker with two less leads one more."""
    came: dict[int, tuple[int, TopicPartition]] = {}
    reached = [full]
    for broker in reached:
        if len(leads[full]) - len(leads[broker]) > 1:
            steps = []
            while broker != full:
                before, one = came[broker]
                steps.append((one, broker))
                broker = before
            return steps
        for one in leads[broker]:
            for other in placed[one][1:]:
                if other != full and other not in came:
                    came[other] = (broker, one)
                    reached.append(other)
    return []
