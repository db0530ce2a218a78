"""Says that a broker does not answer, although the connection to it stands: it is frozen, or so is its machine.

A request is given up after half a minute, and only then is there an error to report. Who waits should know earlier whom
for. One line for all connections of a client to a broker, and one when it answers again.
"""

from __future__ import annotations

import logging
from typing import Final

from streamlog.client.config import Address

log = logging.getLogger(__name__)

SILENT_MS: Final = 5_000
"""How long an answer may take, beyond what its request allows the broker to wait, before it is worth a word. Syncs of a
busy disk and elections stay below."""


class SilenceWatch:
    """One for all connections of a client."""

    def __init__(self) -> None:
        self._silent: set[Address] = set()  # of which it was said; looked into, never iterated

    def on_silent(self, address: Address, what: str, waited_ms: int, left_ms: int) -> None:
        """A request has waited for its answer for long, and will for at most `left_ms` more."""
        if address not in self._silent:
            self._silent.add(address)
            log.warning(
                "broker=%s is connected and has sent no %s for %.0f s; giving it up to %.0f s more",
                *(address, what, waited_ms / 1000, left_ms / 1000),
            )

    def on_answer(self, address: Address) -> None:
        """A broker that was silent has answered, on any connection."""
        if address in self._silent:
            self._silent.remove(address)
            log.warning("broker=%s answers again", address)
