"""What DeleteRecords promises in a cluster, and to whom (KIP-107).

It is acknowledged when every replica whose broker lives begins there. One that was away has the records still; elected
before it has heard of it (it may be eligible: KIP-966), it leads with them, and they are back. That much is Kafka's
promise, so that much is allowed: a leader begins behind what was acknowledged, unless it was away then and has not
come that far since. Once it has led, the promise is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

from streamlog.broker.node import Node
from streamlog.testing.simulator.invariants import Violation
from streamlog.testing.simulator.machine import Machine

PartitionId: TypeAlias = tuple[UUID, int]


@dataclass(slots=True, eq=False)
class Trim:
    """One DeleteRecords."""

    topic: str
    index: int
    away: dict[str, None] = field(default_factory=dict)
    """Machines that were down at some time while it was being answered, or for some node not active."""
    offset: int = -1
    """Acknowledged."""
    excused: dict[str, None] = field(default_factory=dict)
    """Machines that were away and begin before it."""


@dataclass(slots=True)
class TrimWatch:
    _starts: dict[PartitionId, dict[str, int]] = field(default_factory=dict)
    """Log starts as last seen, by machine."""
    _asked: list[Trim] = field(default_factory=list)
    _promised: dict[PartitionId, list[Trim]] = field(default_factory=dict)

    def begin(self, topic: str, index: int) -> Trim:
        trim = Trim(topic, index)
        self._asked.append(trim)
        return trim

    def give_up(self, trim: Trim) -> None:
        self._asked.remove(trim)

    def look(self, machines: dict[int, Machine], running: list[tuple[Machine, Node]]) -> None:
        """See who is away."""
        if not self._asked:
            return
        up = {machine.name for machine, _ in running}
        away = [machine.name for machine in machines.values() if machine.name not in up]
        for _, node in running:
            brokers = node.broker.image.brokers
            for number, machine in machines.items():
                broker = brokers.get(number)
                if broker is None or not broker.is_active:
                    away.append(machine.name)
        for trim in self._asked:
            trim.away.update(dict.fromkeys(away))

    def note_start(self, machine: Machine, key: PartitionId, start_offset: int) -> None:
        """A replica begins there."""
        self._starts.setdefault(key, {})[machine.name] = start_offset
        for trim in self._promised.get(key, ()):
            if start_offset >= trim.offset:
                trim.excused.pop(machine.name, None)

    def check_leader(self, machine: Machine, key: PartitionId, name: str, start_offset: int) -> None:
        """A replica leads, and nobody knows of a later leader. Raises Violation."""
        promised = self._promised.get(key, ())
        for trim in [trim for trim in promised if start_offset < trim.offset]:
            if machine.name not in trim.excused:
                raise Violation(15, f"{name} leads and begins at {start_offset}; deleted up to {trim.offset}")
            self._promised[key].remove(trim)

    def end(self, trim: Trim, offset: int, running: Iterable[tuple[Machine, Node]]) -> None:
        """It was acknowledged. Raises Violation when a member of the in-sync set that lives begins before it."""
        self._asked.remove(trim)
        nodes = list(running)
        if not nodes:
            return
        image = max((node.broker.image for _, node in nodes), key=lambda one: one.applied_offset)
        topic = image.topics.get(trim.topic)
        if topic is None:
            return
        key = (topic.id, trim.index)
        trim.offset = offset
        for machine, node in nodes:  # which were not looked at in every callback
            partition = node.broker.partitions.opened(trim.topic).get(trim.index)
            if partition is not None and not partition.closed:
                self.note_start(machine, key, partition.log.log_start_offset)
        lagging = [name for name, start in self._starts.get(key, {}).items() if start < offset]
        members = topic.partitions[trim.index].isr
        for machine, node in nodes:
            if machine.name in lagging and machine.name not in trim.away and node.broker.node_id in members:
                raise Violation(
                    15, f"{trim.topic}-{trim.index} was told to begin at {offset}, and does not on {machine.name}"
                )
        trim.excused = {name: None for name in lagging if name in trim.away}
        self._promised.setdefault(key, []).append(trim)

    def deleted(self, topic: str, index: int) -> int:
        """Up to where records stay deleted."""
        promised = (trim for trims in self._promised.values() for trim in trims)
        return max((trim.offset for trim in promised if (trim.topic, trim.index) == (topic, index)), default=0)
