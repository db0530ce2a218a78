"""Many runs, and what came of them: violations with the command that replays each, faults, situations reached.

A campaign fails when an invariant is violated, when a seed that is run twice, in another process with another hash
seed, gives another trace, and when a situation that the runs exist to reach was never reached.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from streamlog.testing.simulator.children import run_all, run_one, warm_up
from streamlog.testing.simulator.coverage import SITUATIONS
from streamlog.testing.simulator.run import run
from streamlog.testing.simulator.script import render
from streamlog.testing.simulator.setup import Setup, draw
from streamlog.testing.simulator.shrink import shrink
from streamlog.testing.simulator.stage import Outcome

TWICE_ONE_IN: Final = 100
"""One seed in so many is run twice."""

COVERAGE_SEEDS_MIN: Final = 300
"""A campaign of so many has to reach every situation."""

SHRINK_RUNS_MAX: Final = 150

SHOWN_MAX: Final = 5
"""Failing seeds that are shown in full."""


@dataclass(slots=True)
class Campaign:
    tell: Callable[[str], None]
    seeds: int = 0
    steps: int = 0
    virtual_ms: int = 0
    acked: int = 0
    twice: int = 0
    failed: list[Outcome] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    """In how many seeds each situation was reached."""
    real_s: float = 0.0

    def run(self, seeds: Iterable[int], jobs: int) -> None:
        began = time.monotonic()
        warm_up()
        for outcome in run_all((draw(seed) for seed in seeds), jobs):
            self._add(outcome)
            if outcome.setup.seed % TWICE_ONE_IN == 0 and not outcome.violations:
                self._run_again(outcome)
        self.real_s = time.monotonic() - began

    def _add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.steps += outcome.steps
        self.virtual_ms += outcome.virtual_ms
        self.acked += outcome.acked
        for kind, count in outcome.faults.items():
            self.faults[kind] = self.faults.get(kind, 0) + count
        for name in outcome.reached:
            self.reached[name] = self.reached.get(name, 0) + 1
        if outcome.violations:
            self.failed.append(outcome)
            self.tell(f"seed {outcome.setup.seed}: {outcome.violations[0]}")

    def _run_again(self, outcome: Outcome) -> None:
        """In another interpreter, with other addresses and other hashes."""
        seed = outcome.setup.seed
        self.twice += 1
        digest = digest_elsewhere(seed)
        if digest != outcome.digest:
            outcome.violations.append(f"83 determinism: trace {outcome.digest}, and {digest} the second time")
            self.failed.append(outcome)
            self.tell(f"seed {seed}: {outcome.violations[-1]}")

    @property
    def missing(self) -> list[str]:
        """Situations that nobody reached, in a campaign that is large enough to reach all."""
        if self.seeds < COVERAGE_SEEDS_MIN:
            return []
        return [name for name in SITUATIONS if name not in self.reached]

    @property
    def is_good(self) -> bool:
        return not self.failed and not self.missing

    def summary(self) -> dict[str, Any]:
        return {
            "seeds": self.seeds,
            "seconds": round(self.real_s, 1),
            "virtual_hours": round(self.virtual_ms / 3_600_000, 2),
            "callbacks": self.steps,
            "acknowledged": self.acked,
            "run_twice": self.twice,
            "faults": dict(sorted(self.faults.items())),
            "situations": {name: self.reached.get(name, 0) for name in sorted({*SITUATIONS, *self.reached})},
            "missing": self.missing,
            "violations": {str(one.setup.seed): one.violations for one in self.failed},
        }

    def report(self) -> None:
        """Say what came of it."""
        tell, summary = self.tell, self.summary()
        tell(
            f"{self.seeds} seeds in {self.real_s:.0f} s: {summary['virtual_hours']} hours, {self.steps} callbacks, "
            f"{self.acked} records acknowledged, {sum(self.faults.values())} faults, {self.twice} run twice"
        )
        tell("faults: " + ", ".join(f"{kind} {count}" for kind, count in summary["faults"].items()))
        tell("reached, in seeds: " + ", ".join(f"{name} {count}" for name, count in summary["situations"].items()))
        for name in self.missing:
            tell(f"NEVER REACHED: {name}")
        for outcome in self.failed[:SHOWN_MAX]:
            seed = outcome.setup.seed
            for violation in outcome.violations[:SHOWN_MAX]:
                tell(f"seed {seed}: {violation}")
            tell(f"    replay: make sim SEED={seed}    smaller: make sim SEED={seed} SHRINK=1")
        tell(f"{len(self.failed)} seeds violate an invariant" if self.failed else "no invariant is violated")


def digest_elsewhere(seed: int) -> str:
    """The trace of a seed, as another process sees it."""
    command = [sys.executable, "-m", "streamlog.testing.simulator", "--seed", str(seed), "--digest"]
    environment = {**os.environ, "PYTHONHASHSEED": str(1 + seed % 4_000_000_000)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    return done.stdout.strip() or done.stderr.strip()[-200:]


def replay(setup: Setup, tell: Callable[[str], None], *, events: bool) -> Outcome:
    """Run one setup and show what happens."""
    outcome = run(setup, tell if events else None)
    tell(render(setup))
    tell(f"trace {outcome.digest}, {outcome.steps} callbacks, {outcome.virtual_ms} ms, {outcome.acked} acknowledged")
    for violation in outcome.violations:
        tell(f"VIOLATION {violation}")
    return outcome


def shrink_seed(setup: Setup, tell: Callable[[str], None]) -> Outcome:
    """Make a failing run smaller and show the script that is left."""
    outcome = run_one(setup)
    if not outcome.violations:
        tell(f"seed {setup.seed} violates nothing")
        return outcome
    small = shrink(outcome, run_one, SHRINK_RUNS_MAX, tell)
    tell(f"# {small.violations[0]}")
    tell(render(small.setup))
    return small


def write_summary(campaign: Campaign, path: str) -> None:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(campaign.summary(), file, indent=1)
