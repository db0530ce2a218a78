"""When a broker is unfenced, fenced and let go, and where its leaderships are then."""

from __future__ import annotations

from uuid import UUID

import pytest

from streamlog.broker.metadata.heartbeats import FENCE, IN_CONTROLLED_SHUTDOWN, broker_heartbeat, fence_broker
from streamlog.broker.metadata.image import NO_LEADER
from streamlog.broker.metadata.liveness import FIRST_HEARTBEAT_MS
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.internal.metadata import BrokerRegistrationChangeRecord, PartitionChangeRecord
from streamlog.wire.messages.broker_heartbeat import BrokerHeartbeatRequest
from tests.broker.metadata.cluster import SESSION_MS, Cluster


def three(*replicas: int, min_isr: int = 2) -> Cluster:
    cluster = Cluster(brokers=3)
    cluster.place("t", *(replicas or (1, 2, 3)), min_insync_replicas=str(min_isr))
    return cluster


def test_a_broker_is_unfenced_once_it_has_read_its_own_registration() -> None:
    """Not before: it would serve what the cluster was."""
    cluster = Cluster()
    cluster.register(cluster.registration(2))
    epoch = cluster.image.brokers[2].epoch
    early = cluster.beat(2, offset=epoch - 1).response
    assert (early.is_caught_up, early.is_fenced) == (False, True)
    late = cluster.beat(2, offset=epoch).response
    assert (late.is_caught_up, late.is_fenced) == (True, False)
    assert cluster.image.brokers[2].is_active


def test_a_broker_that_wants_to_stay_fenced_stays_fenced() -> None:
    """It is still recovering its logs."""
    cluster = Cluster()
    cluster.register(cluster.registration(2))
    assert cluster.beat(2, fence=True).response.is_fenced
    assert cluster.last == ()


@pytest.mark.parametrize("epoch", [-1, 0, 10**6])
def test_a_heartbeat_of_another_incarnation_is_refused(epoch: int) -> None:
    """STALE_BROKER_EPOCH, whether older, newer or never registered; the epoch given by the registration counts."""
    cluster = Cluster()
    for number in (1, 9):
        request = BrokerHeartbeatRequest(broker_id=number, broker_epoch=epoch)
        with pytest.raises(KafkaError) as caught:
            broker_heartbeat(cluster.image, cluster.settings, cluster.liveness, request)
        assert caught.value.code is ErrorCode.STALE_BROKER_EPOCH


def test_a_fenced_broker_leads_nothing_and_is_in_no_isr() -> None:
    """One batch: the leaders move with the fence, so nobody ever sees a fenced leader."""
    cluster = three()
    cluster.fence(1)
    assert (cluster.partition().leader, cluster.partition().isr) == (2, (2, 3))
    assert [type(record) for record in cluster.last] == [PartitionChangeRecord, BrokerRegistrationChangeRecord]
    fence = cluster.last[-1]
    assert isinstance(fence, BrokerRegistrationChangeRecord)
    assert fence.fenced == FENCE


def test_fencing_one_after_the_other_keeps_who_has_everything() -> None:
    """Below min ISR they stay eligible, and the first of them that is back leads."""
    cluster = three()
    cluster.fence(1, 2, 3)
    found = cluster.partition()
    assert (found.leader, found.isr, found.eligible_leader_replicas) == (NO_LEADER, (), (2, 3))
    cluster.beat(1)
    assert cluster.partition().leader == NO_LEADER
    cluster.beat(2)
    assert (cluster.partition().leader, cluster.partition().eligible_leader_replicas) == (2, (3,))


def test_fencing_what_is_fenced_or_registered_anew_writes_nothing() -> None:
    """The sign that it was gone came too late."""
    cluster = three()
    old_epoch = cluster.image.brokers[1].epoch
    cluster.fence(1)
    assert fence_broker(cluster.image, cluster.settings, 1, old_epoch).records == ()
    cluster.start(1)
    decision = fence_broker(cluster.image, cluster.settings, 1, old_epoch)
    assert (decision.records, decision.response) == ((), False)


def test_a_controlled_shutdown_moves_the_leaders_and_then_waits_for_the_others_to_know() -> None:
    """It may go when every other active broker has read who leads instead."""
    cluster = three()
    before = cluster.next_offset - 1
    first = cluster.beat(1, stop=True).response
    assert (first.should_shut_down, first.is_fenced) == (False, False)
    assert (cluster.partition().leader, cluster.partition().isr) == (2, (2, 3))
    change = next(record for record in cluster.last if isinstance(record, BrokerRegistrationChangeRecord))
    assert change.in_controlled_shutdown == IN_CONTROLLED_SHUTDOWN
    cluster.beat(2)
    cluster.beat(3, offset=before)
    assert not cluster.beat(1, stop=True).response.should_shut_down
    cluster.beat(3)
    last = cluster.beat(1, stop=True).response
    assert (last.should_shut_down, last.is_fenced) == (True, True)
    assert cluster.image.brokers[1].fenced


def test_a_broker_that_leads_nothing_may_go_at_once() -> None:
    """It is out of the ISR and fenced with the same answer."""
    cluster = three(1, 2, 3)
    assert cluster.beat(3, stop=True).response.should_shut_down
    assert cluster.partition().isr == (1, 2)
    assert cluster.beat(3, stop=True).response.should_shut_down
    assert cluster.last == ()


def test_a_broker_in_controlled_shutdown_gets_no_new_partitions() -> None:
    """Neither as leader nor in the ISR."""
    cluster = three()
    cluster.beat(1, stop=True)
    cluster.place("u", 1, 2)
    assert (cluster.partition("u").leader, cluster.partition("u").isr) == (2, (2,))


