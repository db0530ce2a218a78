"""Says that a cluster refuses something for now, and when it takes it again.

A producer tries again for two minutes before anything fails, an admin for one. Who waits for them should know after two
seconds what for: a disk that is full, replicas that are missing. One line at either end, whatever the number of tries.
"""

from __future__ import annotations

import logging
from typing import Final

log = logging.getLogger(__name__)

PATIENCE_MS: Final = 2_000
"""Leaders move and coordinators load within this time; that is not worth a word."""


class RefusalWatch:
    """One for all partitions of a producer, or for one operation."""

    def __init__(self) -> None:
        self.is_refused = False
        """Whether `accepted` has to be called."""
        self._since_ms = 0  # of the first refusal without a success since
        self._said = False

    def refused(self, what: str, why: str, now_ms: int) -> None:
        """`what` was refused, and will be tried again."""
        if not self.is_refused:
            self.is_refused, self._since_ms, self._said = True, now_ms, False
        elif not self._said and now_ms - self._since_ms >= PATIENCE_MS:
            self._said = True
            log.warning("%s: refused for now, trying again: %s", what, why)

    def accepted(self, now_ms: int) -> None:
        """It went through."""
        if self.is_refused and self._said:
            log.warning("going on after %.1f s", (now_ms - self._since_ms) / 1000)
        self.is_refused = False
