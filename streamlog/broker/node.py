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
    ending_with,
    listen,
    new_home,
    new_server,
    quorum_settings,
    refuse_unformatted,
    registered_features,
    registered_listeners,
)
from streamlog.broker.broker import Broker
from streamlog.broker.config import BrokerConfig, Listener
from streamlog.broker.controller_channel import ControllerChannel
from streamlog.broker.controller_listeners import ControllerListeners
from streamlog.broker.coordinator.offsets_topic import follow_metadata, open_groups
from streamlog.broker.fetch_sessions import FetchSessions
from streamlog.broker.housekeeping import Housekeeping
from streamlog.broker.lifecycle_driver import LifecycleDriver
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.metadata.controller import Controller
from streamlog.broker.metadata.image import MetadataDelta, MetadataImage
from streamlog.broker.overruled import tell_overruled
from streamlog.broker.partitions import Partitions
from streamlog.broker.producer_ids import ProducerIds
from streamlog.broker.raft.quorum import Quorum
from streamlog.broker.replication.read_replica import check_selector
from streamlog.broker.replication.roles import Replication
from streamlog.broker.replication.settings import replication_settings
from streamlog.broker.server import Server
from streamlog.env import Env, Scope
from streamlog.wire.apis import ApiKey
from streamlog.wire.messages.broker_registration import BrokerRegistrationRequest, Feature
from streamlog.wire.messages.broker_registration import Listener as RegisteredListener

log = logging.getLogger(__name__)

NEVER_STOPPED: Final = -1
"""What a registration says when the broker did not stop cleanly, or has never run."""


FAREWELL_MS: Final = 1_000
"""Clients that ask a broker for what it has handed over hear that others lead, look for them (librdkafka: 100 ms after
the answer, again and again until everybody knows), and have no reason any more to come back to it. Those that still
have one meet a connection that is refused: with half a second one client in two did, without it nearly all."""


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
    lifecycle: LifecycleDriver

    async def close(self) -> None:
        """Stop so that the next start has nothing to recover. Raises nothing that the disk could be blamed for.

        With other brokers about, it goes on serving until they lead what it led, and until clients may know.
        """
        if len(self.broker.image.brokers) > 1:
            await self.lifecycle.leave()
            if self.server.connections:
                await asyncio.sleep(FAREWELL_MS / 1000)
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
        with ending_with(scope):
            if config.controller_listeners:
                controllers = await ControllerListeners.open(env, config)
            broker = await _start_broker(env, config, logs, scope, controllers)
            if controllers is not None:
                scope.spawn("register this controller", _keep_registered(broker, controllers))
            server = new_server(env, config, ApiDispatcher(broker))
            listening = [await listen(server, listener) for listener in config.listeners]
            broker.served_apis = advertise(ApiKey(key) for key in SERVED)
            lifecycle = await _join(broker, config, listening)
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
    return Node(env, broker, server, broker.quorum, scope, listening, controllers, lifecycle)


async def _start_broker(
    env: Env, config: BrokerConfig, logs: LogDirectory, scope: Scope, controllers: ControllerListeners | None
) -> Broker:
    """Everything but what clients reach. The quorum has begun; nobody has been told of anything yet."""
    flusher = Flusher(env, scope)
    settings = quorum_settings(config, [] if controllers is None else controllers.listening)
    quorum = Quorum.open(env, logs, flusher, scope, settings, env.clock.wall_ms())
    replication = Replication(
        env,
        config.node_id,
        scope,
        flusher,
        replication_settings(config),
        save_log_starts=logs.save_log_starts,
    )
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


async def _keep_registered(broker: Broker, controllers: ControllerListeners) -> None:
    # Not at the top: a quorum of one tells nobody about its controller.
    from streamlog.broker.controller_registration import keep_registered

    await keep_registered(broker.env, broker.config, controllers.listening, broker.controller, broker.channel)


async def _join(broker: Broker, config: BrokerConfig, listening: list[Listener]) -> LifecycleDriver:
    """Register this incarnation, open what the cluster has placed here, and be declared ready."""
    lifecycle = LifecycleDriver(
        broker.env,
        broker.channel,
        _registration(broker, config, listening),
        config.integer("broker.heartbeat.interval.ms"),
        lambda: broker.image.applied_offset,
        lambda: broker.quorum.majority_heard_ms,
    )
    broker.replication.controller_heard_ms = lambda: lifecycle.heard_at_ms
    lifecycle.start(broker.scope)
    epoch = await lifecycle.registered()
    broker.producer_ids.broker_epoch = epoch
    await broker.quorum.learned(epoch)
    tell_overruled(config, broker.image)
    lifecycle.on_caught_up()
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
    await lifecycle.serve()
    await broker.controller.until(lambda image: not image.brokers[broker.node_id].fenced)
    return lifecycle


def _registration(broker: Broker, config: BrokerConfig, listening: list[Listener]) -> BrokerRegistrationRequest:
    stopped_at = broker.logs.clean_shutdown_epoch
    return BrokerRegistrationRequest(
        broker_id=broker.node_id,
        cluster_id=broker.cluster_id,
        incarnation_id=broker.env.entropy.uuid4(),
        listeners=registered_listeners(RegisteredListener, config, listening),
        features=registered_features(Feature),
        rack=config.text("broker.rack") or None,
        log_dirs=[broker.logs.directory_id],
        previous_broker_epoch=NEVER_STOPPED if stopped_at is None else stopped_at,
    )
