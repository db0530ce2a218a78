"""BrokerRegistration (API 62): a broker enters the cluster (KIP-631).

Versions: 1 tells of a migration from ZooKeeper (KIP-866); 2 carries log directories (KIP-858); 3 lets a feature's
minimum be 0 (KIP-1022); 4 tells how the broker stopped last time (KIP-966).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int16, Int32, Int64, Struct, UInt16, since


class Listener(Struct):
    name: str = ""
    host: str = ""
    port: UInt16 = 0
    security_protocol: Int16 = 0


class Feature(Struct):
    name: str = ""
    min_supported_version: Int16 = 0
    max_supported_version: Int16 = 0


class BrokerRegistrationRequest(Request):
    """Endpoints, features, and an id of this incarnation."""

    api_key = 62
    min_version = 0
    max_version = 4
    flexible_since = 0

    broker_id: Int32 = 0
    cluster_id: str = ""
    incarnation_id: UUID = ZERO_UUID
    listeners: list[Listener] = []
    features: list[Feature] = []
    rack: str | None = ""
    is_migrating_zk_broker: Annotated[bool, since(1)] = False
    log_dirs: Annotated[list[UUID], since(2, ignorable=True)] = []
    previous_broker_epoch: Annotated[Int64, since(3, ignorable=True)] = -1


class BrokerRegistrationResponse(Response):
    """The broker's epoch."""

    api_key = 62
    min_version = 0
    max_version = 4
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    broker_epoch: Int64 = -1
