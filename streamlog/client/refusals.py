"""Says that a cluster refuses writes for now, and when it takes them again.

The producer tries again for two minutes before anything fails. Who waits for it should know after two seconds what for:
a disk that is full, replicas that are missing. One line at either end, whatever the number of partitions and batches.
"""

from __future__ import annotations

import logging
from typing import Final

from streamlog.client.values import TopicPartition

log = logging.getLogger(__name__)

PATIENCE_MS: Final = 2_000
"""Leaders move and coordinators load within this time; that is not worth a word."""


class RefusalWatch:
    """All partitions of a producer share one."""

    def __init__(self) -> None:
        self.is_refused = False
        """Whether to report writes that succeed, too."""
        self._since_ms = 0  # of the first refusal without a success since
        self._said = False

    def refused(self, partition: TopicPartition, why: str, now_ms: int) -> None:
        """A batch was refused, and will be sent again."""
        if not self.is_refused:
            self.is_refused, self._since_ms, self._said = True, now_ms, False
        elif not self._said and now_ms - self._since_ms >= PATIENCE_MS:
            self._said = True
            log.warning("waiting: %s is refused by its broker, trying again: %s", partition, why)

    def accepted(self, now_ms: int) -> None:
        """A batch was written after all."""
        self.is_refused = False
        if self._said:
            log.warning("going on: the broker takes writes again after %.1f s", (now_ms - self._since_ms) / 1000)
