"""Whom this replica may ask, and when: one request at a time for each, a pause after each failure.

A peer is a voter, whose number is known, or a bootstrap server, an address with a number of our own below -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from streamlog.broker.raft.messages import Request

NEVER_MS: Final = 2**63 - 1

BACKOFF_MS_MAX: Final = 1000
"""A peer that is down is tried at least this often: its return must not go unnoticed for long."""

USELESS_MS_MAX: Final = 100
"""A peer that answers and has nothing to say yet (nobody leads, as far as it knows) is asked at least this often: it
may be the next leader, and until its followers fetch nothing is committed."""


class Peer(NamedTuple):
    id: int
    host: str
    port: int


class Pending(msgspec.Struct, frozen=True):
    number: int
    request: Request
    expires_at_ms: int


class Outbox:
    """Requests under way. A request that is forgotten here may still be answered: the answer is ignored then."""

    def __init__(self, request_timeout_ms: int, retry_backoff_ms: int) -> None:
        self._timeout_ms = request_timeout_ms
        self._backoff_ms = retry_backoff_ms
        self._pending: dict[int, Pending] = {}  # by peer id
        self._silent_until_ms: dict[int, int] = {}  # by peer id: it failed, leave it alone until then
        self._failures: dict[int, int] = {}  # by peer id: in a row
        self._numbers = 0

    def wait_ms(self, peer_id: int, now_ms: int) -> int:
        """0 if the peer can be asked now, else how long until that may be."""
        pending = self._pending.get(peer_id)
        if pending is not None:
            if pending.expires_at_ms > now_ms:
                return pending.expires_at_ms - now_ms
            self.fail(peer_id, pending.number, now_ms)
        silent_until_ms = self._silent_until_ms.get(peer_id, now_ms)
        if silent_until_ms > now_ms:
            return silent_until_ms - now_ms
        self._silent_until_ms.pop(peer_id, None)
        return 0

    def note_sent(self, peer_id: int, request: Request, now_ms: int) -> int:
        """Returns the request's number."""
        self._numbers += 1
        self._pending[peer_id] = Pending(self._numbers, request, now_ms + self._timeout_ms)
        return self._numbers

    def take(self, peer_id: int, number: int) -> Request | None:
        """The request that this answer belongs to; None when nobody waits for it any more."""
        pending = self._pending.get(peer_id)
        if pending is None or pending.number != number:
            return None
        del self._pending[peer_id]
        return pending.request

    def fail(self, peer_id: int, number: int, now_ms: int) -> Request | None:
        """The request failed or took too long. Returns it, None when nobody waits for it any more."""
        request = self.take(peer_id, number)
        if request is not None:
            self.pause(peer_id, now_ms)
        return request

    def pause(self, peer_id: int, now_ms: int) -> None:
        """Nothing came back, or what cannot be: ask again a little later, and later the more often it happens."""
        self._pause(peer_id, now_ms, BACKOFF_MS_MAX)

    def pause_a_little(self, peer_id: int, now_ms: int) -> None:
        """The peer is there, and its answer of no use."""
        self._pause(peer_id, now_ms, USELESS_MS_MAX)

    def _pause(self, peer_id: int, now_ms: int, pause_ms_max: int) -> None:
        failures = self._failures[peer_id] = self._failures.get(peer_id, 0) + 1
        self._silent_until_ms[peer_id] = now_ms + min(self._backoff_ms << min(failures - 1, 20), pause_ms_max)

    def note_success(self, peer_id: int) -> None:
        self._failures.pop(peer_id, None)

    def forgive(self, peer_id: int) -> None:
        """What it failed to say in another role counts no more: it can be asked at once."""
        self._failures.pop(peer_id, None)
        self._silent_until_ms.pop(peer_id, None)

    def busy_until_ms(self, now_ms: int) -> int:
        """When the last request under way expires; now or earlier when there is none."""
        return max((pending.expires_at_ms for pending in self._pending.values()), default=now_ms)

    def pick(self, peers: Sequence[Peer], start: int, now_ms: int) -> tuple[Peer | None, int]:
        """The first of `peers`, from number `start` on, that can be asked now; or None and how long until one can."""
        soonest_ms = NEVER_MS
        for number in range(len(peers)):
            peer = peers[(start + number) % len(peers)]
            wait_ms = self.wait_ms(peer.id, now_ms)
            if wait_ms == 0:
                return peer, 0
            soonest_ms = min(soonest_ms, wait_ms)
        return None, soonest_ms

    def forget_all(self) -> None:
        """A new role asks other things; old answers would only confuse it. Who failed stays left alone for a while."""
        self._pending.clear()
