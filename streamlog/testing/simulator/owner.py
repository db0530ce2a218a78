"""Whose callback is it: every handle of the simulated loop belongs to one incarnation of a node, or to the world.

The owner travels in a context variable, so whatever a node starts, and whatever that starts in turn, is the node's.
When an incarnation is killed its owner is dead: its handles are dropped, unrun and uncancelled, because a process that
gets SIGKILL runs no `finally`. Paused (SIGSTOP), its handles pile up while the time goes on.
"""

from __future__ import annotations

from asyncio import Handle
from collections import deque
from contextvars import Context, ContextVar

PPM = 1_000_000


class NodeDead(BaseException):
    """This code belongs to an incarnation that is dead and just does not know it yet.

    Not an Exception: nothing in a node may catch it and go on.
    """


class MonotonicClock:
    """A machine's monotonic clock: its own zero, and its own idea of how long a second is."""

    __slots__ = ("_rate", "_true_ns", "_zero_ns")

    def __init__(self, zero_ns: int = 0, drift_ppm: int = 0) -> None:
        self._zero_ns = zero_ns
        self._true_ns = 0
        self._rate = PPM + drift_ppm

    def read(self, true_ns: int) -> int:
        """What the clock shows at `true_ns`."""
        return self._zero_ns + (true_ns - self._true_ns) * self._rate // PPM

    def when(self, shown_ns: int) -> int:
        """The first true time at which the clock shows `shown_ns`."""
        return self._true_ns - ((self._zero_ns - shown_ns) * PPM // self._rate)

    def set_drift(self, drift_ppm: int, true_ns: int) -> None:
        """Run faster or slower from now on. What it shows does not jump."""
        self._zero_ns, self._true_ns = self.read(true_ns), true_ns
        self._rate = PPM + drift_ppm


class Owner:
    """One incarnation as the loop sees it."""

    __slots__ = ("alive", "clock", "context", "cost_ns", "free_at_ns", "name", "number", "paused", "ready", "turns")

    def __init__(self, name: str, number: int, clock: MonotonicClock, cost_ns: int = 0) -> None:
        self.name = name
        self.number = number  # unique in the run; part of the trace
        self.clock = clock
        self.cost_ns = cost_ns  # of a callback, on a machine that is doing well
        self.alive = True
        self.paused = False
        self.free_at_ns = 0  # busy until then with what it has begun
        self.turns = 0  # callbacks that have run
        self.ready: deque[Handle] = deque()
        self.context = Context()  # for callbacks that the world makes on the node's behalf
        self.context.run(OWNER.set, self)


OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)
"""None: the world (network, disks, nemesis, checkers)."""

WORLD = Context()
"""The context of callbacks that belong to nobody."""
