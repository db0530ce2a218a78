"""Planted bugs: a few words of production code that are changed, in this process and its children only.

A mutant whose words are not there any more fails: it has to follow the code. `hunt.py` has seeds look for them.
"""

from __future__ import annotations
import __future__

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, Final, get_args

from streamlog.testing.simulator.setup import Shape

LIST: Final = Path(__file__).parent / "mutants.txt"

BUDGET_SEEDS: Final = 100
"""Seeds within which a mutant has to be caught, unless it says otherwise."""


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
    suite: str = ""
    """Who else is to catch it, if no simulated run can."""
    note: str = ""
    """Why it is not caught, where that is known."""


def read_mutants() -> list[Mutant]:
    """All planted bugs, as mutants.txt has them."""
    return [_parse(block) for block in LIST.read_text().split("\n\n") if not block.startswith("#")]


def _parse(block: str) -> Mutant:
    name, target, *rest = block.strip().splitlines()
    old = "\n".join(line[2:] for line in rest if line.startswith("- "))
    new = "\n".join(line[2:] for line in rest if line.startswith("+ "))
    said = dict(line.split(" ", 1) for line in rest if line.startswith(("budget ", "shape ", "suite ", "note ")))
    shape = next(one for one in get_args(Shape) if one == said.get("shape", "broker"))
    budget, suite, note = int(said.get("budget", BUDGET_SEEDS)), said.get("suite", ""), said.get("note", "")
    return Mutant(name, target, old, new, budget, shape, suite, note)


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
