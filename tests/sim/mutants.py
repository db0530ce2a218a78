"""Planted bugs: does the simulator catch what it is there for?

Each mutant changes a few words of production code, in this process and its children only, and seeds have to find a
violation within the budget. `make mutants` plants all of them and writes docs/mutants.md. A mutant whose words are not
there any more fails: it has to follow the code.
"""

from __future__ import annotations
import __future__

import importlib
import inspect
import logging
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, Final, get_args

from streamlog.testing.simulator.children import run_all
from streamlog.testing.simulator.setup import Shape, draw

LIST: Final = Path(__file__).parent / "mutants.txt"
PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "mutants.md"

BUDGET_SEEDS: Final = 100
"""Seeds within which a mutant has to be caught, unless it says otherwise."""

SECONDS_MAX: Final = 60.0
"""Of one run: a mutant may well spin."""


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    target: str
    """module:function or module:Class.method, below streamlog."""
    old: str
    new: str
    budget: int = BUDGET_SEEDS
    shape: Shape = "broker"
    """Of the runs that have to catch it."""


def read_mutants() -> list[Mutant]:
    """All planted bugs, as mutants.txt has them."""
    return [_parse(block) for block in LIST.read_text().split("\n\n") if not block.startswith("#")]


def _parse(block: str) -> Mutant:
    name, target, *rest = block.strip().splitlines()
    old = "\n".join(line[2:] for line in rest if line.startswith("- "))
    new = "\n".join(line[2:] for line in rest if line.startswith("+ "))
    said = dict(line.split(" ", 1) for line in rest if line.startswith(("budget ", "shape ")))
    shape = next(one for one in get_args(Shape) if one == said.get("shape", "broker"))
    return Mutant(name, target, old, new, int(said.get("budget", BUDGET_SEEDS)), shape)


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Production code with the bug in it. Whoever imported the function has the bug too."""
    function = _find(mutant.target)
    sound = function.__code__
    function.__code__ = _changed(function, mutant)
    try:
        yield
    finally:
        function.__code__ = sound


def _find(target: str) -> FunctionType:
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(f"streamlog.{module}")
    for name in path.split("."):
        found = vars(found)[name]
    function = getattr(found, "__func__", None) or getattr(found, "fget", None) or found
    assert isinstance(function, FunctionType), f"{target} is no function"
    return function


def _changed(function: FunctionType, mutant: Mutant) -> Any:
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(mutant.old) == 1, f"'{mutant.old}' is not once in {mutant.target}; the mutant has to follow"
    names = dict(function.__globals__)
    flags = __future__.annotations.compiler_flag
    exec(compile(source.replace(mutant.old, mutant.new), mutant.target, "exec", flags), names)
    made: Any = names[function.__name__]
    made = getattr(made, "__func__", None) or getattr(made, "fget", None) or made
    return made.__code__


@dataclass(frozen=True, slots=True)
class Kill:
    mutant: Mutant
    seeds: int | None
    """After how many seeds it was caught; None: it was not."""
    violation: str


def hunt(mutant: Mutant, jobs: int) -> Kill:
    """Run seeds until one violates something."""
    with planted(mutant):
        outcomes = run_all((draw(seed, mutant.shape) for seed in range(mutant.budget)), jobs, seconds_max=SECONDS_MAX)
        for count, outcome in enumerate(outcomes, 1):
            if outcome.violations:
                return Kill(mutant, count, outcome.violations[0])
    return Kill(mutant, None, "")


def page(kills: Sequence[Kill]) -> str:
    """docs/mutants.md."""
    caught = sum(kill.seeds is not None for kill in kills)
    lines = [
        "# Planted bugs, and what catches them",
        "",
        "Written by `make mutants`: each bug of `tests/sim/mutants.txt` is planted in the production code, then seeds",
        "run until an invariant is violated, at most as many as the budget says.",
        "",
        f"{caught} of {len(kills)} are caught.",
        "",
        "| bug | in runs of a | caught by | after seeds | budget |",
        "|---|---|---|---|---|",
    ]
    for kill in kills:
        by = " ".join(kill.violation.split(":")[0].split()[:2]) or "nothing"
        lines.append(
            f"| {kill.mutant.name} | {kill.mutant.shape} | {by} | {kill.seeds or '-'} | {kill.mutant.budget} |"
        )
    return "\n".join([*lines, ""])


def main(wanted: Sequence[str]) -> None:
    logging.disable()
    kills = []
    for mutant in read_mutants():
        if wanted and not any(word in mutant.name for word in wanted):
            continue
        began = time.monotonic()
        kill = hunt(mutant, jobs=2)
        kills.append(kill)
        verdict = f"{kill.seeds} seeds: {kill.violation[:150]}" if kill.seeds else "NOT CAUGHT"
        print(f"{mutant.name}: {verdict} ({time.monotonic() - began:.0f} s)", flush=True)
    if not wanted:
        PAGE.write_text(page(kills))
    sys.exit(any(kill.seeds is None for kill in kills))


if __name__ == "__main__":
    main(sys.argv[1:])
