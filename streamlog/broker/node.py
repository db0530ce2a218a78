"""One broker from start to stop: opens the data directory, the quorum and every partition, then the listeners.

    data directory -> metadata log -> registered -> metadata read up to there -> partitions open -> unfenced -> serving

The node may be a controller too (`process.roles=broker,controller`), alone or with others, or follow the metadata log
of controllers elsewhere (`process.roles=broker`). It does the same in all three cases: it asks the active controller,
which answers at once where it is this node and the quorum has no other.

Nothing is served before everything is there, so a client never sees half of a cluster. Stopping goes the other way:
no new requests, the acknowledgements under way, checkpoints, the clean marker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from streamlog.broker.api.api_versions import advertise
from streamlog.broker.api.serve import SERVED, ApiDispatcher
from streamlog.broker.assembly import (
    advertise_listener,
    listen,
    new_home,
    new_server,
    quorum_settings,
    refuse_unformatted,
)
from streamlog.broker.broker import Broker
from streamlog.broker.config import BrokerConfig, Listener
from streamlog.broker.controller_channel import ControllerChannel
from streamlog.broker.controller_listeners import ControllerListeners
from streamlog.broker.coordinator.offsets_topic import follow_metadata, open_groups
from streamlog.broker.features import SUPPORTED_FEATURES
from streamlog.broker.fetch_sessions import FetchSessions
from streamlog.broker.housekeeping import Housekeeping
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.metadata.controller import Controller
from streamlog.broker.metadata.image import MetadataDelta, MetadataImage
from streamlog.broker.partitions import Partitions
from streamlog.broker.producer_ids import ProducerIds
from streamlog.broker.raft.quorum import Quorum
from streamlog.broker.replication.read_replica import check_selector
from streamlog.broker.replication.roles import Replication
from streamlog.broker.replication.settings import replication_settings
from streamlog.broker.server import Server
from streamlog.env import Env, Scope
from streamlog.errors import EnvironmentFailure
from streamlog.wire.apis import ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.broker_heartbeat import BrokerHeartbeatRequest, BrokerHeartbeatResponse
from streamlog.wire.messages.broker_registration import (
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    Feature,
)
from streamlog.wire.messages.broker_registration import Listener as RegisteredListener

log = logging.getLogger(__name__)

PLAINTEXT_PROTOCOL: Final = 0
"""SecurityProtocol's number in registrations."""

NEVER_STOPPED: Final = -1
"""What a registration says when the broker did not stop cleanly, or has never run."""

HEARTBEAT_MS: Final = 500
"""Pause between heartbeats."""


@dataclass(slots=True)
class Node:
    """A running broker."""

    env: Env
    broker: Broker
    server: Server
    quorum: Quorum
    scope: Scope
    listening: list[Listener]
    """Where it listens for clients; ports as they turned out."""
    controllers: ControllerListeners | None
    """Where it listens for other nodes that ask its controller."""

    async def close(self) -> None:
        """Stop so that the next start has nothing to recover. Raises nothing that the disk could be blamed for."""
        await self.server.close()
        await self.broker.groups.close()
        self.broker.partitions.close()
        self.broker.channel.close()
        if self.controllers is not None:
            if not self.broker.config.is_alone:
                await self.quorum.stop()
            await self.controllers.server.close()
        self.quorum.close()
        await self.scope.close()
        # Beforehand and in threads: thousands of syncs one after the other would take minutes.
        await self.broker.flusher.checkpoint_all(self.broker.logs.logs.values())
        self.broker.logs.close(broker_epoch=self.broker.producer_ids.broker_epoch)

    async def abandon(self) -> None:
        """Stop as a crash would: nothing is saved, recovery has to do it."""
        self.broker.channel.close()
        await self.server.close()
        if self.controllers is not None:
            await self.controllers.server.close()
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
    """Start a broker on `data_dir`. Returns when it serves: with a quorum of several, once one of them leads.

    `on_failure` is called when a task that the broker cannot live without has failed; the node is to be closed then.
    Raises UserError (directory in use or not formatted, bad setting), EnvironmentFailure (port taken, disk, refused by
    the cluster), PartitionOffline (the metadata log is damaged). Nothing is left open then, nor after a cancellation.
    """
    refuse_unformatted(env, config, data_dir)
    logs = LogDirectory.open(env, data_dir, node_id=config.node_id, now_ms=env.clock.wall_ms())
    scope = Scope("broker", on_failure)
    controllers: ControllerListeners | None = None
    broker: Broker | None = None
    server: Server | None = None
    try:
        if config.controller_listeners:
            controllers = await ControllerListeners.open(env, config)
        broker = await _start_broker(env, config, logs, scope, controllers)
        server = new_server(env, config, ApiDispatcher(broker))
        listening = [await listen(server, listener) for listener in config.listeners]
        broker.served_apis = advertise(ApiKey(key) for key in SERVED)
        await _join(broker, config, listening)
        Housekeeping(broker).start()
        await server.start()
    except BaseException:
        if server is not None:
            await server.close()
        if controllers is not None:
            await controllers.server.close()
        if broker is not None:
            broker.channel.close()
            broker.quorum.close()
        await scope.close()
        logs.abandon()
        raise
    return Node(env, broker, server, broker.quorum, scope, listening, controllers)


