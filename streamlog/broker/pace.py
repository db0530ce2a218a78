"""How much to ask of one peer at a time: no more than comes in time.

An answer is all or nothing. What has come of one that takes too long is thrown away, and asking for as much again gets
no further, for ever. So less is asked for after each that was late, and more again when answers come easily.
"""

from __future__ import annotations

from typing import Final

ASKED_BYTES_MIN: Final = 4096
"""A page. A link that does not carry it in time carries no elections either."""

LESS: Final = 4
"""After a late answer. Each costs a timeout, so the right size is to be found in a few."""

EASILY: Final = 4
"""An answer that took this part of its time may be twice as large and still come."""


class Pace:
    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.bytes_max = bytes_max
        """What to ask for."""

    def on_late(self) -> None:
        """Nothing came in time."""
        self.bytes_max = max(self.bytes_max // LESS, min(ASKED_BYTES_MIN, self._bytes_max))

    def on_answer(self, size_bytes: int, took_ms: int, patience_ms: int) -> None:
        """That much came after `took_ms`; `patience_ms` would have been in time. Small answers say nothing."""
        if size_bytes * 2 >= self.bytes_max and took_ms * EASILY <= patience_ms:
            self.bytes_max = min(self.bytes_max * 2, self._bytes_max)
