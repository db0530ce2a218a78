"""min.insync.replicas changes while in-sync sets do: leaders and controller judge each set by the same number.

The controller calls a replica eligible because it left a set below min ISR, where nothing is acknowledged (KIP-966). A
leader that takes the same set for large enough acknowledges what that replica lacks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.metadata.image import MetadataDelta, MetadataImage
from streamlog.broker.metadata.partition_change import RECOVERED
from streamlog.broker.metadata.records import decode_record
from streamlog.broker.partition import Partition
from streamlog.broker.partitions import Partitions
from streamlog.broker.replication.leader import LeaderState
from streamlog.broker.replication.roles import Replication
from streamlog.env import Scope, real_env
from tests.broker.batches import new_batch
from tests.broker.metadata.cluster import Cluster

MIN_ISR = "min.insync.replicas"


def test_an_accepted_set_counts_with_the_min_isr_it_was_judged_by() -> None:
    """Raised just before the leader asks to drop a follower: the dropped one is eligible, and lacks nothing."""
    controller = Cluster(brokers=2)
    controller.place("t", 1, 2, min_insync_replicas="1")
    registration = controller.partition()
    leader = LeaderState(1, registration.leader_epoch, 0, lambda *_: True, lag_ms_max=1000, now_ms=0)
    leader.adopt(registration.replicas, registration.isr, registration.partition_epoch)
    leader.on_fetch(2, 100, 0, controller.image.brokers[2].epoch, 100, 0)
    assert leader.shrink(200, 5000) is not None
    asked = leader.proposed
    assert asked is not None
    controller.configure("t", MIN_ISR, "2")  # the leader has not read it
    answer = controller.alter(controller.isr_request("t", asked.members))
    leader.on_accepted(asked, answer.leader_epoch, answer.partition_epoch)
    assert leader.replicated_offset(200, 200, 5000) == 100
    controller.fence(1)
    assert (controller.partition().leader, controller.partition().leader_recovery_state) == (2, RECOVERED)


def test_a_larger_set_counts_with_the_min_isr_it_was_judged_by_too() -> None:
    """Large enough by the number before, too small by the one now: whoever is still outside is eligible."""
    controller = Cluster(brokers=3)
    controller.place("t", 1, 2, 3, min_insync_replicas="2")
    controller.set_isr("t", 1)
    registration = controller.partition()
    leader = LeaderState(1, registration.leader_epoch, 0, lambda *_: True, lag_ms_max=1000, now_ms=0)
    leader.min_insync_replicas = 2
    leader.adopt(registration.replicas, registration.isr, registration.partition_epoch)
    leader.on_fetch(2, 200, 0, controller.image.brokers[2].epoch, 200, 0)
    asked = leader.expand(2, 0)
    assert asked is not None
    controller.configure("t", MIN_ISR, "3")  # the leader has not read it
    answer = controller.alter(controller.isr_request("t", asked.members))
    leader.on_accepted(asked, answer.leader_epoch, answer.partition_epoch)
    assert controller.partition().eligible_leader_replicas == (3,)
    assert leader.replicated_offset(200, 200, 0) == -1


class Broker:
    """Broker 1 with its partitions, which reads the metadata when it is told to."""

    def __init__(self, controller: Cluster, partitions: Partitions) -> None:
        self._controller = controller
        self._partitions = partitions
        self._image = MetadataImage()

    def read(self) -> None:
        """Everything that was decided since, in one go."""
        delta = MetadataDelta()
        for offset in range(self._image.applied_offset + 1, len(self._controller.log)):
            record = decode_record(self._controller.log[offset])
            self._image.apply(record, offset, delta)
        self._partitions.publish(self._image, delta)

    @property
    def partition(self) -> Partition:
        found = self._partitions.find("t", 0)
        assert found is not None
        return found


@asynccontextmanager
async def broker_of(controller: Cluster, path: Path) -> AsyncIterator[Broker]:
    env = real_env()
    logs = LogDirectory.open(env, str(path), node_id=1, now_ms=env.clock.wall_ms())
    async with Scope("broker") as scope:
        flusher = Flusher(env, scope)
        replication = Replication(env, 1, scope, flusher, save_log_starts=lambda: None)
        found = Broker(controller, Partitions(env, 1, logs, flusher, scope, {}, replication))
        found.read()
        yield found
        await scope.close()
    logs.close(broker_epoch=-1)
    env.offload.close()


async def test_a_set_is_never_counted_by_the_min_isr_before(tmp_path: Path) -> None:
    """The number is raised, the set shrinks below it, and a leader reads both at once."""
    controller = Cluster(brokers=2)
    controller.place("t", 1, 2, min_insync_replicas="1", streamlog_flush="os")
    async with broker_of(controller, tmp_path) as broker:
        broker.partition.append(bytearray(new_batch(b"v", timestamp_ms=0)), 0)
        controller.configure("t", MIN_ISR, "2")
        controller.fence(2)
        assert controller.partition().eligible_leader_replicas == (2,)
        broker.read()
        assert broker.partition.log.high_watermark == 0


async def test_the_min_isr_is_never_applied_to_the_set_before(tmp_path: Path) -> None:
    """The set shrinks, the number is lowered and still above it, and a leader reads both at once."""
    controller = Cluster(brokers=3)
    controller.place("t", 1, 2, 3, min_insync_replicas="3", streamlog_flush="os")
    controller.set_isr("t", 1, 2)
    async with broker_of(controller, tmp_path) as broker:
        broker.partition.append(bytearray(new_batch(b"v", timestamp_ms=0)), 0)
        broker.partition.on_replica_fetch(2, 1, 0, controller.image.brokers[2].epoch, 0)
        controller.set_isr("t", 1)
        controller.configure("t", MIN_ISR, "2")
        assert controller.partition().eligible_leader_replicas == (2, 3)
        broker.read()
        assert broker.partition.log.high_watermark == 0
