"""The parts of one controller, as handlers see them. Put together at start and then only read."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from streamlog.broker.connection import Connection
from streamlog.broker.metadata.controller import Controller
from streamlog.broker.metadata.decision import ControllerSettings
from streamlog.broker.metadata.overseer import Overseer
from streamlog.broker.raft.quorum import Quorum
from streamlog.env import Env, Scope
from streamlog.wire.messages.api_versions import ApiVersion


class ControllerHome(msgspec.Struct):
    """What a handler can reach. It is there on every node that can become the active controller.

    A dataclass would take a millisecond of every broker's start to be made.
    """

    env: Env
    node_id: int
    cluster_id: str
    scope: Scope
    quorum: Quorum
    controller: Controller
    settings: ControllerSettings
    overseer: Overseer
    listener: str = "CONTROLLER"
    """Name of the listener by which controllers are reached."""
    served_apis: list[ApiVersion] = []


class ControllerContext(NamedTuple):
    """What a handler knows about a request beyond its fields."""

    version: int
    connection: Connection | None = None
    """By which it came; None when it came from this node itself."""
