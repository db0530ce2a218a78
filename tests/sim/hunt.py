"""Does the simulator catch what it is there for? Plants bug after bug, and runs seeds until an invariant is violated.

`make mutants` hunts all of them and writes docs/mutants.md. What is known is kept in target/mutants.json as it is found
out: a hunt that was interrupted goes on where it was. When the code has changed meanwhile it begins again, with the
seed that noticed the bug before. Quick ones come first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from streamlog.testing.simulator.children import NO_END, run_all, run_one
from streamlog.testing.simulator.invariants import INVARIANTS
from streamlog.testing.simulator.setup import Setup, draw
from tests.sim.mutants import Mutant, planted, read_mutants

ROOT: Final = Path(__file__).parent.parent.parent
PAGE: Final = ROOT / "docs" / "mutants.md"
KEPT: Final = ROOT / "target" / "mutants.json"

SECONDS_MAX: Final = 120.0
"""Of one run: a mutant may well spin. Or the machine is busy, so no end in this time is no catch."""

BUDGET_MAX: Final = 1_000
"""No mutant has a larger one: a bug that takes more seeds wants a better swarm."""

SAVE_S: Final = 5.0
"""Between two savings of what is known."""


@dataclass(slots=True)
class Hunt:
    """What is known of one mutant."""

    code: str = ""
    """Version of the code. What is known of another one is no more than a hint."""
    mutant: str = ""
    """Version of the mutant."""
    clean: list[int] = field(default_factory=list)
    """Seeds that noticed nothing."""
    seed: int | None = None
    """One that did."""
    hint: int | None = None
    """One that did with other code."""
    violation: str = ""
    seconds: float = 0.0

    def went_through(self, mutant: Mutant) -> bool:
        return self.seed is not None or len(self.clean) >= mutant.budget


@dataclass(slots=True)
class Hunts:
    """What is known of all mutants, by name; as the file has it."""

    path: Path
    by_name: dict[str, Hunt] = field(default_factory=dict)
    saved_s: float = 0.0

    @classmethod
    def load(cls, path: Path) -> Hunts:
        known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return cls(path, {name: Hunt(**said) for name, said in known.items()})

    def save(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        draft = self.path.with_suffix(".tmp")
        draft.write_text(json.dumps({name: asdict(hunt) for name, hunt in self.by_name.items()}, indent=0))
        os.replace(draft, self.path)
        self.saved_s = time.monotonic()

    def of(self, mutant: Mutant, code: str) -> Hunt:
        """What is known of it and still holds. `code`: its version; empty: any will do."""
        version = hashlib.blake2b(str(replace(mutant, note="")).encode(), digest_size=8).hexdigest()
        before = self.by_name.get(mutant.name, Hunt())
        if before.mutant == version and code in ("", before.code):
            return before
        hint = before.hint if before.seed is None else before.seed
        self.by_name[mutant.name] = Hunt(code, version, hint=hint)
        return self.by_name[mutant.name]

    def effort(self, mutant: Mutant) -> int:
        """How many seeds it will take, by what is known."""
        known = self.by_name.get(mutant.name, Hunt())
        return mutant.budget if known.seed is None and known.hint is None else 1


def code_version() -> str:
    """A hash of everything that a seed's meaning depends on."""
    whole = hashlib.blake2b(sys.version.encode(), digest_size=8)
    for path in sorted((ROOT / "streamlog").rglob("*.py")):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def hunt(mutant: Mutant, jobs: int, known: Hunt, hunts: Hunts | None = None, seeds: int = BUDGET_MAX) -> Hunt:
    """Run seeds until one violates something, which it does not without the bug. Goes on from what is known, and adds
    to it. `seeds`: at most, when the budget allows more."""
    began = time.monotonic()
    done = set(known.clean)

    def setups() -> Iterator[Setup]:
        for seed in sorted(range(min(mutant.budget, seeds)), key=lambda seed: seed != known.hint):
            if known.seed is not None:
                return
            if seed not in done:
                yield draw(seed, mutant.shape)

    with planted(mutant):
        for outcome in run_all(setups(), jobs, seconds_max=SECONDS_MAX):
            if any(NO_END in violation for violation in outcome.violations):
                pass  # nobody knows: this seed is tried again another time
            elif not outcome.violations:
                known.clean.append(outcome.setup.seed)
            elif known.seed is None or outcome.setup.seed < known.seed:
                known.seed, known.violation = outcome.setup.seed, outcome.violations[0]
            if hunts is not None and time.monotonic() > hunts.saved_s + SAVE_S:
                known.seconds += time.monotonic() - began
                began = time.monotonic()
                hunts.save()
    if known.seed is not None and run_one(draw(known.seed, mutant.shape), seconds_max=SECONDS_MAX).violations:
        known.clean.append(known.seed)
        known.seed, known.violation = None, ""
        return hunt(mutant, jobs, known, hunts, seeds)
    known.seconds += time.monotonic() - began
    if hunts is not None:
        hunts.save()
    return known


