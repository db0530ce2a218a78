"""Many runs, and what came of them: violations with the command that replays each, faults, situations reached.

A campaign fails when an invariant is violated, when a seed that is run twice, in another process with another hash
seed, gives another trace, and when a situation that the runs exist to reach was never reached.

A large one goes on for hours. It is made of blocks, short runs and a few long ones, and what is known after each is
kept in a file; started again it goes on behind the last block that the file knows.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from itertools import chain, islice
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any, Final, get_args

from streamlog.testing.simulator.children import run_all, run_one, warm_up
from streamlog.testing.simulator.coverage import RARE_SITUATIONS, SITUATIONS
from streamlog.testing.simulator.run import run
from streamlog.testing.simulator.script import render
from streamlog.testing.simulator.setup import Setup, Size, draw
from streamlog.testing.simulator.shrink import shrink
from streamlog.testing.simulator.stage import Outcome

TWICE_ONE_IN: Final = 100
"""One seed in so many is run twice."""

COVERAGE_SEEDS_MIN: Final = 300
"""A campaign of so many has to reach every situation that is not rare."""

RARE_SEEDS_MIN: Final = 50_000
"""A campaign of so many, which is what `make campaign` runs, has to reach the rare ones too. In 7,638 runs the rarest
was reached once."""

SHRINK_RUNS_MAX: Final = 150

SHOWN_MAX: Final = 5
"""Failing seeds that are shown in full."""

SECONDS_MAX: Final[dict[Size, float]] = {"short": 300.0, "usual": 300.0, "long": 3_600.0}
"""Of real time, on a machine that has other things to do. A usual run takes a fraction of a second, a long one twenty
times as long."""

SIZES: Final[tuple[Size, ...]] = get_args(Size)

BLOCK_SEEDS: Final = 200
"""Short runs between two times that a large campaign is kept."""


@dataclass(slots=True)
class Campaign:
    """Plain figures, all of them, so that they can be kept and gone on with."""

    tell: Callable[[str], None]
    seeds: int = 0
    runs: dict[str, int] = field(default_factory=dict)
    """By size and shape: "short cluster"."""
    steps: int = 0
    virtual_ms: int = 0
    acked: int = 0
    twice: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    """In how many seeds each situation was reached."""
    violations: dict[str, list[str]] = field(default_factory=dict)
    """By what `make sim` needs to run it again: "SEED=17 SIZE=short"."""
    fixed: dict[str, list[str]] = field(default_factory=dict)
    """Of the same kind: what earlier versions violated, and the newest one does not."""
    versions: dict[str, int] = field(default_factory=dict)
    """Of the code and the interpreter -> how many seeds it ran."""
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def run(self, seeds: Iterable[int], jobs: int, size: Size = "usual") -> None:
        """Run these seeds, and some of them twice."""
        began, spent = time.monotonic(), _cpu_s()
        warm_up()
        again: list[Outcome] = []
        setups = (draw(seed, size=size) for seed in seeds)
        for outcome in run_all(setups, jobs, seconds_max=SECONDS_MAX[size]):
            self._add(outcome)
            if outcome.setup.seed % TWICE_ONE_IN == 0 and not outcome.violations:
                again.append(outcome)
        self._run_again(again, size)
        self.wall_s += time.monotonic() - began
        self.cpu_s += _cpu_s() - spent

    def run_large(self, path: Path, short: Iterable[int], long: Iterable[int], jobs: int, share: int) -> None:
        """Go on with the campaign that is kept in `path`: blocks of short runs, each with `share` long ones."""
        self.load(path)
        self._try_failed_again(jobs)
        version = version_of_code()
        short_left, long_left = _remaining(self.runs, "short", short), _remaining(self.runs, "long", long)
        while True:
            before = self.seeds
            self.run(islice(short_left, BLOCK_SEEDS), jobs, "short")
            self.run(islice(long_left, share), jobs, "long")
            if self.seeds == before:
                return
            self.versions[version] = self.versions.get(version, 0) + self.seeds - before
            self.save(path)

    def _try_failed_again(self, jobs: int) -> None:
        """The code may have changed since."""
        failed = {_name(setup): setup for setup in map(_named, self.violations)}
        for outcome in run_all(failed.values(), jobs, seconds_max=SECONDS_MAX["long"]):
            name = _name(outcome.setup)
            if outcome.violations:
                self.violations[name] = outcome.violations
            else:
                self.fixed[name] = self.violations.pop(name)

    def _add(self, outcome: Outcome) -> None:
        self.seeds += 1
        name = f"{outcome.setup.size} {outcome.setup.shape}"
        self.runs[name] = self.runs.get(name, 0) + 1
        self.steps += outcome.steps
        self.virtual_ms += outcome.virtual_ms
        self.acked += outcome.acked
        for kind, count in outcome.faults.items():
            self.faults[kind] = self.faults.get(kind, 0) + count
        for situation in outcome.reached:
            self.reached[situation] = self.reached.get(situation, 0) + 1
        if outcome.violations:
            self._blame(outcome.setup, outcome.violations)

    def _blame(self, setup: Setup, violations: list[str]) -> None:
        self.violations[_name(setup)] = violations
        self.tell(f"{_name(setup)}: {violations[0]}")

    def _run_again(self, outcomes: list[Outcome], size: Size) -> None:
        """In another interpreter, with other addresses and other hashes."""
        self.twice += len(outcomes)
        digests = digests_elsewhere([outcome.setup.seed for outcome in outcomes], size)
        for outcome, digest in zip(outcomes, digests, strict=True):
            if digest != outcome.digest:
                text = f"83 determinism: trace {outcome.digest}, and {digest} the second time"
                self._blame(outcome.setup, [text])

    @property
    def missing(self) -> list[str]:
        """Situations that nobody reached, in a campaign that is large enough to reach all."""
        if self.seeds < COVERAGE_SEEDS_MIN:
            return []
        wanted = SITUATIONS if self.seeds < RARE_SEEDS_MIN else (*SITUATIONS, *RARE_SITUATIONS)
        return [name for name in wanted if name not in self.reached]

    @property
    def is_good(self) -> bool:
        return not self.violations and not self.missing

    def summary(self) -> dict[str, Any]:
        figures = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "tell"}
        situations = {
            name: self.reached.get(name, 0) for name in sorted({*SITUATIONS, *RARE_SITUATIONS, *self.reached})
        }
        return figures | {
            "faults": dict(sorted(self.faults.items())),
            "reached": situations,
            "missing": self.missing,
            "wall_s": round(self.wall_s, 1),
            "cpu_s": round(self.cpu_s, 1),
        }

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(self.summary(), indent=1), encoding="utf-8")
        draft.replace(path)

    def load(self, path: Path) -> None:
        """Go on from the figures in a file, if there is one."""
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            for one in fields(self):
                if one.name in kept:
                    setattr(self, one.name, kept[one.name])
            self.reached = {name: count for name, count in self.reached.items() if count}

    def report(self) -> None:
        """Say what came of it."""
        tell, summary = self.tell, self.summary()
        tell(
            f"{self.seeds} seeds in {self.wall_s:.0f} s ({self.cpu_s:.0f} s of CPU): {self.virtual_ms / 3_600_000:.2f} "
            f"hours, {self.steps} callbacks, {self.acked} records acknowledged, {sum(self.faults.values())} faults, "
            f"{self.twice} run twice"
        )
        tell("faults: " + ", ".join(f"{kind} {count}" for kind, count in summary["faults"].items()))
        tell("reached, in seeds: " + ", ".join(f"{name} {count}" for name, count in summary["reached"].items()))
        for name in self.missing:
            tell(f"NEVER REACHED: {name}")
        for name, violations in islice(self.violations.items(), SHOWN_MAX):
            for violation in violations[:SHOWN_MAX]:
                tell(f"{name}: {violation}")
            tell(f"    replay: make sim {name}    smaller: make sim {name} SHRINK=1")
        tell(f"{len(self.violations)} seeds violate an invariant" if self.violations else "no invariant is violated")


def _name(setup: Setup) -> str:
    return f"SEED={setup.seed}" + (f" SIZE={setup.size}" if setup.size != "usual" else "")


def _named(name: str) -> Setup:
    """The inverse of `_name`."""
    said = dict(part.split("=") for part in name.split())
    sizes: dict[str, Size] = {one: one for one in SIZES}
    return draw(int(said["SEED"]), size=sizes[said.get("SIZE", "usual")])


def _remaining(runs: dict[str, int], size: Size, seeds: Iterable[int]) -> Iterator[int]:
    done = sum(count for name, count in runs.items() if name.startswith(size))
    return islice(seeds, done, None)


def _cpu_s() -> float:
    used = [getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def version_of_code() -> str:
    """What ran, as far as git knows, and on what."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return f"{done.stdout.strip() or 'no git'}, CPython {platform.python_version()}"


def digests_elsewhere(seeds: list[int], size: Size = "usual") -> list[str]:
    """The traces of seeds, as another process sees them."""
    if not seeds:
        return []
    named = chain.from_iterable(("--seed", str(seed)) for seed in seeds)
    command = [sys.executable, "-m", "streamlog.testing.simulator", "--digest", "--size", size, *named]
    environment = {**os.environ, "PYTHONHASHSEED": str(1 + seeds[0] % 4_000_000_000)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    digests = done.stdout.split()
    return digests if len(digests) == len(seeds) else [done.stderr.strip()[-200:] or "no answer"] * len(seeds)


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
