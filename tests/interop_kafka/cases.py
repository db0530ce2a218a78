"""The catalogue of what is asked of two brokers. A case is a function of a peer that returns what it saw."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tests.interop_kafka.peers import Peer, Seen

Case: TypeAlias = Callable[[Peer], Seen]

CASES: dict[str, Case] = {}
"""Every case by its name, once the modules `cases_*` are imported."""


def case(function: Case) -> Case:
    """Put a function into the catalogue under its own name."""
    cases(**{function.__name__: function})
    return function


def cases(**variants: Case) -> None:
    """Put small ones into the catalogue."""
    assert not CASES.keys() & variants.keys(), "two cases of one name"
    CASES.update(variants)
