"""The campaign itself: seeds, determinism across processes, children that fail, shrinking."""

from __future__ import annotations

import ast
import json
import os
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import streamlog
from streamlog.testing.simulator.campaign import COVERAGE_SEEDS_MIN, RARE_SEEDS_MIN, Campaign, digests_elsewhere
from streamlog.testing.simulator.campaign_page import render_page
from streamlog.testing.simulator.children import run_all, run_one
from streamlog.testing.simulator.coverage import RARE_SITUATIONS, SITUATIONS
from streamlog.testing.simulator.invariants import INVARIANTS
from streamlog.testing.simulator.nemesis import Fault
from streamlog.testing.simulator.run import run
from streamlog.testing.simulator.setup import Setup, draw
from streamlog.testing.simulator.shrink import shrink
from streamlog.testing.simulator.stage import Outcome
from streamlog.testing.simulator.unwatched import UNWATCHED

SEEDS = 6


def test_a_few_seeds_violate_nothing() -> None:
    """The path that `make sim` takes, and its summary."""
    lines: list[str] = []
    campaign = Campaign(lines.append)
    campaign.run(range(1, 1 + SEEDS), jobs=2)
    campaign.report()
    assert campaign.is_good
    assert campaign.acked > 0
    assert lines[-1] == "no invariant is violated"


def test_each_number_of_the_failure_model_is_watched_or_said_not_to_be() -> None:
    """Reasons name test files that are there."""
    assert sorted([*UNWATCHED, *(number for number in INVARIANTS if number <= 84)]) == list(range(1, 85))
    tests = Path(__file__).parent.parent
    names = {path.name for path in tests.rglob("test_*.py")}
    for why in UNWATCHED.values():
        for word in why.replace(",", " ").replace(";", " ").split():
            if word.endswith(".py"):
                assert (tests.parent / word).exists() if "/" in word else word in names, word


def test_each_situation_has_to_be_reached_by_some_campaign() -> None:
    """What the code calls by name is in one of the two lists, and nothing else is."""
    named = {
        name.value
        for path in sorted(Path(streamlog.__file__).parent.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        for called, name in pairwise([node.func, *node.args])  # also in partial(hooks.sometimes, "...")
        if ast.unparse(called).rpartition(".")[2] == "sometimes" and isinstance(name, ast.Constant)
    }
    assert sorted(map(str, named)) == sorted([*SITUATIONS, *RARE_SITUATIONS])


def test_rare_situations_are_asked_of_large_campaigns_only() -> None:
    """The page says in any case which were not reached."""
    campaign = Campaign(print)
    campaign.reached = dict.fromkeys(SITUATIONS[1:], 1)
    assert (campaign.missing, campaign.is_good) == ([], True)
    campaign.seeds = COVERAGE_SEEDS_MIN
    assert (campaign.missing, campaign.is_good) == ([SITUATIONS[0]], False)
    campaign.seeds = RARE_SEEDS_MIN
    assert campaign.missing == [SITUATIONS[0], *RARE_SITUATIONS]
    assert f"**Never: {', '.join(campaign.missing)}.**" in render_page(campaign.summary())


def test_a_large_campaign_goes_on_where_it_was(tmp_path: Path) -> None:
    """Started again it runs what is left and what failed, counts go on, and the page tells all of it."""
    path = tmp_path / "target" / "campaign.json"
    Campaign(print).run_large(path, range(3), range(0), jobs=2, share=1)
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(kept | {"violations": {"SEED=1 SIZE=short": ["1 durability: once"]}}))
    campaign = Campaign(print)
    campaign.run_large(path, range(5), range(0), jobs=2, share=1)
    assert campaign.runs == {"short broker": 4, "short quorum": 1}
    assert campaign.seeds == 5 == sum(campaign.versions.values())
    assert campaign.fixed == {"SEED=1 SIZE=short": ["1 durability: once"]}
    assert not campaign.violations
    assert "**5 short runs, 0 long ones" in render_page(json.loads(path.read_text()))


def test_a_seed_has_one_trace_in_every_process() -> None:
    """Another process with other addresses and another hash seed does the same, callback for callback."""
    assert [run_one(draw(11)).digest] == digests_elsewhere([11])


def test_a_run_that_crashes_or_hangs_is_an_outcome() -> None:
    """The campaign goes on, and says what happened."""

    def crash(setup: Setup) -> Outcome:
        raise ZeroDivisionError

    def hang(setup: Setup) -> Outcome:
        time.sleep(60)
        raise AssertionError("nobody waits so long")

    def vanish(setup: Setup) -> Outcome:
        os._exit(7)

    assert "ZeroDivisionError" in run_one(Setup(1), crash).violations[0]
    assert "no end after 0.2 s" in run_one(Setup(1), hang, seconds_max=0.2).violations[0]
    assert "ended with status" in run_one(Setup(1), vanish).violations[0]


def test_whoever_has_seen_enough_leaves_the_other_runs_behind() -> None:
    """A child that is in the middle of its answer is ended, and what it wrote is nobody's."""

    def answer(setup: Setup) -> Outcome:
        return Outcome(setup, ["x" * (16 << 20)])

    outcomes = run_all([Setup(1), Setup(2)], 2, answer)
    assert next(outcomes).violations
    outcomes.close()


def test_shrinking_keeps_only_the_faults_that_matter() -> None:
    """Of twelve faults the two that are needed together are left."""
    faults = tuple(Fault(1000 + number, "kill", "broker") for number in range(12))
    wanted = {faults[3], faults[8]}

    def perform(setup: Setup) -> Outcome:
        return Outcome(setup, ["1 durability: x"] if wanted <= set(setup.faults) else [])

    failing = perform(replace(draw(5), faults=faults))
    small = shrink(failing, perform, runs_max=200, tell=lambda line: None)
    assert set(small.setup.faults) == wanted
    assert (small.setup.producers, small.setup.consumers, small.setup.churn) == (1, 0, False)


def test_dropping_a_fault_leaves_the_run_before_it_as_it_was() -> None:
    """Chance has a stream for each use, or shrinking would compare different runs."""
    setup = replace(draw(4), faults=(Fault(2000, "kill", "broker", 300), Fault(5000, "reset", "broker")))
    events: list[str] = []
    run(setup, events.append)
    fewer: list[str] = []
    run(replace(setup, faults=setup.faults[:1]), fewer.append)
    before = [line for line in events if float(line[:11]) < 5]
    assert before == [line for line in fewer if float(line[:11]) < 5]
