"""What clients saw, and whether it can have been so: a checker in the manner of Jepsen's.

Clients write down what they ask and what they are told; readers write down what they read. Some contradictions show at
once (one offset, two records), the others when the log is read in the end. Each is a `Violation` with its number.

An answer that never came says nothing: the record may be there or not, now or later.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from streamlog.client.failures import NotDelivered
from streamlog.testing.simulator.invariants import Violation
from streamlog.wire.error_codes import KafkaError

PartitionKey: TypeAlias = tuple[str, int]

Log: TypeAlias = Sequence[tuple[int, bytes]]
"""(offset, value), as a reader saw it from the log start to the end."""


class Told(Enum):
    NOTHING = "nothing"
    STORED = "stored"
    REFUSED = "refused"


@dataclass(slots=True)
class Send:
    """One record that a producer sent. Values are unique."""

    value: bytes
    topic: str
    key: bytes | None
    producer: str
    number: int
    sent_ns: int
    told: Told = Told.NOTHING
    told_ns: int = -1
    partition: int = -1
    offset: int = -1


@dataclass(slots=True)
class Commit:
    offset: int
    began_ns: int
    ended_ns: int | None = None
    """None while, or because, there is no answer that says it is done."""


@dataclass(slots=True)
class History:
    now_ns: Callable[[], int]
    forgets: bool = False
    """Acknowledged records may be lost: nobody promised to sync them, and the power goes."""
    forgets_groups: bool = False
    """Groups may be lost: their generations begin again."""
    expires: bool = False
    """Old records may be deleted by retention."""
    on_stored: Callable[[Send], None] = lambda send: None
    """Told of each acknowledgement as it arrives."""
    sends: dict[bytes, Send] = field(default_factory=dict)
    reads: dict[tuple[str, int, int], bytes] = field(default_factory=dict)
    """(topic, partition, offset) -> value, over all readers."""
    commits: dict[PartitionKey, list[Commit]] = field(default_factory=dict)
    owners: dict[tuple[int, str, int], str] = field(default_factory=dict)
    """(generation, topic, partition) -> member."""
    violations: list[Violation] = field(default_factory=list)
    trims_asked: dict[PartitionKey, int] = field(default_factory=dict)
    """The highest offset before which anybody wanted records deleted."""
    trims_done: dict[PartitionKey, int] = field(default_factory=dict)
    """The highest log start that anybody was told."""
    topics: dict[str, None] = field(default_factory=dict)
    """Created and acknowledged."""

    def violate(self, number: int, text: str) -> None:
        self.violations.append(Violation(number, text))

    # -- what producers tell ----------------------------------------------------------------------------------

    def send(self, value: bytes, topic: str, key: bytes | None, producer: str, number: int) -> Send:
        send = self.sends[value] = Send(value, topic, key, producer, number, self.now_ns())
        return send

    def stored(self, send: Send, partition: int, offset: int) -> None:
        send.told, send.told_ns, send.partition, send.offset = Told.STORED, self.now_ns(), partition, offset
        self.on_stored(send)

    def failed(self, send: Send, error: BaseException) -> None:
        send.told_ns = self.now_ns()
        if isinstance(error, KafkaError | NotDelivered):
            send.told = Told.REFUSED

    # -- what consumers tell ----------------------------------------------------------------------------------

    def read(self, reader: str, topic: str, partition: int, offset: int, value: bytes) -> None:
        before = self.reads.setdefault((topic, partition, offset), value)
        if before != value and not self.forgets:
            self.violate(10, f"{topic}-{partition}@{offset} is {value[:40]!r} for {reader}, and was {before[:40]!r}")
        if value not in self.sends:
            self.violate(10, f"{topic}-{partition}@{offset} is {value[:40]!r}, which nobody has sent")

    def own(self, generation: int, partitions: Iterable[PartitionKey], member: str) -> None:
        for topic, partition in partitions:
            owner = self.owners.setdefault((generation, topic, partition), member)
            if owner != member and not self.forgets_groups:
                self.violate(54, f"{topic}-{partition} belongs to {owner} and {member} in generation {generation}")

    def begin_commit(self, partition: PartitionKey, offset: int) -> Commit:
        commit = Commit(offset, self.now_ns())
        self.commits.setdefault(partition, []).append(commit)
        return commit

    # -- what admins tell -------------------------------------------------------------------------------------

    def trim(self, key: PartitionKey, offset: int) -> None:
        self.trims_asked[key] = max(offset, self.trims_asked.get(key, 0))

    def trimmed(self, key: PartitionKey, start_offset: int) -> None:
        self.trims_done[key] = max(start_offset, self.trims_done.get(key, 0))

    # -- the verdict ------------------------------------------------------------------------------------------

    def check_log(self, key: PartitionKey, log: Log, start_offset: int) -> None:
        """Judge one partition by what is in it in the end."""
        self._check_order(key, log)
        if self.forgets:
            return
        asked, done = self.trims_asked.get(key, 0), self.trims_done.get(key, 0)
        if not done <= start_offset <= (asked if not self.expires else start_offset):
            self.violate(
                15, f"{key[0]}-{key[1]} starts at {start_offset}; deleted up to {done}, asked for up to {asked}"
            )
        self._check_duplicates(key, log)
        at = dict(log)
        for send in self._sends_to(key):
            if send.told is Told.STORED and send.offset >= start_offset and at.get(send.offset) != send.value:
                found = at.get(send.offset)
                self.violate(1, f"{_where(send)} is {found and found[:40]!r}, and {send.value[:40]!r} was acknowledged")
        for (topic, partition, offset), value in self.reads.items():
            if (topic, partition) == key and offset >= start_offset and at.get(offset) != value:
                self.violate(8, f"{topic}-{partition}@{offset} was read as {value[:40]!r} and is gone")
        self._check_real_time(key)

    def _sends_to(self, key: PartitionKey) -> list[Send]:
        return [send for send in self.sends.values() if (send.topic, send.partition) == key]

    def _check_order(self, key: PartitionKey, log: Log) -> None:
        latest: dict[str, int] = {}
        previous = -1
        for offset, value in log:
            if offset <= previous:
                self.violate(10, f"{key[0]}-{key[1]}: offset {offset} after {previous}")
            previous = offset
            send = self.sends.get(value)
            if send is None:
                continue
            if send.number < latest.get(send.producer, -1):
                self.violate(42, f"{key[0]}-{key[1]}@{offset}: {send.producer} {send.number} after a later one")
            latest[send.producer] = max(send.number, latest.get(send.producer, -1))

    def _check_duplicates(self, key: PartitionKey, log: Log) -> None:
        first: dict[bytes, int] = {}
        for offset, value in log:
            before = first.setdefault(value, offset)
            if before != offset:
                self.violate(41, f"{key[0]}-{key[1]}: {value[:40]!r} at {before} and at {offset}")
            send = self.sends.get(value)
            if send is not None and send.told is Told.REFUSED:
                self.violate(62, f"{key[0]}-{key[1]}@{offset}: {value[:40]!r} was refused")

    def _check_real_time(self, key: PartitionKey) -> None:
        """Acked before another was sent: at a lower offset (Redpanda's rule)."""
        acked = sorted((send for send in self._sends_to(key) if send.told is Told.STORED), key=lambda s: s.told_ns)
        told = [send.told_ns for send in acked]
        highest: list[Send] = []
        for send in acked:
            highest.append(send if not highest or send.offset > highest[-1].offset else highest[-1])
        for send in acked:
            count = bisect_left(told, send.sent_ns)
            if count and highest[count - 1].offset >= send.offset:
                before = highest[count - 1]
                self.violate(13, f"{_where(send)} was sent after {_where(before)} was acknowledged")

    def check_compacted(self, key: PartitionKey, log: Log) -> None:
        """The last acknowledged record of each key, or a later one, is there."""
        last: dict[bytes, int] = {}
        for offset, value in log:
            send = self.sends.get(value)
            if send is not None and send.key is not None:
                last[send.key] = offset
        for send in self._sends_to(key):
            if send.told is Told.STORED and send.key is not None and last.get(send.key, -1) < send.offset:
                self.violate(16, f"{_where(send)}: the last record of {send.key!r} is at {last.get(send.key, -1)}")

    def check_committed(self, committed: Mapping[PartitionKey, int | None]) -> None:
        """Every committed offset is the last that was committed, or one whose answer never came."""
        for key, commits in self.commits.items():
            latest_began_ns = max((one.began_ns for one in commits if one.ended_ns is not None), default=None)
            if latest_began_ns is None:
                continue
            possible = {one.offset for one in commits if one.ended_ns is None or one.ended_ns >= latest_began_ns}
            if committed.get(key) not in possible:
                self.violate(56, f"{key[0]}-{key[1]}: committed is {committed.get(key)}, none of {sorted(possible)}")

    def check_answers(self, patience_ns: int, topic_patience_ns: int, stopped_ns: Callable[[Send], int]) -> None:
        """Every send whose producer lived has an answer, and in time.

        A producer's first records for a topic wait `topic_patience_ns` more for somebody who knows its partitions.
        `stopped_ns(send)`: for how long its producer may have been stopped meanwhile.
        """
        known_ns: dict[tuple[str, str], int] = {}
        for send in self.sends.values():
            if send.told is Told.STORED:
                key = send.producer, send.topic
                known_ns[key] = min(send.told_ns, known_ns.get(key, send.told_ns))
        for send in self.sends.values():
            waits_for_topic = send.sent_ns < known_ns.get((send.producer, send.topic), send.sent_ns + 1)
            allowed_ns = patience_ns + (topic_patience_ns if waits_for_topic else 0)
            took_ns = send.told_ns - send.sent_ns
            if send.told_ns >= 0 and took_ns > allowed_ns and took_ns > allowed_ns + stopped_ns(send):
                self.violate(61, f"{send.value[:40]!r} was answered after {took_ns / 1e9:.1f} s")


def _where(send: Send) -> str:
    return f"{send.topic}-{send.partition}@{send.offset}"
