"""Runs that once violated an invariant, and what is said about scripts in general."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamlog.testing.simulator.children import run_one
from streamlog.testing.simulator.script import parse, render
from streamlog.testing.simulator.setup import draw

SCRIPTS = sorted((Path(__file__).parent.parent / "scripts" / "sim").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_violates_nothing_any_more(path: Path) -> None:
    """Every bug that the simulator has found stays found."""
    assert run_one(parse(path.read_text())).violations == []


def test_script_says_everything_about_a_run() -> None:
    """What is drawn from a seed, written down and read again is the same run."""
    for seed in range(300):
        assert parse(render(draw(seed))) == draw(seed)


def test_script_with_a_fault_that_does_not_exist_is_refused() -> None:
    """The message names the line and what there is instead."""
    with pytest.raises(ValueError, match=r"'100 explode broker': there is no fault 'explode'; there are kill"):
        parse("seed 1\n100 explode broker\n")
