"""Which addresses cannot be reached, and when that is worth a line in the log: at first, every so often, at the end.

Several connections to one broker fail together, and each tries again many times a minute; the operator wants one line
at once, the certainty that it still goes on, and the word that it is over. Pure: the caller logs what it gets.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamlog.client.config import Address

REMINDER_MS = 10_000
"""Between two lines about an address that stays unreachable."""


@dataclass(slots=True)
class Outage:
    """One address without an answer."""

    since_ms: int
    said_at_ms: int
    attempts: int = 0
    """That failed."""

    def lasted_s(self, now_ms: int) -> float:
        return (now_ms - self.since_ms) / 1000


class Outages:
    """See the module's essay. One for all connections of a client."""

    def __init__(self) -> None:
        self._by_address: dict[Address, Outage] = {}

    def on_failure(self, address: Address, now_ms: int) -> Outage | None:
        """An attempt to connect failed. The outage, if it is to be reported now."""
        outage = self._by_address.get(address)
        if outage is None:
            outage = self._by_address[address] = Outage(now_ms, now_ms, 1)
            return outage
        outage.attempts += 1
        if now_ms - outage.said_at_ms < REMINDER_MS:
            return None
        outage.said_at_ms = now_ms
        return outage

    def on_success(self, address: Address) -> Outage | None:
        """A connection was made. The outage that is over, if there was one."""
        return self._by_address.pop(address, None)
