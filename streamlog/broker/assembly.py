"""What controllers and brokers are put together from alike (node.py, controller_node.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar

from streamlog.broker import limits
from streamlog.broker.config import BrokerConfig, Listener
from streamlog.broker.connection import Dispatcher
from streamlog.broker.controller_home import ControllerHome
from streamlog.broker.features import BOOTSTRAP_FEATURES, SUPPORTED_FEATURES
from streamlog.broker.log.checkpoint import META_PROPERTIES_FILE
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.metadata.cluster_min_isr import settle_min_isr
from streamlog.broker.metadata.controller import Controller
from streamlog.broker.metadata.decision import ControllerSettings
from streamlog.broker.metadata.image import BrokerRegistration
from streamlog.broker.metadata.overseer import Overseer
from streamlog.broker.raft.messages import Endpoint, ReplicaKey, VersionRange
from streamlog.broker.raft.quorum import QuorumSettings
from streamlog.broker.raft.voters import VoterNode, VoterSet
from streamlog.broker.server import Server
from streamlog.env import Env, Scope
from streamlog.errors import UserError
from streamlog.wire.internal.metadata import FeatureLevelRecord

L = TypeVar("L")
F = TypeVar("F")

PLAINTEXT_PROTOCOL: Final = 0
"""SecurityProtocol's number in registrations."""

PROBE_MS_MAX: Final = 200
"""A machine that is there refuses at once, unless the request was lost: a kernel repeats it after a second (and drops
it in the very moment in which it closes a dead process's listener), the next probe does so at once. A machine that does
not answer may be cut off, and its broker alive."""


def refuse_unformatted(env: Env, config: BrokerConfig, data_dir: str) -> None:
    """Raise UserError when other nodes are named and the directory belongs to no cluster yet."""
    if not config.is_alone and not env.storage.exists(f"{data_dir}/{META_PROPERTIES_FILE}"):
        raise UserError(
            f"The data directory {data_dir} is not formatted. Nodes of one cluster have to agree about it before they "
            "start: run `streamlog format` for each of them, with one --cluster-id."
        )


def new_server(env: Env, config: BrokerConfig, dispatcher: Dispatcher) -> Server:
    return Server(
        env,
        dispatcher,
        request_bytes_max=config.integer("socket.request.max.bytes"),
        connections_max=min(config.integer("max.connections"), limits.CONNECTIONS_MAX),
        connections_per_ip_max=config.integer("max.connections.per.ip"),
        connection_idle_ms_max=config.integer("connections.max.idle.ms"),
    )


async def listen(server: Server, listener: Listener) -> Listener:
    """Bind; returns the listener with the port as it turned out."""
    return listener._replace(port=await server.listen(listener.name, listener.host, listener.port))


def advertise_listener(config: BrokerConfig, listener: Listener) -> tuple[str, str, int]:
    """Name, host and port as others are told."""
    told = config.advertised.get(listener.name, listener)
    host = told.host or ("127.0.0.1" if listener.host in ("", "0.0.0.0", "::") else listener.host)
    return listener.name, host, told.port or listener.port


def registered_listeners(make: Callable[..., L], config: BrokerConfig, listening: list[Listener]) -> list[L]:
    """As registrations of brokers and of controllers name them; `make` is the message's own type for one."""
    return [
        make(name=name, host=host, port=port, security_protocol=PLAINTEXT_PROTOCOL)
        for name, host, port in (advertise_listener(config, listener) for listener in listening)
    ]


def registered_features(make: Callable[..., F]) -> list[F]:
    """What this software supports, in the message's own type."""
    return [
        make(name=name, min_supported_version=levels.low, max_supported_version=levels.high)
        for name, levels in SUPPORTED_FEATURES.items()
    ]