async def _start_broker(
    env: Env, config: BrokerConfig, logs: LogDirectory, scope: Scope, controllers: ControllerListeners | None
) -> Broker:
    """Everything but what clients reach. The quorum has begun; nobody has been told of anything yet."""
    flusher = Flusher(env, scope)
    settings = quorum_settings(config, [] if controllers is None else controllers.listening)
    quorum = Quorum.open(env, logs, flusher, scope, settings, env.clock.wall_ms())
    replication = Replication(env, config.node_id, scope, flusher, replication_settings(config))
    partitions = Partitions(env, config.node_id, logs, flusher, scope, config.topic_defaults, replication)
    controller = Controller(env, quorum, config.integer("metadata.log.max.record.bytes.between.snapshots"))
    home = new_home(env, config, logs, scope, controller) if config.is_controller else None
    channel = ControllerChannel(env, quorum, config.node_id, home)
    replication.ask_controller = channel.request
    groups = open_groups(env, config, controller, channel, partitions, scope)
    broker = Broker(
        env=env,
        config=config,
        node_id=config.node_id,
        cluster_id=logs.cluster_id,
        scope=scope,
        logs=logs,
        flusher=flusher,
        partitions=partitions,
        replication=replication,
        quorum=quorum,
        controller=controller,
        channel=channel,
        producer_ids=ProducerIds(channel, config.node_id),
        groups=groups,
        fetch_sessions=FetchSessions(
            config.integer("max.incremental.fetch.session.cache.slots"), env.entropy.randrange
        ),
        fetch_bytes_max=config.integer("fetch.max.bytes"),
        sends_to_near_replicas=check_selector(config.text("replica.selector.class")),
    )
    try:
        controller.load()
        if controllers is not None:
            assert home is not None, "only controllers have listeners for them"
            await controllers.start(home)
        await quorum.start()
    except BaseException:
        channel.close()
        quorum.close()
        raise
    return broker


async def _join(broker: Broker, config: BrokerConfig, listening: list[Listener]) -> None:
    """Register this incarnation, open what the cluster has placed here, and be declared ready."""
    epoch = await _register(broker, config, listening)
    broker.producer_ids.broker_epoch = epoch
    await broker.quorum.learned(epoch)
    meanwhile: list[MetadataDelta] = []
    broker.controller.begin_publishing(lambda image, delta: meanwhile.append(delta))
    await broker.partitions.publish_all(broker.image)
    broker.groups.follow()

    def publish(image: MetadataImage, delta: MetadataDelta) -> None:
        broker.partitions.publish(image, delta)
        follow_metadata(broker.groups, delta)

    broker.controller.begin_publishing(publish)
    for delta in meanwhile:
        publish(broker.image, delta)
    while True:
        if not (await _beat(broker, epoch)).is_fenced:
            break
        await asyncio.sleep(HEARTBEAT_MS / 1000)
    await broker.controller.until(lambda image: not image.brokers[broker.node_id].fenced)
    broker.scope.spawn("heartbeats", _beat_forever(broker, epoch))


async def _register(broker: Broker, config: BrokerConfig, listening: list[Listener]) -> int:
    """Returns the epoch of this incarnation."""
    stopped_at = broker.logs.clean_shutdown_epoch
    request = BrokerRegistrationRequest(
        broker_id=broker.node_id,
        cluster_id=broker.cluster_id,
        incarnation_id=broker.env.entropy.uuid4(),
        listeners=[
            RegisteredListener(name=name, host=host, port=port, security_protocol=PLAINTEXT_PROTOCOL)
            for name, host, port in (advertise_listener(config, listener) for listener in listening)
        ],
        features=[
            Feature(name=name, min_supported_version=levels.low, max_supported_version=levels.high)
            for name, levels in SUPPORTED_FEATURES.items()
        ],
        rack=config.text("broker.rack") or None,
        log_dirs=[broker.logs.directory_id],
        previous_broker_epoch=NEVER_STOPPED if stopped_at is None else stopped_at,
    )
    while True:
        try:
            response = await broker.channel.request(request)
        except KafkaError as error:
            if error.code is not ErrorCode.REQUEST_TIMED_OUT:
                raise
            log.warning("no controller answers: this broker waits for one")
            continue
        assert isinstance(response, BrokerRegistrationResponse), "the answer is of the request's API"
        if response.error_code == ErrorCode.NONE:
            return response.broker_epoch
        code = ErrorCode.of(response.error_code)
        if code is not ErrorCode.DUPLICATE_BROKER_REGISTRATION:
            raise EnvironmentFailure(f"the cluster does not take this broker: {code.name}")
        log.info("broker %d is still registered by another process, or has been until just now", broker.node_id)
        await asyncio.sleep(HEARTBEAT_MS / 1000)


async def _beat(broker: Broker, epoch: int) -> BrokerHeartbeatResponse:
    request = BrokerHeartbeatRequest(
        broker_id=broker.node_id, broker_epoch=epoch, current_metadata_offset=broker.image.applied_offset
    )
    response = await broker.channel.request(request)
    assert isinstance(response, BrokerHeartbeatResponse), "the answer is of the request's API"
    return response


async def _beat_forever(broker: Broker, epoch: int) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_MS / 1000)
        try:
            await _beat(broker, epoch)
        except KafkaError as error:
            log.warning("heartbeat of broker %d: %s", broker.node_id, error)
