"""Planted bugs follow the code, and some of them are caught here and now; `make mutants` plants all."""

from __future__ import annotations

import pytest

from streamlog.broker.log.flush import FlushWork
from tests.sim.mutants import Mutant, hunt, planted, read_mutants

QUICK = ["a flush syncs no file", "offsets are acknowledged one too high", "sequences are not checked"]


@pytest.mark.parametrize("mutant", read_mutants(), ids=lambda mutant: str(mutant.name))
def test_planted_bug_follows_the_code(mutant: Mutant) -> None:
    """The words it takes out are there, once."""
    with planted(mutant):
        pass


def test_planting_changes_the_function_and_is_undone() -> None:
    """Nothing of a mutant stays behind."""
    sound = FlushWork.run.__code__
    with planted(next(one for one in read_mutants() if one.name == "a flush syncs no file")):
        assert FlushWork.run.__code__ is not sound
    assert FlushWork.run.__code__ is sound


@pytest.mark.parametrize("name", QUICK)
def test_planted_bug_is_caught(name: str) -> None:
    """A few seeds are enough for these."""
    mutant = next(one for one in read_mutants() if one.name == name)
    assert hunt(mutant, jobs=2).seeds is not None
