"""From a failing run to a small one that fails in the same way: fewer faults first, then less of everything else.

Delta debugging (Zeller): take away chunks of the schedule, large ones first, and keep what still violates the same
invariant. Since chance has a stream for each use, the rest of the run stays nearly as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from streamlog.testing.simulator.network import NetworkKnobs
from streamlog.testing.simulator.setup import Setup
from streamlog.testing.simulator.stage import Outcome


def shrink(
    outcome: Outcome, perform: Callable[[Setup], Outcome], runs_max: int, tell: Callable[[str], None]
) -> Outcome:
    """A smaller run with a violation of an invariant that `outcome` violates; `outcome` itself when there is none."""
    wanted = numbers(outcome)
    best, runs, changed = outcome, 0, True
    while changed:
        changed = False
        for candidate in _smaller(best.setup):
            if runs == runs_max:
                return best
            runs += 1
            found = perform(candidate)
            if wanted & numbers(found):
                best, changed = found, True
                tell(f"{len(candidate.faults)} faults still violate it after {runs} runs")
                break
    return best


def numbers(outcome: Outcome) -> set[str]:
    """The numbers of the violated invariants."""
    return {violation.split(" ", 1)[0] for violation in outcome.violations}


def _smaller(setup: Setup) -> Iterator[Setup]:
    faults = setup.faults
    size = len(faults)
    while size:
        for start in range(0, len(faults), size):
            yield replace(setup, faults=faults[:start] + faults[start + size :])
        size //= 2
    default = Setup(setup.seed)
    if setup.producers > 1:
        yield replace(setup, producers=1)
    for name in ("consumers", "readers"):
        if getattr(setup, name):
            yield _with(setup, name, 0)
    for name in ("churn", "compacted", "trims", "moves"):
        if getattr(setup, name):
            yield _with(setup, name, False)
    if setup.partitions > 1:
        yield replace(setup, partitions=1)
    if setup.threads_in_steps:
        yield replace(setup, threads_in_steps=False)
    if setup.turns != "in turn":
        yield replace(setup, turns="in turn")
    if setup.network != NetworkKnobs():
        yield replace(setup, network=NetworkKnobs())
    for mapping in ("broker", "topic"):
        for key in getattr(setup, mapping):
            yield _with(setup, mapping, {k: v for k, v in getattr(setup, mapping).items() if k != key})
    for name in ("linger_ms", "batch_size_bytes", "value_bytes", "delivery_timeout_ms", "request_timeout_ms"):
        if getattr(setup, name) != getattr(default, name):
            yield _with(setup, name, getattr(default, name))
    if setup.sends > 20:
        yield replace(setup, sends=setup.sends // 2)


def _with(setup: Setup, name: str, value: Any) -> Setup:
    change: dict[str, Any] = {name: value}
    return replace(setup, **change)