def page(mutants: Sequence[Mutant], hunts: Hunts) -> str:
    """docs/mutants.md."""
    counted = [one for one in mutants if not one.suite]
    caught = [one for one in counted if hunts.by_name[one.name].seed is not None]
    missed = [one for one in counted if one not in caught and hunts.by_name[one.name].went_through(one)]
    left = [one for one in counted if one not in caught and one not in missed]
    others = [one for one in mutants if one.suite]
    lines = [
        "# Planted bugs, and what catches them",
        "",
        "Written by `make mutants`: each bug of `tests/sim/mutants.txt` is planted in the production code, then seeds",
        "of one shape of run (from 0, at most as many as the budget says) run until an invariant is violated. The",
        "seed told is one that notices, and that notices nothing without the bug.",
        "",
        f"{len(caught)} of {len(counted)} are caught.",
        "",
        "| | planted bugs |",
        "|---|---|",
        f"| caught within the budget | {len(caught)} |",
        f"| not caught by the whole budget | {len(missed)} |",
        f"| not caught, and not hunted with the whole budget | {len(left)} |",
        f"| not for the simulator, caught by other tests, not counted | {len(others)} |",
        "",
        "| planted bug | where | caught by invariant | at seed | of | shape |",
        "|---|---|---|---|---|---|",
        *(_row(one, hunts.by_name[one.name]) for one in caught),
        *_section("Not caught:", [_missed_row(one, hunts.by_name[one.name]) for one in missed]),
        *_section("Not hunted with the whole budget:", [_missed_row(one, hunts.by_name[one.name]) for one in left]),
    ]
    if others:
        lines += [
            "",
            "Not for the simulator, and not counted:",
            "",
            "| planted bug | where | caught by |",
            "|---|---|---|",
        ]
        lines += [f"| {one.name} | `{_place(one)}` | {one.suite} |" for one in others]
    return "\n".join([*lines, ""])


def _section(title: str, rows: Sequence[str]) -> list[str]:
    """Of bugs that nobody noticed; nothing, when there are none."""
    heads = ["| planted bug | where | after seeds | of | shape | why |", "|---|---|---|---|---|---|"]
    return ["", title, "", *heads, *rows] if rows else []


def _row(mutant: Mutant, found: Hunt) -> str:
    return (
        f"| {mutant.name} | `{_place(mutant)}` | {_invariant(found.violation)} "
        f"| {found.seed} | {mutant.budget} | {mutant.shape} |"
    )


def _missed_row(mutant: Mutant, known: Hunt) -> str:
    return (
        f"| {mutant.name} | `{_place(mutant)}` | {len(known.clean)} | {mutant.budget} "
        f"| {mutant.shape} | {mutant.note} |"
    )


def _place(mutant: Mutant) -> str:
    return mutant.target.partition(":")[2]


def _invariant(violation: str) -> str:
    number = int(violation.split()[0])
    return f"{number} {INVARIANTS[number].name}" if number in INVARIANTS else violation[:60]


def main() -> None:
    parser = argparse.ArgumentParser(description="Plant bugs and see which seeds notice.")
    parser.add_argument("wanted", nargs="*", help="parts of names; all, when there are none")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--seeds", type=int, default=BUDGET_MAX, help="at most, of each; less than some budgets")
    parser.add_argument("--any-version", action="store_true", help="keep what other versions of the code have shown")
    parser.add_argument("--kept", type=Path, default=KEPT, help="where what is known is kept")
    asked = parser.parse_args()
    logging.disable()
    code = "" if asked.any_version else code_version()
    hunts = Hunts.load(asked.kept)
    mutants = read_mutants()
    sought = [one for one in mutants if not one.suite]
    if asked.wanted:
        sought = [one for one in sought if any(word in one.name for word in asked.wanted)]
    sought.sort(key=hunts.effort)
    bad = False
    for mutant in sought:
        found = hunt(mutant, asked.jobs, hunts.of(mutant, code), hunts, asked.seeds)
        said = (
            f"NOT CAUGHT in {len(found.clean)} of {mutant.budget}"
            if found.seed is None
            else f"seed {found.seed}: {found.violation[:150]}"
        )
        bad = bad or found.seed is None
        print(f"{mutant.name}: {said} ({found.seconds:.0f} s)", flush=True)
    if not asked.wanted:
        PAGE.write_text(page(mutants, hunts))
    sys.exit(bad)


if __name__ == "__main__":
    main()