def test_a_shutdown_ends_although_nobody_else_can_lead() -> None:
    """The partition waits for the broker without a leader."""
    cluster = Cluster(brokers=2)
    cluster.place("t", 1)
    assert not cluster.beat(1, stop=True).response.should_shut_down
    cluster.beat(2)
    assert cluster.partition().leader == NO_LEADER
    assert cluster.beat(1, stop=True).response.should_shut_down
    cluster.start(1)
    assert (cluster.partition().leader, cluster.partition().leader_recovery_state) == (1, 0)


def test_a_directory_that_fails_takes_only_its_replicas_along() -> None:
    """The broker lives, and what it has elsewhere goes on."""
    cluster = Cluster(brokers=2)
    request = cluster.registration(3)
    other = UUID(int=77)
    request.log_dirs.append(other)
    cluster.liveness.on_gone(3)
    cluster.register(request)
    cluster.beat(3)
    cluster.place("t", 3, 1)
    cluster.place("u", 3, 2)
    for name, directory in (("t", other), ("u", request.log_dirs[0])):
        topic = cluster.image.topics[name]
        change = PartitionChangeRecord(partition_id=0, topic_id=topic.id, directories=[directory, UUID(int=1001)])
        cluster.image.apply(change, cluster.next_offset)
    cluster.beat(3, offline=(other,))
    assert (cluster.partition("t").leader, cluster.partition("t").isr) == (1, (1,))
    assert (cluster.partition("u").leader, cluster.partition("u").isr) == (3, (3, 2))
    assert cluster.image.brokers[3].directories == (request.log_dirs[0],)
    cluster.beat(3, offline=(other,))
    assert cluster.last == ()


def test_sessions_run_out_the_most_silent_first() -> None:
    """One at a time, so that each fence builds on the one before."""
    cluster = three()
    cluster.now_ms += 1000
    cluster.beat(3)
    deadline_ms = cluster.liveness.deadline_ms(cluster.image)
    assert deadline_ms == 1000 + SESSION_MS + 1
    assert cluster.liveness.expired(cluster.image, deadline_ms - 1) is None
    assert cluster.liveness.expired(cluster.image, deadline_ms) == 1
    cluster.fence(1)
    assert cluster.liveness.expired(cluster.image, deadline_ms) == 2
    cluster.fence(2)
    assert cluster.liveness.expired(cluster.image, deadline_ms) is None
    assert cluster.partition().leader == 3


def test_a_new_active_controller_gives_everybody_a_fresh_session() -> None:
    """It knows nothing about past heartbeats, and what is fenced stays fenced."""
    cluster = three()
    cluster.fence(1)
    cluster.now_ms += 10 * SESSION_MS
    cluster.liveness.begin(cluster.image, cluster.now_ms)
    assert cluster.liveness.expired(cluster.image, cluster.now_ms + SESSION_MS) is None
    assert cluster.liveness.expired(cluster.image, cluster.now_ms + SESSION_MS + 1) == 2


def test_who_led_the_quorum_before_is_as_silent_as_its_controller_was() -> None:
    """A process that is frozen is so as a whole: its broker gets no fresh session."""
    cluster = three()
    cluster.now_ms += 10 * SESSION_MS
    cluster.liveness.begin(cluster.image, cluster.now_ms, {2: cluster.now_ms - 1200, 77: 0})
    deadline_ms = cluster.now_ms - 1200 + SESSION_MS + 1
    assert cluster.liveness.deadline_ms(cluster.image) == deadline_ms
    assert cluster.liveness.expired(cluster.image, deadline_ms) == 2
    cluster.now_ms += 100
    cluster.beat(2)
    assert cluster.liveness.expired(cluster.image, deadline_ms) is None


def test_elections_in_a_row_do_not_give_a_silent_broker_new_sessions() -> None:
    """Neither when another led in between, nor when this controller was active before."""
    cluster = three()
    cluster.now_ms += 10 * SESSION_MS
    for _ in range(2):
        for number in (1, 2, 3):
            cluster.beat(number)
        silent_since_ms = cluster.now_ms
        cluster.now_ms += 1_000
        cluster.beat(1)
        cluster.liveness.begin(cluster.image, cluster.now_ms, {3: cluster.now_ms - 400})
        assert cluster.liveness.deadline_ms(cluster.image) == silent_since_ms + SESSION_MS + 1
        assert cluster.liveness.expired(cluster.image, silent_since_ms + SESSION_MS + 1) == 2
        assert cluster.liveness.sessions[3].last_heard_ms == cluster.now_ms - 400


def test_after_an_election_there_is_time_for_a_heartbeat() -> None:
    """However long ago a broker was heard; and when that is longer than a session, nothing is known."""
    cluster = three()
    cluster.now_ms += 10 * SESSION_MS
    cluster.liveness.begin(cluster.image, cluster.now_ms, {2: cluster.now_ms - SESSION_MS + 1})
    assert cluster.liveness.expired(cluster.image, cluster.now_ms + FIRST_HEARTBEAT_MS) is None
    assert cluster.liveness.expired(cluster.image, cluster.now_ms + FIRST_HEARTBEAT_MS + 1) == 2
    cluster.liveness.begin(cluster.image, cluster.now_ms, {3: cluster.now_ms - SESSION_MS - 1})
    assert cluster.liveness.sessions[3].last_heard_ms == cluster.now_ms


def test_a_controller_that_stood_still_blames_nobody_for_silence() -> None:
    """The heartbeats of that time lie unread."""
    cluster = three()
    cluster.liveness.on_stalled(5000)
    assert cluster.liveness.expired(cluster.image, cluster.now_ms + 5000 + SESSION_MS) is None
