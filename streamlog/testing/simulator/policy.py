"""Who goes next. A policy chooses between nodes; in a node the order is asyncio's own, first in, first out."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from streamlog.testing.simulator.owner import Owner


class Policy(Protocol):
    def choose(self, runnable: Sequence[Owner]) -> Owner:
        """One of `runnable`, which are at least two, in the order of their numbers."""
        ...


class InTurn:
    """Fair: everybody gets a turn. For the phase that must make progress, where an unfair choice would be a lie."""

    def __init__(self) -> None:
        self._last = -1

    def choose(self, runnable: Sequence[Owner]) -> Owner:
        chosen = next((owner for owner in runnable if owner.number > self._last), runnable[0])
        self._last = chosen.number
        return chosen


class RandomTurns:
    """Any order is as likely as any other."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def choose(self, runnable: Sequence[Owner]) -> Owner:
        return runnable[int(self._random.random() * len(runnable))]


class Priorities:
    """Somebody is always faster than somebody else, for a while (probabilistic concurrency testing, ASPLOS 2010).

    Finds bugs that need one node to stay behind for long, which a coin toss at every step hardly ever produces.
    """

    def __init__(self, random: Random, change_every: int) -> None:
        """`change_every`: about how many choices it takes until a node is moved to another place."""
        self._random = random
        self._change = 1 / change_every
        self._rank: dict[int, float] = {}

    def choose(self, runnable: Sequence[Owner]) -> Owner:
        rank, random = self._rank, self._random
        for owner in runnable:
            if owner.number not in rank:
                rank[owner.number] = random.random()
        chosen = max(runnable, key=lambda owner: rank[owner.number])
        if random.random() < self._change:
            rank[chosen.number] = random.random()
        return chosen
