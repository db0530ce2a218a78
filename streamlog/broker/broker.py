"""The parts of one broker, as handlers see them. Put together at start and then only read."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamlog.broker.metadata.image import MetadataImage
from streamlog.env import Env
from streamlog.wire.messages.api_versions import ApiVersion


@dataclass(slots=True)
class Broker:
    """What a handler can reach."""

    env: Env
    node_id: int
    cluster_id: str
    image: MetadataImage
    """The cluster as far as it is committed. Changes in place between two awaits: keep values of it, not it."""
    served_apis: list[ApiVersion] = field(default_factory=list)
