"""A controller from start to stop: a replica of the metadata quorum that is no broker (`process.roles=controller`).

    data directory -> listener bound -> metadata log -> accepting -> looking for a leader, or for votes

Nothing here waits for the others: a controller is ready when it takes part, whoever else does by then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from streamlog.broker import limits
from streamlog.broker.api.api_versions import advertise
from streamlog.broker.api.serve_controller import SERVED_BY_CONTROLLERS, ControllerDispatcher, ControllerHome
from streamlog.broker.config import BrokerConfig, Listener
from streamlog.broker.features import BOOTSTRAP_FEATURES
from streamlog.broker.log.checkpoint import META_PROPERTIES_FILE
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.metadata.controller import Controller
from streamlog.broker.metadata.image import MetadataDelta, MetadataImage
from streamlog.broker.raft.messages import Endpoint, ReplicaKey, VersionRange
from streamlog.broker.raft.quorum import Quorum, QuorumSettings
from streamlog.broker.raft.voters import VoterNode, VoterSet
from streamlog.broker.server import Server
from streamlog.env import Env, Scope
from streamlog.errors import UserError
from streamlog.wire.apis import ApiKey
from streamlog.wire.error_codes import KafkaError
from streamlog.wire.internal.metadata import FeatureLevelRecord

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ControllerNode:
    """A running controller."""

    env: Env
    node_id: int
    logs: LogDirectory
    server: Server
    quorum: Quorum
    controller: Controller
    scope: Scope
    listening: list[Listener]
    """Where it listens; ports as they turned out."""

    async def close(self) -> None:
        """Hand over, and stop so that the next start has nothing to recover."""
        await self.quorum.stop()
        await self.server.close()
        self.quorum.close()
        await self.scope.close()
        self.logs.close()

    async def abandon(self) -> None:
        """Stop as a crash would."""
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
    has_peers = len(config.quorum_voters) > 1 or bool(config.quorum_bootstrap)
    if has_peers and not env.storage.exists(f"{data_dir}/{META_PROPERTIES_FILE}"):
        raise UserError(
            f"The data directory {data_dir} is not formatted. Nodes of one quorum have to agree about their cluster "
            "before they start: run `streamlog format` for each of them, with one --cluster-id."
        )
    logs = LogDirectory.open(env, data_dir, node_id=config.node_id, now_ms=env.clock.wall_ms())
    scope = Scope("controller", on_failure)
    dispatcher = ControllerDispatcher()
    server = _new_server(env, config, dispatcher)
    quorum: Quorum | None = None
    try:
        listening = [
            listener._replace(port=await server.listen(listener.name, listener.host, listener.port))
            for listener in config.controller_listeners
        ]
        settings = quorum_settings(config, listening)
        quorum = Quorum.open(env, logs, Flusher(env, scope), scope, settings, env.clock.wall_ms())
        controller = Controller(env, quorum, _ignore, config.integer("metadata.log.max.record.bytes.between.snapshots"))
        controller.load()
        controller.on_active = lambda: _bootstrap(scope, controller)
        dispatcher.home = ControllerHome(
            env, config.node_id, logs.cluster_id, settings.listener, scope, quorum, controller
        )
        dispatcher.home.served_apis = advertise(ApiKey(key) for key in SERVED_BY_CONTROLLERS)
        await server.start()
        await quorum.start()
    except BaseException:
        if quorum is not None:
            quorum.close()
        await server.close()
        await scope.close()
        logs.abandon()
        raise
    return ControllerNode(env, config.node_id, logs, server, quorum, controller, scope, listening)


def quorum_settings(config: BrokerConfig, listening: list[Listener]) -> QuorumSettings:
    """What the quorum is told, given where this node listens."""
    listener = listening[0].name
    return QuorumSettings(
        node_id=config.node_id,
        listener=listener,
        endpoints=tuple(_endpoint(config, found) for found in listening),
        static_voters=VoterSet(
            VoterNode(ReplicaKey(number), (Endpoint(listener, host, port),), VersionRange(0, 0))
            for number, host, port in config.quorum_voters
        ),
        bootstrap=config.quorum_bootstrap,
        auto_join=config.boolean("controller.quorum.auto.join.enable"),
        election_timeout_ms=config.integer("controller.quorum.election.timeout.ms"),
        election_backoff_ms_max=config.integer("controller.quorum.election.backoff.max.ms"),
        fetch_timeout_ms=config.integer("controller.quorum.fetch.timeout.ms"),
        request_timeout_ms=config.integer("controller.quorum.request.timeout.ms"),
        retry_backoff_ms=config.integer("controller.quorum.retry.backoff.ms"),
    )


def _endpoint(config: BrokerConfig, listener: Listener) -> tuple[str, str, int]:
    told = config.advertised.get(listener.name, listener)
    host = told.host or ("127.0.0.1" if listener.host in ("", "0.0.0.0", "::") else listener.host)
    return listener.name, host, told.port or listener.port


def _new_server(env: Env, config: BrokerConfig, dispatcher: ControllerDispatcher) -> Server:
    return Server(
        env,
        dispatcher,
        request_bytes_max=config.integer("socket.request.max.bytes"),
        connections_max=min(config.integer("max.connections"), limits.CONNECTIONS_MAX),
        connections_per_ip_max=config.integer("max.connections.per.ip"),
        connection_idle_ms_max=config.integer("connections.max.idle.ms"),
    )


def _ignore(image: MetadataImage, delta: MetadataDelta) -> None:
    """A controller that is no broker has nothing that follows the metadata."""


def _bootstrap(scope: Scope, controller: Controller) -> None:
    """The first active controller of a cluster finalizes its features."""
    if not controller.image.features:
        scope.spawn("bootstrap features", _write_features(controller))


async def _write_features(controller: Controller) -> None:
    try:
        await controller.write_records(
            FeatureLevelRecord(name=name, feature_level=level) for name, level in BOOTSTRAP_FEATURES.items()
        )
    except KafkaError as error:
        log.info("features are left to the next controller: %s", error)
