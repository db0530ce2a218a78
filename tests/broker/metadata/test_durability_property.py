"""Whatever dies and returns, what was acknowledged survives, and the partition makes sense after every record.

A model of the replicas' logs runs beside the controller's decisions: how many of the acknowledged records each broker
has. Leaders acknowledge as KIP-966 demands, with everybody of an ISR that is not below min ISR; who is killed loses
some of what it had; who stops in order loses nothing.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations, product
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlog.broker.metadata.elections import ElectionType, balance_leaders, elect_leaders
from streamlog.broker.metadata.image import NO_LEADER, PartitionRegistration
from streamlog.broker.metadata.partition_change import RECOVERING
from streamlog.broker.metadata.reassignment import alter_partition_reassignments
from streamlog.broker.metadata.registration import unregister_broker
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)
from streamlog.wire.messages.elect_leaders import ElectLeadersRequest
from tests.broker.metadata.cluster import Cluster

BROKERS = (1, 2, 3, 4)

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "write",
                "write",
                "kill",
                "stop",
                "notice",
                "notice",
                "start",
                "start",
                "shrink",
                "expand",
                "leave",
                "forget",
                "wipe",
            ]
        ),
        st.sampled_from(BROKERS),
        st.integers(0, 3),
    ),
    max_size=40,
)


@dataclass
class Model:
    """A topic on brokers 1 to 3 of 4; `has` counts acknowledged records by broker, as prefixes of one log."""

    cluster: Cluster
    min_isr: int
    has: dict[int, int] = field(default_factory=lambda: dict.fromkeys(BROKERS, 0))
    running: set[int] = field(default_factory=lambda: set(BROKERS))
    was_clean: dict[int, bool] = field(default_factory=dict)
    acknowledged: int = 0
    wipes: dict[int, int] = field(default_factory=lambda: dict.fromkeys(BROKERS, 0))
    empty: set[int] = field(default_factory=set)
    """Whose disk was replaced, until they are in sync again."""

    def __post_init__(self) -> None:
        self.seen = self.partition

    @property
    def partition(self) -> PartitionRegistration:
        return self.cluster.partition()

    def perform(self, kind: str, broker: int, amount: int) -> None:
        getattr(self, f"on_{kind}")(broker, amount)
        self.check()

    def leader_runs(self) -> bool:
        return self.partition.leader in self.running

    def on_write(self, broker: int, amount: int) -> None:
        isr = self.partition.isr
        if (
            self.leader_runs()
            and len(isr) >= min(self.min_isr, len(self.partition.replicas))
            and set(isr) <= self.running
        ):
            self.acknowledged += 1
            for member in isr:
                self.has[member] = self.acknowledged

    def on_kill(self, broker: int, amount: int) -> None:
        if broker in self.running:
            self.running.discard(broker)
            self.was_clean[broker] = False
            self.has[broker] = max(0, self.has[broker] - amount)

    def on_stop(self, broker: int, amount: int) -> None:
        if broker in self.running:
            self.running.discard(broker)
            self.was_clean[broker] = True

    def on_leave(self, broker: int, amount: int) -> None:
        """A controlled shutdown as far as it comes with these heartbeats."""
        if broker not in self.running or broker not in self.cluster.image.brokers:
            return
        for other in sorted(self.running - {broker}):
            if other in self.cluster.image.brokers:
                self.cluster.beat(other)
        if self.cluster.beat(broker, stop=True).response.should_shut_down:
            self.on_stop(broker, amount)

    def on_notice(self, broker: int, amount: int) -> None:
        if broker not in self.running and broker in self.cluster.image.brokers:
            self.cluster.fence(broker)

    def on_forget(self, broker: int, amount: int) -> None:
        if broker not in self.running and broker in self.cluster.image.brokers and amount == 0:
            self.cluster.take(partial(unregister_broker, settings=self.cluster.settings, broker_id=broker))
            self.cluster.liveness.on_gone(broker)

    def on_wipe(self, broker: int, amount: int) -> None:
        if broker not in self.running:
            self.was_clean[broker] = False
            self.has[broker] = 0
            self.wipes[broker] += 1
            self.empty.add(broker)

    def on_start(self, broker: int, amount: int) -> None:
        if broker in self.running:
            if broker in self.cluster.image.brokers:
                self.cluster.beat(broker)
            return
        self.running.add(broker)
        self.cluster.liveness.on_gone(broker)
        request = self.cluster.registration(broker, clean=self.was_clean[broker])
        request.log_dirs = [UUID(int=1000 + broker + 100 * self.wipes[broker])]
        self.cluster.register(request)
        self.check(doubted=set() if self.was_clean[broker] else {broker})
        self.cluster.beat(broker)

    def on_move(self, broker: int, amount: int) -> None:
        """To as many other brokers as there are numbers from `broker` on."""
        target = [(broker + step - 1) % 4 + 1 for step in range(max(1, amount))]
        self.reassign(target)

    def on_cancel(self, broker: int, amount: int) -> None:
        self.reassign(None)

    def reassign(self, target: list[int] | None) -> None:
        asked = ReassignableTopic(name="t", partitions=[ReassignablePartition(partition_index=0, replicas=target)])
        request = AlterPartitionReassignmentsRequest(topics=[asked])
        self.cluster.take(partial(alter_partition_reassignments, settings=self.cluster.settings, request=request))

    def on_balance(self, broker: int, amount: int) -> None:
        self.cluster.take(partial(balance_leaders, settings=self.cluster.settings))

    def on_shrink(self, broker: int, amount: int) -> None:
        before = self.partition
        if self.leader_runs() and broker in before.isr and broker != before.leader:
            isr = tuple(member for member in before.isr if member != broker)
            assert self.cluster.set_isr("t", *isr) in (ErrorCode.NONE, ErrorCode.INELIGIBLE_REPLICA)

    def on_expand(self, broker: int, amount: int) -> None:
        before = self.partition
        if not self.leader_runs() or broker not in before.replicas or broker in before.isr:
            return
        if broker in self.running and self.cluster.image.brokers[broker].is_active:
            self.has[broker] = self.has[before.leader]  # truncated or caught up: as its leader has it
            code = self.cluster.set_isr("t", *before.isr, broker)
            assert code in (ErrorCode.NONE, ErrorCode.INELIGIBLE_REPLICA)
            if code is ErrorCode.NONE:
                self.empty.discard(broker)

    # -- what must hold -------------------------------------------------------------------------------------------

    def check(self, doubted: AbstractSet[int] = frozenset()) -> None:
        """`doubted`: who has just come back from a death that it may have lost records in."""
        before, now = self.seen, self.partition
        self.seen = now
        isr, elr = set(now.isr), set(now.eligible_leader_replicas)
        assert len(isr) == len(now.isr)
        assert isr <= set(now.replicas)
        assert elr <= set(now.replicas)
        assert not isr & elr
        assert now.leader == NO_LEADER or now.leader in isr
        assert now.partition_epoch >= before.partition_epoch
        assert now.leader_epoch >= before.leader_epoch
        if now != before:
            assert now.partition_epoch > before.partition_epoch
        if now.leader != before.leader:
            assert now.leader_epoch > before.leader_epoch
        if len(isr) >= min(self.min_isr, len(now.replicas)):
            assert not elr
        if now.adding_replicas or now.removing_replicas:
            assert {*now.adding_replicas, *now.removing_replicas} <= set(now.replicas)
            assert not set(now.adding_replicas) & set(now.removing_replicas)
        self.check_registered(now)
        self.check_survival(before, now, doubted)

    def check_registered(self, now: PartitionRegistration) -> None:
        """Who leads is active, or comes back from a clean stop to what nobody else could have led."""
        if now.leader != NO_LEADER:
            leader = self.cluster.image.brokers[now.leader]
            assert leader.is_active or (leader.fenced and len(now.isr) == 1)

    def check_survival(
        self, before: PartitionRegistration, now: PartitionRegistration, doubted: AbstractSet[int]
    ) -> None:
        is_elected = now.leader_epoch > before.leader_epoch and now.leader != NO_LEADER
        if is_elected and not {*before.isr, *before.eligible_leader_replicas} - doubted:
            # It may have lost records, and says so; from here on, what it has counts.
            assert now.leader_recovery_state == RECOVERING
            self.acknowledged = self.has[now.leader]
        assert not is_elected or now.leader not in self.empty & self.running, "nobody leads on an empty disk"
        if self.leader_runs():
            for broker in self.running:  # whoever follows cuts what its leader has not
                if broker != now.leader:
                    self.has[broker] = min(self.has[broker], self.has[now.leader])
        killed = {broker for broker in now.replicas if broker not in self.running and not self.was_clean[broker]}
        for member in {*now.isr, *now.eligible_leader_replicas} - killed:
            assert self.has[member] == self.acknowledged, f"{member} can lead, and lacks what was acknowledged"


@settings(max_examples=600, deadline=None)
@given(ACTIONS, st.integers(1, 3))
def test_who_can_lead_has_what_was_acknowledged(actions: list[tuple[str, int, int]], min_isr: int) -> None:
    """Without an unclean election, no order of deaths and returns costs a record."""
    cluster = Cluster(brokers=4)
    cluster.place("t", 1, 2, 3, min_insync_replicas=str(min_isr))
    model = Model(cluster, min_isr)
    for action in actions:
        model.perform(*action)
    for broker in BROKERS:
        model.perform("start", broker, 0)
    for broker in BROKERS:
        while cluster.image.brokers[broker].in_controlled_shutdown:
            model.perform("leave", broker, 0)
            model.perform("start", broker, 0)
    if model.partition.leader == NO_LEADER:
        assert model.empty.intersection(model.partition.replicas), "with all of them back on their disks one leads"
        everywhere = ElectLeadersRequest(election_type=ElectionType.UNCLEAN, topic_partitions=None)
        left = [one for one in model.partition.replicas if one not in model.empty]
        cluster.take(partial(elect_leaders, settings=cluster.settings, request=everywhere))
        assert model.partition.leader in (left or model.partition.replicas), "who asks for it gets what is left"


@pytest.mark.parametrize("replicas", [2, 3])
def test_one_disk_in_sync_is_enough_in_any_order(replicas: int) -> None:
    """All replicas stop, in order or killed; one comes back on an empty disk. Nobody has to be asked for anything:
    whoever is left with what was acknowledged leads, however the others come back, and the empty one leads again."""
    brokers = range(1, replicas + 1)
    for down, up, wiped, kinds in product(
        permutations(brokers), permutations(brokers), brokers, product(("kill", "stop"), repeat=replicas)
    ):
        cluster = Cluster(brokers=4)
        cluster.place("t", *brokers, min_insync_replicas="2")
        model = Model(cluster, 2)
        for broker, kind in zip(down, kinds, strict=True):
            model.perform("write", 1, 0)
            model.perform(kind, broker, 0)
            model.perform("notice", broker, 0)
        acknowledged = model.acknowledged
        assert acknowledged == replicas - 1
        model.perform("wipe", wiped, 0)
        for broker in up:
            model.perform("start", broker, 0)
        case = f"down {down} {kinds}, {wiped} is empty, up {up}"
        assert model.partition.leader != NO_LEADER, case
        assert model.has[model.partition.leader] == acknowledged, case
        for broker in brokers:
            model.perform("expand", broker, 0)
        assert sorted(model.partition.isr) == list(brokers), case
        for broker in set(brokers) - {wiped}:
            model.perform("kill", broker, 0)
            model.perform("notice", broker, 0)
        assert model.partition.leader == wiped, case
        assert model.has[wiped] == acknowledged, case
