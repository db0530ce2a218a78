"""What a handler knows about a request beyond its fields."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import msgspec

from streamlog.broker.connection import Completion, Connection
from streamlog.wire.message import Response


class RequestContext(msgspec.Struct):
    """Made for each request, and not changed after; as a dataclass it would cost three times as much."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str
    """What the client calls itself; "" if it does not."""
    connection: Connection

    @property
    def client_host(self) -> str:
        """The peer's address as text."""
        return self.connection.peer_host

    @property
    def listener(self) -> str:
        """Name of the listener the request came in by."""
        return self.connection.listener


@dataclass(slots=True)
class Exclusive:
    """A reply that is worked on in turns of the loop. The connection handles nothing else meanwhile, so that the order
    of requests is kept, and the work goes on when the client leaves."""

    work: Coroutine[object, object, Response | None]


@dataclass(slots=True)
class Large:
    """A response so large that it is made in turns of the loop, and encoded in a thread."""

    work: Coroutine[object, object, Response]


@dataclass(slots=True)
class Deferred:
    """A reply whose handler need not be woken in between: cheaper than a coroutine, for the path that has to be.

    Not changed after, and not frozen: that would triple what making one costs.
    """

    done: Completion
    """Completes, with whatever result, when the response can be given."""
    finish: Callable[[], Response | None]
    """Called once after that."""
