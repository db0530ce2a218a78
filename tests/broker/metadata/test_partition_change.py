"""What becomes of a partition: who leads it, who is in sync, and which epochs rise."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import pytest

from streamlog.broker.metadata.image import NO_LEADER, PartitionRegistration
from streamlog.broker.metadata.partition_change import RECOVERED, RECOVERING, Election, Terms, Wanted, change_partition
from streamlog.wire.internal.metadata import PartitionChangeRecord

TOPIC = UUID(int=99)
DIRECTORIES = {number: UUID(int=1000 + number) for number in range(1, 10)}


def partition(
    replicas: tuple[int, ...] = (1, 2, 3),
    isr: tuple[int, ...] | None = None,
    leader: int | None = None,
    elr: tuple[int, ...] = (),
    last_known: tuple[int, ...] = (),
    *,
    removing: tuple[int, ...] = (),
    adding: tuple[int, ...] = (),
    recovery: int = RECOVERED,
) -> PartitionRegistration:
    isr = replicas if isr is None else isr
    return PartitionRegistration(
        replicas=replicas,
        directories=tuple(DIRECTORIES[replica] for replica in replicas),
        isr=isr,
        leader=leader if leader is not None else isr[0] if isr else NO_LEADER,
        leader_epoch=7,
        partition_epoch=9,
        removing_replicas=removing,
        adding_replicas=adding,
        eligible_leader_replicas=elr,
        last_known_elr=last_known,
        leader_recovery_state=recovery,
    )


def change(
    before: PartitionRegistration,
    wanted: Wanted,
    alive: Iterable[int] = (1, 2, 3, 4, 5, 6),
    *,
    min_isr: int = 2,
    elr: bool = True,
) -> PartitionChangeRecord | None:
    is_alive = frozenset(alive).__contains__
    terms = Terms(min_isr, elr, is_alive, DIRECTORIES.__getitem__, has_disk=DIRECTORIES.__contains__, is_alive=is_alive)
    return change_partition(TOPIC, 0, before, wanted, terms)


def after(
    before: PartitionRegistration,
    wanted: Wanted,
    alive: Iterable[int] = (1, 2, 3, 4, 5, 6),
    *,
    min_isr: int = 2,
    elr: bool = True,
) -> PartitionRegistration:
    record = change(before, wanted, alive, min_isr=min_isr, elr=elr)
    assert record is not None
    return before.merge(record)


def record(**fields: object) -> PartitionChangeRecord:
    made = PartitionChangeRecord(topic_id=TOPIC, partition_id=0)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_nothing_wanted_is_no_record() -> None:
    """A partition that is well stays as it is."""
    assert change(partition(), Wanted()) is None
    assert change(partition(), Wanted(isr=(1, 2, 3), election=Election.PREFERRED)) is None


def test_a_record_holds_what_differs_and_nothing_else() -> None:
    """As Kafka writes them: a smaller ISR with the same leader is one field, and no leader epoch."""
    assert change(partition(), Wanted(isr=(1, 2))) == record(isr=[1, 2])
    assert change(partition(isr=(1, 2)), Wanted(isr=(1, 2, 3))) == record(isr=[1, 2, 3])


def test_a_leader_that_leaves_the_isr_is_replaced_by_the_next_replica_in_sync() -> None:
    """In the order of the replicas, not of the ISR; the leader epoch rises."""
    before = partition(replicas=(1, 2, 3), isr=(3, 1, 2), leader=1)
    assert change(before, Wanted(isr=(3, 2)), alive=(2, 3)) == record(isr=[3, 2], leader=2)
    assert after(before, Wanted(isr=(3, 2)), alive=(2, 3)).leader_epoch == 8


def test_a_leader_that_is_well_stays_even_if_it_is_not_preferred() -> None:
    """Only a preferred election moves it."""
    before = partition(leader=2)
    assert change(before, Wanted()) is None
    assert change(before, Wanted(election=Election.PREFERRED)) == record(leader=1)
    assert change(before._replace(isr=(2, 3)), Wanted(election=Election.PREFERRED)) is None
    assert change(before, Wanted(election=Election.PREFERRED), alive=(2, 3)) is None


def test_who_leaves_below_min_isr_stays_eligible() -> None:
    """KIP-966: the high watermark does not move there, so it has everything that is committed."""
    first = after(partition(), Wanted(isr=(1, 2)), min_isr=2)
    assert first.eligible_leader_replicas == ()
    second = after(first, Wanted(isr=(1,)), min_isr=2)
    assert (second.isr, second.eligible_leader_replicas, second.leader) == ((1,), (2,), 1)
    third = after(second, Wanted(isr=()), alive=(3,))
    assert (third.isr, third.eligible_leader_replicas, third.leader) == ((), (1, 2), NO_LEADER)
    assert third.last_known_elr == (1,)


def test_an_eligible_replica_leads_when_nobody_is_in_sync() -> None:
    """It becomes the ISR; the others stay eligible; it is a clean election."""
    before = partition(isr=(), leader=NO_LEADER, elr=(1, 2), last_known=(1,))
    found = after(before, Wanted(), alive=(2, 3))
    assert (found.leader, found.isr, found.eligible_leader_replicas) == (2, (2,), (1,))
    assert (found.last_known_elr, found.leader_recovery_state) == ((), RECOVERED)


def test_the_elr_is_emptied_when_the_isr_is_large_enough_again() -> None:
    """From then on the high watermark moves without those who are out."""
    before = partition(isr=(1,), elr=(2,))
    assert after(before, Wanted(isr=(1, 3))).eligible_leader_replicas == ()


def test_a_replica_that_comes_back_into_the_isr_is_not_eligible_besides() -> None:
    """ISR and ELR have no member in common."""
    before = partition(replicas=(1, 2, 3, 4), isr=(1,), elr=(2, 3))
    found = after(before, Wanted(isr=(1, 2)), min_isr=3)
    assert (found.isr, found.eligible_leader_replicas) == ((1, 2), (3,))


def test_min_isr_beyond_the_number_of_replicas_means_all_of_them() -> None:
    """A partition with two replicas cannot have three in sync."""
    before = partition(replicas=(1, 2))
    assert after(before, Wanted(isr=(1,)), min_isr=3).eligible_leader_replicas == (2,)
    full = partition(replicas=(1, 2), isr=(1,), elr=(2,))
    assert after(full, Wanted(isr=(1, 2)), min_isr=3).eligible_leader_replicas == ()


def test_a_replica_that_lost_data_is_not_eligible() -> None:
    """It may lack what it had acknowledged."""
    before = partition(isr=(1,), elr=(2, 3), replicas=(1, 2, 3, 4))
    found = after(before, Wanted(lost_data=(2,)), min_isr=3)
    assert found.eligible_leader_replicas == (3,)
    alone = after(partition(isr=(1,)), Wanted(isr=(), lost_data=(1,)), alive=())
    assert (alone.isr, alone.eligible_leader_replicas, alone.last_known_elr) == ((), (), (1,))


def test_the_last_known_leader_leads_when_nobody_is_eligible() -> None:
    """It may have lost records, which is what the recovery state tells."""
    before = partition(isr=(), leader=NO_LEADER, last_known=(2,))
    found = after(before, Wanted(), alive=(1, 2, 3))
    assert (found.leader, found.isr, found.leader_recovery_state, found.last_known_elr) == (2, (2,), RECOVERING, ())
    assert change(before, Wanted(), alive=(1, 3)) is None


def test_an_unclean_election_takes_anybody_and_says_so() -> None:
    """Only if it is wanted, and only if no clean one is possible."""
    before = partition(isr=(1,))
    found = after(before, Wanted(isr=(), election=Election.UNCLEAN), alive=(2, 3), elr=False)
    assert (found.leader, found.isr, found.leader_recovery_state) == (2, (2,), RECOVERING)
    clean = partition(isr=(1, 3))
    found = after(clean, Wanted(isr=(3,), election=Election.UNCLEAN), alive=(2, 3))
    assert (found.leader, found.leader_recovery_state) == (3, RECOVERED)


def test_an_unclean_election_forgets_who_was_eligible() -> None:
    """What they have and the new leader has not is lost."""
    before = partition(isr=(), leader=NO_LEADER, elr=(1,), last_known=(2,))
    found = after(before, Wanted(election=Election.UNCLEAN), alive=(3,))
    assert (found.leader, found.isr, found.eligible_leader_replicas, found.last_known_elr) == (3, (3,), (), ())


def test_without_elr_the_last_member_stays_in_sync() -> None:
    """It is all that knows what is committed."""
    found = after(partition(isr=(1,)), Wanted(isr=()), alive=(2, 3), elr=False)
    assert (found.leader, found.isr, found.leader_epoch) == (NO_LEADER, (1,), 8)
    back = after(found, Wanted(), alive=(1, 2, 3), elr=False)
    assert (back.leader, back.isr, back.leader_recovery_state) == (1, (1,), RECOVERED)


def test_the_recovery_state_can_be_taken_back() -> None:
    """By the leader, when it is through with it."""
    before = partition(isr=(1,), recovery=RECOVERING)
    assert change(before, Wanted(leader_recovery_state=RECOVERED, isr=(1,)), min_isr=1) == record(
        leader_recovery_state=RECOVERED
    )


def test_a_reassignment_is_completed_when_all_that_stay_are_in_sync() -> None:
    """The replicas on their way out leave, and hear of it by a new leader epoch."""
    before = partition(replicas=(4, 5, 1), isr=(1, 4), leader=1, removing=(1,), adding=(4, 5))
    waiting = change(before, Wanted(isr=(1, 4)))
    assert waiting is None
    found = after(before, Wanted(isr=(1, 4, 5)))
    assert (found.replicas, found.isr, found.leader) == ((4, 5), (4, 5), 4)
    assert (found.removing_replicas, found.adding_replicas, found.leader_epoch) == ((), (), 8)
    assert found.directories == (DIRECTORIES[4], DIRECTORIES[5])


def test_a_replica_taken_away_raises_the_leader_epoch_of_a_leader_that_stays() -> None:
    """Or the one that is gone would go on fetching as a follower."""
    before = partition(replicas=(1, 2, 3), removing=(3,))
    found = after(before, Wanted())
    assert (found.leader, found.leader_epoch, found.replicas) == (1, 8, (1, 2))


def test_new_replicas_get_the_directories_their_brokers_name() -> None:
    """Old ones keep theirs."""
    found = after(partition(), Wanted(replicas=(4, 1, 2, 3), adding=(4,)))
    assert found.directories == tuple(DIRECTORIES[replica] for replica in (4, 1, 2, 3))
    moved = after(partition(), Wanted(directories={2: UUID(int=5)}))
    assert moved.directory(2) == UUID(int=5)


@pytest.mark.parametrize("elr", [True, False])
def test_the_partition_epoch_rises_with_every_record(elr: bool) -> None:
    """It is the token of compare and set."""
    assert after(partition(), Wanted(isr=(1, 2)), elr=elr).partition_epoch == 10
