"""One broker from start to stop: opens the data directory, the quorum and every partition, then the listeners.

    data directory -> metadata log -> leader of a new epoch -> registered -> partitions open -> unfenced -> listening

Nothing is served before everything is there, so a client never sees half of a cluster. Stopping goes the other way:
no new requests, the acknowledgements under way, checkpoints, the clean marker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from streamlog.broker import limits
from streamlog.broker.api.api_versions import advertise
from streamlog.broker.api.serve import SERVED, ApiDispatcher
from streamlog.broker.broker import Broker
from streamlog.broker.config import BrokerConfig, Listener
from streamlog.broker.coordinator.groups import GroupCoordinator
from streamlog.broker.coordinator.offsets_topic import follow_metadata, open_groups
from streamlog.broker.features import BOOTSTRAP_FEATURES, SUPPORTED_FEATURES
from streamlog.broker.fetch_sessions import FetchSessions
from streamlog.broker.housekeeping import Housekeeping
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.metadata.controller import Controller
from streamlog.broker.metadata.decision import ControllerSettings
from streamlog.broker.metadata.image import MetadataDelta, MetadataImage
from streamlog.broker.metadata.overseer import Overseer
from streamlog.broker.partitions import Partitions
from streamlog.broker.producer_ids import ProducerIds
from streamlog.broker.raft.quorum import Quorum, QuorumSettings
from streamlog.broker.server import Server
from streamlog.env import Env, Scope
from streamlog.wire.apis import ApiKey
from streamlog.wire.internal.metadata import FeatureLevelRecord
from streamlog.wire.messages.broker_heartbeat import BrokerHeartbeatRequest
from streamlog.wire.messages.broker_registration import BrokerRegistrationRequest, Feature
from streamlog.wire.messages.broker_registration import Listener as RegisteredListener

log = logging.getLogger(__name__)

PLAINTEXT_PROTOCOL = 0
"""SecurityProtocol's number in registrations."""


@dataclass(slots=True)
class Node:
    """A running broker."""

    env: Env
    broker: Broker
    server: Server
    quorum: Quorum
    scope: Scope
    listening: list[Listener]
    """Where it listens; ports as they turned out."""

    async def close(self) -> None:
        """Stop so that the next start has nothing to recover. Raises nothing that the disk could be blamed for."""
        await self.server.close()
        await self.broker.groups.close()
        self.broker.partitions.close()
        self.quorum.close()
        await self.scope.close()
        # Beforehand and in threads: thousands of syncs one after the other would take minutes.
        await self.broker.flusher.checkpoint_all(self.broker.logs.logs.values())
        epoch = self.broker.image.brokers[self.broker.node_id].epoch
        self.broker.logs.close(broker_epoch=epoch)

    async def abandon(self) -> None:
        """Stop as a crash would: nothing is saved, recovery has to do it."""
        await self.server.close()
        await self.broker.groups.close()
        self.quorum.close()
        await self.scope.close()
        self.broker.logs.abandon()


async def start_node(
    env: Env,
    config: BrokerConfig,
    data_dir: str,
    *,
    on_failure: Callable[[BaseException], None] | None = None,
) -> Node:
    """Start a broker on `data_dir`. Returns when it serves.

    `on_failure` is called when a task that the broker cannot live without has failed; the node is to be closed then.
    Raises UserError (directory in use, bad setting), EnvironmentFailure (port taken, disk), PartitionOffline (the
    metadata log is damaged). Nothing is left open then.
    """
    now_ms = env.clock.wall_ms()
    logs = LogDirectory.open(env, data_dir, node_id=config.node_id, now_ms=now_ms)
    scope = Scope("broker", on_failure)
    server: Server | None = None
    try:
        broker, quorum = await _start_broker(env, config, logs, scope)
        server = _new_server(env, config, broker)
        listening = [await _listen(server, listener) for listener in config.listeners]
        await _register(broker, config, listening)
        broker.served_apis = advertise(ApiKey(key) for key in SERVED)
        Housekeeping(broker).start()
        await server.start()
    except BaseException:
        if server is not None:
            await server.close()
        await scope.close()
        logs.abandon()
        raise
    return Node(env, broker, server, quorum, scope, listening)