def quorum_settings(config: BrokerConfig, listening: list[Listener]) -> QuorumSettings:
    """What the quorum is told, given where this node listens for controllers."""
    name = config.controller_listener_name
    return QuorumSettings(
        node_id=config.node_id,
        listener=name,
        endpoints=tuple(advertise_listener(config, found) for found in listening),
        static_voters=VoterSet(
            VoterNode(ReplicaKey(number), (Endpoint(name, host, port),), VersionRange(0, 0))
            for number, host, port in config.quorum_voters
        ),
        bootstrap=config.quorum_bootstrap,
        is_controller=config.is_controller,
        auto_join=config.boolean("controller.quorum.auto.join.enable"),
        election_timeout_ms=config.integer("controller.quorum.election.timeout.ms"),
        election_backoff_ms_max=config.integer("controller.quorum.election.backoff.max.ms"),
        fetch_timeout_ms=config.integer("controller.quorum.fetch.timeout.ms"),
        fetch_bytes_max=config.integer("controller.quorum.fetch.max.bytes"),
        snapshot_bytes_max=config.integer("controller.quorum.fetch.snapshot.max.bytes"),
        request_timeout_ms=config.integer("controller.quorum.request.timeout.ms"),
        retry_backoff_ms=config.integer("controller.quorum.retry.backoff.ms"),
    )


def new_home(
    env: Env, config: BrokerConfig, logs: LogDirectory, scope: Scope, controller: Controller
) -> ControllerHome:
    """The parts of this node's controller, which oversees brokers from here on."""
    settings = ControllerSettings(
        cluster_id=logs.cluster_id,
        num_partitions=config.integer("num.partitions"),
        default_replication_factor=config.integer("default.replication.factor"),
        delete_topic_enable=config.boolean("delete.topic.enable"),
        topic_defaults=config.topic_defaults,
    )
    controller.call_when_active(lambda: bootstrap_features(controller, settings))
    overseer = Overseer(
        env,
        controller,
        settings,
        scope,
        session_timeout_ms=config.integer("broker.session.timeout.ms"),
        own_broker_id=config.node_id if config.is_broker else None,
        probe=None if config.is_alone else partial(is_certainly_dead, env),
        balance_ms=_balance_ms(config),
    )
    overseer.start()
    return ControllerHome(
        env=env,
        node_id=config.node_id,
        cluster_id=logs.cluster_id,
        scope=scope,
        quorum=controller.quorum,
        controller=controller,
        settings=settings,
        overseer=overseer,
        listener=config.controller_listener_name,
    )


def _balance_ms(config: BrokerConfig) -> int | None:
    if config.is_alone or not config.boolean("auto.leader.rebalance.enable"):
        return None
    return config.integer("leader.imbalance.check.interval.seconds") * 1000


async def is_certainly_dead(env: Env, broker: BrokerRegistration) -> bool:
    """Whether nobody listens where the broker did. A listener that does not answer at all says nothing."""
    if not broker.endpoints:
        return False
    endpoint = broker.endpoints[0]
    try:
        async with asyncio.timeout(PROBE_MS_MAX / 1000):
            transport, _ = await asyncio.get_running_loop().create_connection(
                asyncio.Protocol, endpoint.host, endpoint.port
            )
    except ConnectionRefusedError:
        return True
    except OSError:  # a timeout is one too
        return False
    transport.close()
    return False


@contextmanager
def ending_with(scope: Scope) -> Iterator[None]:
    """While a node starts: whatever it waits for, it ends with the error of the first task of its scope that fails.

    Afterwards that task is a matter for the scope's `on_failure` again.
    """
    starting = asyncio.current_task()
    assert starting is not None, "nodes are started by tasks"
    told = scope.on_failure

    def end_the_start(error: BaseException) -> None:
        starting.cancel()

    scope.on_failure = end_the_start
    try:
        yield
    except BaseException:
        if scope.failure is None:
            raise
        starting.uncancel()
        raise scope.failure from None
    finally:
        scope.on_failure = told


def bootstrap_features(controller: Controller, settings: ControllerSettings) -> None:
    """The first active controller of a cluster finalizes its features, and what follows, before anything else."""
    if not controller.image.features:
        features = [FeatureLevelRecord(name=name, feature_level=level) for name, level in BOOTSTRAP_FEATURES.items()]
        controller.append([*features, *settle_min_isr(controller.image, settings.topic_defaults)])
