"""The parts of one broker, as handlers see them. Put together at start (node.py) and then only read."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamlog.broker.config import BrokerConfig
from streamlog.broker.controller_channel import ControllerChannel
from streamlog.broker.coordinator.groups import GroupCoordinator
from streamlog.broker.fetch_sessions import FetchSessions
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.metadata.controller import Controller
from streamlog.broker.metadata.image import MetadataImage
from streamlog.broker.partitions import Partitions
from streamlog.broker.producer_ids import ProducerIds
from streamlog.broker.raft.quorum import Quorum
from streamlog.broker.replication.roles import Replication
from streamlog.env import Env, Scope
from streamlog.wire.messages.api_versions import ApiVersion


@dataclass(slots=True)
class Broker:
    """What a handler can reach."""

    env: Env
    config: BrokerConfig
    node_id: int
    cluster_id: str
    scope: Scope
    """Owns what this broker does beside answering requests."""
    logs: LogDirectory
    flusher: Flusher
    partitions: Partitions
    replication: Replication
    quorum: Quorum
    controller: Controller
    """Active or not, the fold of the committed metadata."""
    channel: ControllerChannel
    """To whichever node's controller is active."""
    producer_ids: ProducerIds
    groups: GroupCoordinator
    fetch_sessions: FetchSessions
    fetch_bytes_max: int
    """fetch.max.bytes."""
    sends_to_near_replicas: bool = False
    """replica.selector.class is one that does (KIP-392)."""
    served_apis: list[ApiVersion] = field(default_factory=list)

    @property
    def image(self) -> MetadataImage:
        """The cluster as far as it is committed. Changes in place between two awaits: keep values of it, not it."""
        return self.controller.image

    @property
    def controller_id(self) -> int:
        """The broker that clients may take for the controller: the active one, if clients can reach it, or else this
        one, which asks that (KIP-590). -1 while this one is no part of the cluster either.
        """
        for node_id in (self.quorum.leader_id, self.node_id):
            if node_id is not None and (node := self.image.brokers.get(node_id)) is not None and not node.fenced:
                return node_id
        return -1