async def _start_broker(env: Env, config: BrokerConfig, logs: LogDirectory, scope: Scope) -> tuple[Broker, Quorum]:
    now_ms = env.clock.wall_ms()
    flusher = Flusher(env, scope)
    quorum = Quorum.open(env, logs, flusher, scope, QuorumSettings(config.node_id), now_ms)
    partitions = Partitions(env, config.node_id, logs, flusher, scope, config.topic_defaults)
    groups: GroupCoordinator  # needs the controller; nothing is published before both are there

    def publish(image: MetadataImage, delta: MetadataDelta) -> None:
        partitions.publish(image, delta)
        follow_metadata(groups, delta)

    controller = Controller(env, quorum, publish, config.integer("metadata.log.max.record.bytes.between.snapshots"))
    settings = ControllerSettings(
        cluster_id=logs.cluster_id,
        num_partitions=config.integer("num.partitions"),
        default_replication_factor=config.integer("default.replication.factor"),
        delete_topic_enable=config.boolean("delete.topic.enable"),
        topic_defaults=config.topic_defaults,
    )
    groups = open_groups(env, config, controller, settings, partitions, scope)
    controller.load()
    await quorum.start()
    controller.begin_publishing()
    if not controller.image.features:
        await controller.write_records(
            FeatureLevelRecord(name=name, feature_level=level) for name, level in BOOTSTRAP_FEATURES.items()
        )
    broker = Broker(
        env=env,
        config=config,
        node_id=config.node_id,
        cluster_id=logs.cluster_id,
        scope=scope,
        logs=logs,
        flusher=flusher,
        partitions=partitions,
        controller=controller,
        settings=settings,
        producer_ids=ProducerIds(controller, config.node_id),
        groups=groups,
        fetch_sessions=FetchSessions(
            config.integer("max.incremental.fetch.session.cache.slots"), env.entropy.randrange
        ),
        fetch_bytes_max=config.integer("fetch.max.bytes"),
    )
    return broker, quorum


def _new_server(env: Env, config: BrokerConfig, broker: Broker) -> Server:
    return Server(
        env,
        ApiDispatcher(broker),
        request_bytes_max=config.integer("socket.request.max.bytes"),
        connections_max=min(config.integer("max.connections"), limits.CONNECTIONS_MAX),
        connections_per_ip_max=config.integer("max.connections.per.ip"),
        connection_idle_ms_max=config.integer("connections.max.idle.ms"),
    )


async def _listen(server: Server, listener: Listener) -> Listener:
    port = await server.listen(listener.name, listener.host, listener.port)
    return listener._replace(port=port)


async def _register(broker: Broker, config: BrokerConfig, listening: list[Listener]) -> None:
    """Register this incarnation, open what the cluster has placed here, and declare it ready."""
    controller, logs = broker.controller, broker.logs
    overseer = Overseer(
        broker.env,
        controller,
        broker.settings,
        broker.scope,
        session_timeout_ms=config.integer("broker.session.timeout.ms"),
        own_broker_id=config.node_id,
    )
    overseer.start()
    registered = await overseer.register(
        BrokerRegistrationRequest(
            broker_id=config.node_id,
            cluster_id=logs.cluster_id,
            incarnation_id=broker.env.entropy.uuid4(),
            listeners=[_advertise(config, listener) for listener in listening],
            features=[
                Feature(name=name, min_supported_version=levels.low, max_supported_version=levels.high)
                for name, levels in SUPPORTED_FEATURES.items()
            ],
            rack=config.text("broker.rack") or None,
            log_dirs=[logs.directory_id],
            previous_broker_epoch=-1 if logs.clean_shutdown_epoch is None else logs.clean_shutdown_epoch,
        )
    )
    await broker.partitions.publish_all(controller.image)
    broker.groups.follow()
    await overseer.heartbeat(
        BrokerHeartbeatRequest(
            broker_id=config.node_id,
            broker_epoch=registered.broker_epoch,
            current_metadata_offset=controller.image.applied_offset,
        )
    )


def _advertise(config: BrokerConfig, listener: Listener) -> RegisteredListener:
    told = config.advertised.get(listener.name, listener)
    host = told.host or ("127.0.0.1" if listener.host in ("", "0.0.0.0", "::") else listener.host)
    return RegisteredListener(
        name=listener.name, host=host, port=told.port or listener.port, security_protocol=PLAINTEXT_PROTOCOL
    )
