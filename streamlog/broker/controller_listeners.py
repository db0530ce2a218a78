"""The listeners by which other nodes reach this one's controller."""

from __future__ import annotations

from collections.abc import Callable

from streamlog.broker.assembly import listen, new_server
from streamlog.broker.config import BrokerConfig, Listener
from streamlog.broker.controller_home import ControllerHome
from streamlog.broker.server import Server
from streamlog.env import Env


class ControllerListeners:
    def __init__(self, server: Server, listening: list[Listener], serve_for: Callable[[ControllerHome], None]) -> None:
        """Made by `open`."""
        self.server = server
        self.listening = listening
        """Ports as they turned out."""
        self._serve_for = serve_for

    @classmethod
    async def open(cls, env: Env, config: BrokerConfig) -> ControllerListeners:
        """Bind. Raises EnvironmentFailure when an address cannot be had; nothing is left open then."""
        # Not at the top: a quorum of one needs none of it, and starts a tenth faster without.
        from streamlog.broker.api.serve_controller import ControllerDispatcher

        dispatcher = ControllerDispatcher()
        server = new_server(env, config, dispatcher)
        try:
            return cls(
                server, [await listen(server, found) for found in config.controller_listeners], dispatcher.serve_for
            )
        except BaseException:
            await server.close()
            raise

    async def start(self, home: ControllerHome) -> None:
        """Begin to accept."""
        self._serve_for(home)
        await self.server.start()
