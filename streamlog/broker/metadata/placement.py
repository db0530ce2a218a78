"""Where the replicas of new partitions go.

Brokers stand in one order, racks taking turns. Partition after partition the leader is the next broker in that order;
its followers are the ones behind it, further ones with each round, so that a broker that fails leaves its work to all
others and not to one. A replica goes to the rack that has fewest of the partition's, and there to a broker that is
alive if there is one: a fenced broker gets replicas only when there are not enough others, and never leads.

Where the order begins is drawn, or topics of one partition would all be led by the first broker.

Sources: KIP-36 (racks); Kafka's striped placer, of which this has the properties and not the sequence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import chain, zip_longest

from streamlog.broker.metadata.decision import refuse
from streamlog.broker.metadata.image import BrokerRegistration
from streamlog.wire.error_codes import ErrorCode


def place_replicas(
    brokers: Iterable[BrokerRegistration], start: int, partition_count: int, replication_factor: int
) -> list[tuple[int, ...]]:
    """Replicas of each new partition, the preferred leader first.

    Args: start: where in the order the first leader stands; any number.
    Raises KafkaError INVALID_REPLICATION_FACTOR when there are not enough brokers, or none is alive.
    """
    usable = [broker for broker in brokers if not broker.in_controlled_shutdown]
    alive = _take_turns([broker for broker in usable if not broker.fenced])
    fenced = _take_turns([broker for broker in usable if broker.fenced])
    if replication_factor > len(usable):
        raise refuse(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"cannot place {replication_factor} replicas: {len(usable)} broker(s) are registered and not shutting down",
        )
    if not alive:
        raise refuse(ErrorCode.INVALID_REPLICATION_FACTOR, "no broker is alive: all of them are fenced")
    return [_place(alive, fenced, number, replication_factor) for number in range(start, start + partition_count)]


def _take_turns(brokers: list[BrokerRegistration]) -> list[BrokerRegistration]:
    """The brokers of all racks, one of each after the other."""
    racks: defaultdict[str, list[BrokerRegistration]] = defaultdict(list)
    for broker in sorted(brokers, key=lambda broker: broker.id):
        racks[broker.rack or ""].append(broker)
    columns = zip_longest(*(racks[name] for name in sorted(racks)))
    return [broker for broker in chain.from_iterable(columns) if broker is not None]


def _place(
    alive: list[BrokerRegistration], fenced: list[BrokerRegistration], number: int, count: int
) -> tuple[int, ...]:
    turn, position = divmod(number, len(alive))
    leader = alive[position]
    followers = alive[position + 1 :] + alive[:position]
    if followers:
        shift = turn % len(followers)
        followers = followers[shift:] + followers[:shift]
    candidates = followers + fenced
    chosen = [leader]
    in_rack = Counter([leader.rack])
    while len(chosen) < count:
        # `min` takes the first of equals, and those that are alive stand first.
        best = min(candidates, key=lambda broker: in_rack[broker.rack])
        candidates.remove(best)
        chosen.append(best)
        in_rack[best.rack] += 1
    return tuple(broker.id for broker in chosen)
