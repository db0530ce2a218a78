"""Planted bugs follow the code, and some of them are caught here and now; `make mutants` plants all."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamlog.broker.log.flush import FlushWork
from tests.sim.hunt import Hunt, Hunts, hunt, page
from tests.sim.mutants import Mutant, planted, read_mutants

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
    assert hunt(mutant, 2, Hunt()).seed is not None


def _quick() -> Mutant:
    return next(one for one in read_mutants() if one.name == QUICK[0])


def test_a_hunt_goes_on_where_it_was(tmp_path: Path) -> None:
    """Seeds that are known to notice nothing are not run again, and what is found out is kept."""
    mutant = _quick()
    kept = tmp_path / "kept" / "mutants.json"
    hunts = Hunts.load(kept)
    hunts.of(mutant, "code").clean += [0, 1]
    hunts.save()
    hunts = Hunts.load(kept)
    found = hunt(mutant, 1, hunts.of(mutant, "code"), hunts)
    assert found.clean == [0, 1]
    assert found.seed == 2
    assert Hunts.load(kept).of(mutant, "code") == found


def test_what_other_code_has_shown_does_not_count(tmp_path: Path) -> None:
    """A seed means something else as soon as anything has changed."""
    hunts = Hunts.load(tmp_path / "mutants.json")
    hunts.of(_quick(), "code").clean.append(0)
    assert hunts.of(_quick(), "other code").clean == []


def test_a_seed_that_noticed_before_comes_first(tmp_path: Path) -> None:
    """With other code it will most likely notice again, and then one run is enough."""
    hunts = Hunts.load(tmp_path / "mutants.json")
    hunts.of(_quick(), "code").seed = 3
    found = hunt(_quick(), 1, hunts.of(_quick(), "other code"), hunts)
    assert (found.seed, found.clean) == (3, [])


def test_the_page_counts_what_is_caught_and_lists_what_is_not(tmp_path: Path) -> None:
    """All three kinds are told, with the seed and the budget."""
    mutants = [Mutant(name, "module:Class.function", "old", "new", 30) for name in ("one", "other", "third")]
    hunts = Hunts.load(tmp_path / "mutants.json")
    hunts.by_name = {
        "one": Hunt(seed=17, violation="86 flushed-is-on-disk: it is not"),
        "other": Hunt(clean=[0, 1]),
        "third": Hunt(clean=list(range(30))),
    }
    told = page(mutants, hunts)
    assert "1 of 3 are caught" in told
    assert "| one | `Class.function` | 86 flushed-is-on-disk | 17 | 30 | broker |" in told
    missed, left = told.index("Not caught:"), told.index("Not hunted with the whole budget:")
    assert missed < told.index("| third | `Class.function` | 30 | 30 | broker |  |") < left
    assert left < told.index("| other | `Class.function` | 2 | 30 | broker |  |")


def test_a_hunt_may_end_before_the_budget() -> None:
    """Where time is short: what is left of the budget is for another day."""
    harmless = Mutant("harmless", "broker.log.flush:FlushWork.run", "file.fdatasync()", "file.fdatasync(); pass")
    found = hunt(harmless, 2, Hunt(), seeds=2)
    assert (found.seed, sorted(found.clean)) == (None, [0, 1])
    assert not found.went_through(harmless)
