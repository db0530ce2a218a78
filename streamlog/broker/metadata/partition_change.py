"""What becomes of a partition when something about it changes: one function, and every change goes through it.

A caller says what it wants: another ISR, other replicas, an election of some kind. `change_partition` works out the
rest, in this order:

1. a reassignment whose new replicas are all in sync is completed;
2. the eligible leader replicas (ELR) take in who leaves an ISR that is below min ISR, and are emptied once it is not;
3. a leader is elected if there is none, or if the one there is may not lead any more;
4. the leader epoch rises with every change of leader, and when a replica is taken away;
5. what differs is put into a record, and nothing else.

Who can be elected: the ISR; with an empty ISR the ELR, because a leader does not move the high watermark while the ISR
is below min ISR, so whoever left it in that time has everything that is committed; then the last known leader, or
whoever was eligible and stopped without warning, which may have lost what its disk lost; and where unclean elections
are wanted, anybody. The latter two may lose records, so the partition is marked as recovering.

A replica whose disk was replaced is known by its directory, which is not the one that its broker has now. It has
nothing, so it is elected in none of these ways before it is in sync; only a person who asks for an unclean election
gets it, when there is no other.

Without eligible leader replicas (feature level 0) the ISR never becomes empty: its last member stays in it, alive or
not, and leads again when it is back.

Sources: KIP-631, KIP-704 (leader recovery), KIP-858 (directories), KIP-966 (ELR), KIP-455 (reassignment).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple
from uuid import UUID

from streamlog.broker.metadata.image import NO_LEADER, PartitionRegistration
from streamlog.wire.internal.metadata import PartitionChangeRecord

RECOVERED: Final = 0
RECOVERING: Final = 1

NO_DIRECTORIES: Final[Mapping[int, UUID]] = {}


class Election(Enum):
    ONLINE = "online"
    """From ISR or ELR; whoever leads goes on leading if it may."""
    PREFERRED = "preferred"
    """The first replica if it is in sync, else as ONLINE."""
    UNCLEAN = "unclean"
    """As ONLINE, and if nobody is found, any replica that is alive."""


class Terms(NamedTuple):
    """What the cluster says about a partition, whoever changes it."""

    min_isr: int
    """min.insync.replicas of the topic; a partition with fewer replicas needs them all."""
    has_elr: bool
    """eligible.leader.replicas.version is at 1."""
    may_lead: Callable[[int], bool]
    """Whether a replica is alive, wanted, and its disk is well."""
    directory: Callable[[int], UUID]
    """Where a broker puts a replica that has no directory yet."""
    has_disk: Callable[[int], bool]
    """Whether its broker, alive or not, was last seen with the directory that the replica is in."""
    is_alive: Callable[[int], bool]
    """As `may_lead`, whatever became of its disk."""


class Wanted(NamedTuple):
    """What a change asks for. None: as before."""

    isr: tuple[int, ...] | None = None
    replicas: tuple[int, ...] | None = None
    removing: tuple[int, ...] | None = None
    adding: tuple[int, ...] | None = None
    leader_recovery_state: int | None = None
    directories: Mapping[int, UUID] = MappingProxyType({})
    lost_data: tuple[int, ...] = ()
    """Replicas that stopped without warning, and may lack what was committed: they are not eligible any more."""
    emptied: tuple[int, ...] = ()
    """Replicas that have another disk: outside the ISR nothing is expected of them any more."""
    election: Election = Election.ONLINE
    with_empty: bool = False
    """An unclean election may take a replica whose disk was replaced, when there is no other."""


@dataclass(slots=True)
class _Target:
    """The partition as it is going to be."""

    isr: tuple[int, ...]
    replicas: tuple[int, ...]
    removing: tuple[int, ...]
    adding: tuple[int, ...]
    elr: tuple[int, ...]
    last_known_elr: tuple[int, ...]
    recovery_state: int
    leader: int


def change_partition(
    topic_id: UUID, index: int, before: PartitionRegistration, wanted: Wanted, terms: Terms
) -> PartitionChangeRecord | None:
    """The record that brings about what is wanted and all that follows from it; None: nothing changes."""
    target = _Target(
        isr=before.isr if wanted.isr is None else wanted.isr,
        replicas=before.replicas if wanted.replicas is None else wanted.replicas,
        removing=before.removing_replicas if wanted.removing is None else wanted.removing,
        adding=before.adding_replicas if wanted.adding is None else wanted.adding,
        elr=before.eligible_leader_replicas,
        last_known_elr=before.last_known_elr,
        recovery_state=before.leader_recovery_state
        if wanted.leader_recovery_state is None
        else wanted.leader_recovery_state,
        leader=before.leader,
    )
    _complete_reassignment(target)
    if terms.has_elr:
        _update_elr(before, target, wanted, terms)
    else:
        target.elr = ()
    emptied = _elect(before, target, wanted, terms)
    if not target.isr and not terms.has_elr:
        target.isr = before.isr  # its last member is all that knows what is committed
    if terms.has_elr:
        _update_last_known(before, target, wanted, terms)
    else:
        target.last_known_elr = ()
    if emptied is not None:
        wanted = wanted._replace(directories={**wanted.directories, emptied: terms.directory(emptied)})
    return _difference(topic_id, index, before, target, wanted, terms)


def _complete_reassignment(target: _Target) -> None:
    """Let go of the replicas that are to be removed, once all that stay are in sync."""
    if not target.removing and not target.adding:
        return
    isr = tuple(replica for replica in target.isr if replica not in target.removing)
    replicas = tuple(replica for replica in target.replicas if replica not in target.removing)
    if isr and replicas and set(replicas) <= set(isr):
        target.isr, target.replicas, target.removing, target.adding = isr, replicas, (), ()


def _update_elr(before: PartitionRegistration, target: _Target, wanted: Wanted, terms: Terms) -> None:
    if _has_min_isr(before, target, terms):
        target.elr = ()
        return
    untrusted = (*target.isr, *wanted.lost_data, *wanted.emptied)
    target.elr = tuple(sorted({*target.elr, *before.isr}.difference(untrusted).intersection(target.replicas)))


def _has_min_isr(before: PartitionRegistration, target: _Target, terms: Terms) -> bool:
    # A partition that loses or gains replicas is measured by the smaller number: its leader may know either.
    return len(target.isr) >= min(terms.min_isr, len(before.replicas), len(target.replicas))


def _elect(before: PartitionRegistration, target: _Target, wanted: Wanted, terms: Terms) -> int | None:
    """Returns who leads on another disk than the one it had."""
    emptied: int | None = None
    leader = _clean_leader(before, target, wanted.election, terms)
    if leader is None:
        leader = _unclean_leader(before, target, wanted, terms)
        if leader is None and wanted.election is Election.UNCLEAN and wanted.with_empty:
            leader = emptied = next((replica for replica in target.replicas if terms.is_alive(replica)), None)
        if leader is not None:
            target.isr, target.elr = (leader,), ()
            target.recovery_state = RECOVERING
    target.leader = NO_LEADER if leader is None else leader
    if leader is not None and leader in target.elr:
        target.isr = (leader,)
        target.elr = tuple(replica for replica in target.elr if replica != leader)
    return emptied


def _clean_leader(before: PartitionRegistration, target: _Target, election: Election, terms: Terms) -> int | None:
    candidates = target.isr or target.elr
    in_order = (*target.replicas[:1],) if election is Election.PREFERRED else ()
    for replica in (*in_order, before.leader, *target.replicas):
        if replica in candidates and terms.may_lead(replica):
            return replica
    return None


def _unclean_leader(before: PartitionRegistration, target: _Target, wanted: Wanted, terms: Terms) -> int | None:
    if terms.has_elr and not target.isr and not target.elr:
        known = (one for one in before.last_known_elr if one not in wanted.emptied and one in target.replicas)
        last = next((one for one in known if terms.has_disk(one)), None)
        if last is not None and terms.may_lead(last):
            return last
    if wanted.election is Election.UNCLEAN:
        return next((replica for replica in target.replicas if terms.may_lead(replica)), None)
    return None


def _update_last_known(before: PartitionRegistration, target: _Target, wanted: Wanted, terms: Terms) -> None:
    """Remember who led while nobody does (one place is enough: KIP-966's balanced recovery asks for the last leader),
    and behind it who was eligible and stopped without warning: should the leader's disk be lost, they are left."""
    if _has_min_isr(before, target, terms) or target.leader not in (NO_LEADER, before.leader):
        target.last_known_elr = ()
        return
    known = before.last_known_elr
    if target.leader == NO_LEADER and before.leader != NO_LEADER and not target.isr:
        known = (before.leader, *known)
    known += tuple(one for one in wanted.lost_data if one in before.eligible_leader_replicas or one in before.isr)
    gone = (*wanted.emptied, *target.isr, *target.elr) if target.leader != NO_LEADER else wanted.emptied
    target.last_known_elr = tuple(one for one in dict.fromkeys(known) if one in target.replicas and one not in gone)


def _difference(
    topic_id: UUID, index: int, before: PartitionRegistration, target: _Target, wanted: Wanted, terms: Terms
) -> PartitionChangeRecord | None:
    record = PartitionChangeRecord(partition_id=index, topic_id=topic_id)
    if target.leader != before.leader:
        record.leader = target.leader
    if target.isr != before.isr:
        record.isr = list(target.isr)
    if target.replicas != before.replicas:
        record.replicas = list(target.replicas)
        if not set(before.replicas) <= set(target.replicas):
            # A replica that is taken away must not go on fetching as one: a new epoch makes it hear of it.
            record.leader = target.leader
    if target.removing != before.removing_replicas:
        record.removing_replicas = list(target.removing)
    if target.adding != before.adding_replicas:
        record.adding_replicas = list(target.adding)
    if target.elr != before.eligible_leader_replicas:
        record.eligible_leader_replicas = list(target.elr)
    if target.last_known_elr != before.last_known_elr:
        record.last_known_elr = list(target.last_known_elr)
    if target.recovery_state != before.leader_recovery_state:
        record.leader_recovery_state = target.recovery_state
    if wanted.directories or record.replicas is not None or len(before.directories) != len(before.replicas):
        known = dict(zip(before.replicas, before.directories, strict=False)) | dict(wanted.directories)
        directories = tuple(known[r] if r in known else terms.directory(r) for r in target.replicas)
        if directories != before.directories:
            record.directories = list(directories)
    return None if record == PartitionChangeRecord(partition_id=index, topic_id=topic_id) else record
