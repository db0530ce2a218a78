"""A controller from start to stop: a replica of the metadata quorum that is no broker (`process.roles=controller`).

    data directory -> listener bound -> metadata log -> accepting -> looking for a leader, or for votes

Nothing here waits for the others: a controller is ready when it takes part, whoever else does by then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streamlog.broker.assembly import (
    new_home,
    quorum_settings,
    refuse_unformatted,
)
from streamlog.broker.config import BrokerConfig, Listener
from streamlog.broker.controller_channel import ControllerChannel
from streamlog.broker.controller_listeners import ControllerListeners
from streamlog.broker.controller_registration import keep_registered
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.metadata.controller import Controller
from streamlog.broker.raft.quorum import Quorum
from streamlog.broker.server import Server
from streamlog.env import Env, Scope


@dataclass(slots=True)
class ControllerNode:
    """A running controller."""

    env: Env
    node_id: int
    logs: LogDirectory
    server: Server
    quorum: Quorum
    controller: Controller
    channel: ControllerChannel
    """To whichever controller is active."""
    scope: Scope
    listening: list[Listener]
    """Where it listens; ports as they turned out."""

    async def close(self) -> None:
        """Hand over, and stop so that the next start has nothing to recover."""
        await self.quorum.stop()
        self.channel.close()
        await self.server.close()
        self.quorum.close()
        await self.scope.close()
        self.logs.close()

    async def abandon(self) -> None:
        """Stop as a crash would."""
        self.channel.close()
        self.quorum.close()
        await self.server.close()
        await self.scope.close()
        self.logs.abandon()


async def start_controller(
    env: Env,
    config: BrokerConfig,
    data_dir: str,
    *,
    on_failure: Callable[[BaseException], None] | None = None,
) -> ControllerNode:
    """Start a controller on `data_dir`. Returns when it takes part in the quorum, which may have no leader yet.

    `on_failure` is called when the quorum's disk has failed; the node is to be closed then.
    Raises UserError (directory in use or not formatted), EnvironmentFailure (port taken, disk), PartitionOffline.
    """
    refuse_unformatted(env, config, data_dir)
    logs = LogDirectory.open(env, data_dir, node_id=config.node_id, now_ms=env.clock.wall_ms())
    scope = Scope("controller", on_failure)
    quorum: Quorum | None = None
    listeners: ControllerListeners | None = None
    try:
        listeners = await ControllerListeners.open(env, config)
        settings = quorum_settings(config, listeners.listening)
        quorum = Quorum.open(env, logs, Flusher(env, scope), scope, settings, env.clock.wall_ms())
        controller = Controller(env, quorum, config.integer("metadata.log.max.record.bytes.between.snapshots"))
        controller.load()
        home = new_home(env, config, logs, scope, controller)
        channel = ControllerChannel(env, quorum, config.node_id, home)
        await listeners.start(home)
        await quorum.start()
        registered = keep_registered(env, config, listeners.listening, controller, channel)
        scope.spawn("register this controller", registered)
    except BaseException:
        if quorum is not None:
            quorum.close()
        if listeners is not None:
            await listeners.server.close()
        await scope.close()
        logs.abandon()
        raise
    return ControllerNode(
        env, config.node_id, logs, listeners.server, quorum, controller, channel, scope, listeners.listening
    )
