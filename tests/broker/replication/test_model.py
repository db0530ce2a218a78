"""Random histories of a replicated partition: what was acknowledged stays, and replicas agree on what is committed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.broker.replication.model import BROKERS, Cluster

numbers = st.sampled_from(BROKERS)


class Histories(RuleBasedStateMachine):
    cluster: Cluster

    @initialize(flush_before_ack=st.booleans(), min_isr=st.sampled_from((1, 2)))
    def begin(self, flush_before_ack: bool, min_isr: int) -> None:
        self.cluster = Cluster(flush_before_ack=flush_before_ack, min_isr=min_isr)

    @rule(number=numbers)
    def produce(self, number: int) -> None:
        self.cluster.produce(number)

    @rule(number=numbers)
    def produce_more(self, number: int) -> None:
        self.cluster.produce(number)
        self.cluster.produce(number)

    @rule(number=numbers, lost=st.sampled_from((False, False, False, True)), count=st.sampled_from((1, 100)))
    def fetch(self, number: int, lost: bool, count: int) -> None:
        if self.cluster.replicas[number].is_alive:
            self.cluster.fetch(number, answer_lost=lost, count=count)

    @rule(number=numbers)
    def flush(self, number: int) -> None:
        if self.cluster.replicas[number].is_alive:
            self.cluster.flush(number)

    @rule(number=numbers)
    def publish(self, number: int) -> None:
        if self.cluster.replicas[number].is_alive:
            self.cluster.publish(number)

    @rule(ms=st.sampled_from((1, 60, 150)))
    def tick(self, ms: int) -> None:
        self.cluster.tick(ms)

    @precondition(lambda self: self.cluster.proposals)
    @rule(lost=st.booleans())
    def controller_handles(self, lost: bool) -> None:
        self.cluster.controller_handles()
        self.cluster.answer(lost=lost)

    @precondition(lambda self: self.cluster.proposals)
    @rule()
    def controller_answers_late(self) -> None:
        self.cluster.controller_handles()

    @precondition(lambda self: self.cluster.answers)
    @rule(lost=st.booleans())
    def answer(self, lost: bool) -> None:
        self.cluster.answer(lost=lost)

    @rule(number=numbers, loses_power=st.booleans())
    def kill(self, number: int, loses_power: bool) -> None:
        if self.cluster.replicas[number].is_alive:
            self.cluster.kill(number, loses_power=loses_power and self.cluster.may_lose_power(number))

    @rule(number=numbers)
    def fence(self, number: int) -> None:
        """Also one that lives, and does not hear of it yet."""
        self.cluster.fence(number)

    @rule(number=numbers)
    def restart(self, number: int) -> None:
        if not self.cluster.replicas[number].is_alive:
            self.cluster.restart(number)

    @rule(number=numbers)
    def unfence(self, number: int) -> None:
        if self.cluster.replicas[number].is_alive:
            self.cluster.unfence(number)

    @rule(number=numbers)
    def prefer(self, number: int) -> None:
        self.cluster.prefer(number)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "cluster"):
            self.cluster.check()

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        self.cluster.settle()
        logs = [replica.log for replica in self.cluster.replicas.values()]
        assert logs[0] == logs[1] == logs[2]
        assert set(self.cluster.registration.isr) == set(BROKERS)
        assert [replica.high_watermark for replica in self.cluster.replicas.values()] == [len(logs[0])] * 3


def test_no_history_loses_what_was_acknowledged() -> None:
    """Drops, deaths, lost tails, late answers, late metadata, elections from the in-sync set."""
    run_state_machine_as_test(Histories, settings=settings(max_examples=50, stateful_step_count=50, deadline=None))


SEEDS = 400
STEPS = 250


def walk(seed: int, steps: int) -> Cluster:
    """A long random history, in which most steps make progress: hypothesis's are short, and many come to nothing."""
    random = Random(seed)
    cluster = Cluster(flush_before_ack=random.random() < 0.3, min_isr=random.choice((1, 1, 2)))
    faults = random.choice((0.05, 0.3, 1.0, 2.0))

    def anybody() -> int:
        return random.choice(BROKERS)

    def living(do: Callable[[int], None]) -> None:
        number = anybody()
        if cluster.replicas[number].is_alive:
            do(number)

    def kill(number: int) -> None:
        cluster.kill(number, loses_power=random.random() < 0.5 and cluster.may_lose_power(number))

    def restart() -> None:
        number = anybody()
        if not cluster.replicas[number].is_alive:
            cluster.restart(number)

    def handle() -> None:
        if cluster.proposals:
            cluster.controller_handles()

    def answer() -> None:
        if cluster.answers:
            cluster.answer(lost=random.random() < 0.2)

    def fetch(number: int) -> None:
        cluster.fetch(number, answer_lost=random.random() < 0.1, count=random.choice((1, 100)))

    steps_and_weights: list[tuple[Callable[[], None], float]] = [
        (lambda: living(cluster.produce), 6),
        (lambda: living(fetch), 12),
        (lambda: living(cluster.publish), 6),
        (lambda: living(cluster.flush), 1),
        (handle, 4),
        (answer, 3),
        (lambda: cluster.tick(random.choice((1, 60, 150))), 1),
        (lambda: living(kill), 0.5 * faults),
        (restart, 2),
        (lambda: cluster.fence(anybody()), 0.7 * faults),
        (lambda: living(cluster.unfence), 4),
        (lambda: cluster.prefer(anybody()), 0.7 * faults),
    ]
    choices, weights = zip(*steps_and_weights, strict=True)
    for step in random.choices(choices, weights, k=steps):
        step()
        cluster.check()
    return cluster


def test_no_long_history_loses_what_was_acknowledged() -> None:
    """And at the end all replicas are in sync and the same."""
    acknowledged = 0
    for seed in range(SEEDS):
        cluster = walk(seed, STEPS)
        acknowledged += len(cluster.acknowledged)
        cluster.settle()
        logs = [replica.log for replica in cluster.replicas.values()]
        assert logs[0] == logs[1] == logs[2], f"seed {seed}"
        assert set(cluster.registration.isr) == set(BROKERS), f"seed {seed}"
        assert {replica.high_watermark for replica in cluster.replicas.values()} == {len(logs[0])}, f"seed {seed}"
    assert acknowledged > 4 * SEEDS, "histories in which nothing is acknowledged prove nothing"


@pytest.mark.parametrize("flush_before_ack", [False, True])
def test_a_quiet_cluster_commits_with_one_round_of_fetches(flush_before_ack: bool) -> None:
    """The second fetch of each follower tells that it has the record."""
    cluster = Cluster(flush_before_ack=flush_before_ack, min_isr=2)
    cluster.produce(1)
    cluster.flush(1)
    for number in (2, 3, 2, 3):
        cluster.fetch(number, answer_lost=False, count=10)
    assert cluster.acknowledged == {0: "v1"}
