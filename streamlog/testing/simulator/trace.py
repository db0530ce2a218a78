"""What happened in a simulated run: a hash that proves two runs equal, and the last events for people to read.

Every callback adds its time and its owner to the hash, every event of meaning (a segment, a sync, a fault, an
acknowledgement) its text. So two runs with one digest did the same things at the same times, and two runs that
should be equal and are not can be compared line by line (`steps`).
"""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Callable

EVENTS_KEPT = 50_000
"""Lines that a failing run can show."""

STEPS_BUFFERED = 8_192
"""Callbacks that go into the hash at once: a call of the hash function for each would cost a tenth of a run."""


class Trace:
    """The record of one run. Texts must hold no addresses, pids or wall times of the real machine."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        """`tell` gets every line as it happens."""
        self.events: deque[str] = deque(maxlen=EVENTS_KEPT)
        self.step_count = 0
        self._tell = tell
        self._hash = hashlib.blake2b(digest_size=8)
        self._steps: array[int] = array("q")

    def step(self, now_ns: int, owner: int) -> None:
        """A callback of `owner` runs."""
        self.step_count += 1
        steps = self._steps
        steps.append(now_ns)
        steps.append(owner)
        if len(steps) >= STEPS_BUFFERED:
            self._absorb()

    def note(self, now_ns: int, who: str, what: str) -> None:
        """Something of meaning happened."""
        line = f"{now_ns / 1e9:11.6f} {who:<10} {what}"
        self.events.append(line)
        self._absorb()
        self._hash.update(line.encode())
        if self._tell is not None:
            self._tell(line)

    def _absorb(self) -> None:
        self._hash.update(self._steps.tobytes())
        del self._steps[:]

    def digest(self) -> str:
        """16 hexadecimal digits: equal for equal runs."""
        self._absorb()
        return self._hash.hexdigest()
