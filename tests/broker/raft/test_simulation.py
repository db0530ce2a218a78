"""Raft's invariants over many simulated lives, and that the simulation notices when they break."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.broker.raft.planted import BUGS, Planted, plant, seeds_until_found
from tests.broker.raft.simulation import Faults, Simulation, run_seed

SEEDS = 100
BUDGET = 400


def test_the_invariants_hold_and_the_quorum_recovers() -> None:
    """Every seed; and between them, everything that should happen now and then did."""
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        seen.update(run_seed(seed).watch.seen)
    for name in (
        "crash", "crash within effects", "cut", "leader", "snapshot", "snapshot loaded", "voters changed", "wipe",
    ):  # fmt: skip
        assert seen[name], f"{name} never happened"


def test_a_seed_gives_the_same_life_twice() -> None:
    """Otherwise a failure could not be looked at."""
    first, second = run_seed(3), run_seed(3)
    assert first.trace == second.trace
    assert first.watch.folds == second.watch.folds


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.claim)
def test_planted_bugs_are_found(bug: Planted, tmp_path: Path) -> None:
    """Each within a budget of seeds."""
    run = plant(bug, tmp_path, f"planted_{BUGS.index(bug)}")
    assert seeds_until_found(run, BUDGET, first=bug.seed) is not None


def test_the_copy_without_a_bug_is_sound(tmp_path: Path) -> None:
    """What is found in the others is the bug, not the copying."""
    run = plant(None, tmp_path, "planted_none")
    assert seeds_until_found(run, 20) is None


def calm(voters: int = 3) -> Simulation:
    """A quorum without faults, with a leader."""
    simulation = Simulation(
        1, voters=voters, observers=1, faults=Faults(0, 0, 0, 0, 0, 0, gone=1.0, slow_disk=0.0, crash_after_vote=0.0)
    )
    assert simulation.run(10_000, simulation._is_settled)
    return simulation


def test_a_voter_that_was_cut_off_does_not_depose_the_leader() -> None:
    """However long it was: it comes back in the epoch in which it left (KIP-996)."""
    simulation = calm()
    leader = simulation.leaders()[0]
    core = leader.core
    assert core is not None
    lost = next(node for node in simulation.nodes.values() if node is not leader and core.voters.has(node.key))
    others = [number for number in simulation.nodes if number != lost.key.id]
    simulation._blocked.update(frozenset((lost.key.id, number)) for number in others)
    simulation.run(60_000)
    epoch = core.epoch
    simulation._blocked.clear()
    assert simulation.run(10_000, simulation._is_settled)
    assert (simulation.leaders(), core.epoch) == ([leader], epoch)


def test_a_killed_leader_is_replaced_within_a_second() -> None:
    """Its connections break, which everybody notices at once."""
    simulation = calm()
    leader = simulation.leaders()[0]
    simulation.crash(leader)
    began_ms = simulation.now_ms
    assert simulation.run(10_000, lambda: bool(simulation.leaders()))
    assert simulation.now_ms - began_ms < 1_000


def test_a_leader_that_stops_is_replaced_at_once() -> None:
    """It names its successor."""
    simulation = calm()
    leader = simulation.leaders()[0]
    simulation.handle(leader, lambda core: core.on_stop(simulation.now_ms))
    began_ms = simulation.now_ms
    assert simulation.run(10_000, lambda: bool(simulation.leaders()))
    assert simulation.now_ms - began_ms < 300


def test_an_idle_quorum_is_quiet() -> None:
    """Two followers and an observer ask twice a second each, and nobody else says anything."""
    simulation = calm()
    simulation.run(10_000)
    before = simulation._numbers
    simulation.run(60_000)
    events_per_second = (simulation._numbers - before) / 60
    assert events_per_second < 60
