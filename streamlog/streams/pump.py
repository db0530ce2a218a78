"""Gives lanes their turns on the event loop.

A lane that has events would run until it had none; the heartbeat, the fetches and the other lanes would wait. So a lane
runs on grants: so many events, then it stands in line again. One grant is given per iteration of the loop, and the size
of a lane's grants follows from how long its last ones took.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

GRANT_NS_TARGET = 5_000_000
"""How long one grant should keep the loop. A heartbeat or a fetch response waits no longer than this plus one event."""

GRANT_EVENTS_FIRST = 1
"""Nothing is known of a lane's events yet. Were several handed out that each keep the loop for a second, no heartbeat
would leave meanwhile: the worker would lose its session, begin again, and lose it again at the same events."""
GRANT_EVENTS_MAX = 4096
"""At 1 us an event this is the target duration; a larger grant could only be wrong."""

BLOCKED_S = 0.1
BREATH_S = 0.01
"""Between two grants is one iteration of the loop, and a heartbeat takes several: to leave, to be answered, to be
understood. So when events keep the loop for as long as this, it is left alone for a moment after them."""


class GrantSize:
    """How many events a lane gets at once: grows while grants are short, shrinks when one took too long."""

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events = GRANT_EVENTS_FIRST

    def learn(self, used: int, took_ns: int) -> None:
        """`used` events of the last grant took so long."""
        if took_ns > 2 * GRANT_NS_TARGET:
            self.events = max(1, min(self.events, used) // 2)
        elif took_ns < GRANT_NS_TARGET and used >= self.events:
            self.events = min(GRANT_EVENTS_MAX, self.events * 2)


class Granted(Protocol):
    """What stands in line."""

    in_line: bool
    """Owned by the pump: whether it stands in line already."""

    def grant(self) -> None:
        """Wake up and use one grant, during the next iteration of the loop."""
        ...


class Pump:
    """The line. `has_room` says whether outputs may be produced; `on_blocked` is told when that stopped the line."""

    def __init__(
        self, has_room: Callable[[], bool] = lambda: True, on_blocked: Callable[[], None] = lambda: None
    ) -> None:
        self._line: deque[Granted] = deque()
        self._has_room = has_room
        self._on_blocked = on_blocked
        self._turned_at = 0.0  # by the loop's clock
        self._scheduled = False  # a turn is scheduled on the loop, or the line is blocked and `resume` will schedule it

    def offer(self, lane: Granted) -> None:
        """`lane` could use a grant."""
        if lane.in_line:
            return
        lane.in_line = True
        self._line.append(lane)
        if not self._scheduled:
            self.resume()

    def resume(self) -> None:
        """There is room (again)."""
        self._scheduled = True
        self._turn_soon(asyncio.get_running_loop())

    def _turn_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turned_at = loop.time()
        loop.call_soon(self._turn)

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._line:
            self._scheduled = False
            return
        if loop.time() - self._turned_at > BLOCKED_S:
            loop.call_later(BREATH_S, self._turn_soon, loop)
            return
        if not self._has_room():
            self._on_blocked()
            return
        lane = self._line.popleft()
        lane.in_line = False
        lane.grant()
        self._turn_soon(loop)
