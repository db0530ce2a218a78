"""What a handler knows about a request beyond its fields."""

from __future__ import annotations

from dataclasses import dataclass

from streamlog.broker.connection import Connection


@dataclass(slots=True)
class RequestContext:
    """Made for each request, and not changed after."""

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
