"""Settings that all parts of the client share, and the limits that no setting lifts."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from streamlog.errors import UserError

RESPONSE_BYTES_MAX = 256 << 20
"""Largest response believed. A fetch answers 50 MiB plus at most one oversized batch; the rest is not Kafka."""

PORT_DEFAULT = 9092

SOFTWARE_NAME = "streamlog"
SOFTWARE_VERSION = "0.1.0"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How to talk to brokers; the defaults are Kafka's where Kafka has one."""

    client_id: str = "streamlog"
    request_timeout_ms: int = 30_000
    """An unanswered request closes its connection after this long: the answers behind it would be late as well."""
    question_timeout_ms: int = 3_000
    """How long one broker may take over what another could answer as well; twice as long after each time in a row. A
    frozen process keeps its connections open and answers nothing. The connection stays, others may wait on it."""
    connect_timeout_ms: int = 10_000
    connect_slow_ms: int = 2_000
    """After this long without an answer the log says what is waited for; a process that is silent looks hung."""
    reconnect_backoff_ms: int = 50
    reconnect_backoff_ms_max: int = 1_000
    retry_backoff_ms: int = 100
    retry_backoff_ms_max: int = 1_000
    connections_max_idle_ms: int = 540_000
    """A minute less than brokers wait before they close an idle connection, so that we are the ones who close it."""
    metadata_max_age_ms: int = 300_000
    api_timeout_ms: int = 60_000
    """How long a call may keep retrying before it gives up, where it has no timeout of its own."""
    ssl: ssl.SSLContext | None = None


def parse_bootstrap(bootstrap: str | Sequence[str]) -> list[Address]:
    """Addresses out of "host:port,host:port" or a list of such; a `kafka://` in front is accepted.

    Raises: UserError naming the part that is not an address.
    """
    parts = (
        bootstrap.split(",") if isinstance(bootstrap, str) else [one for part in bootstrap for one in part.split(",")]
    )
    addresses = [_parse_address(part.strip()) for part in parts if part.strip()]
    if not addresses:
        raise UserError("no broker address given; write host:port, for example localhost:9092")
    return addresses


def _parse_address(text: str) -> Address:
    bare = text.removeprefix("kafka://")
    host, separator, port = bare.rpartition(":")
    if not separator or bare.endswith("]"):
        host, port = bare, str(PORT_DEFAULT)
    host = host.removeprefix("[").removesuffix("]")
    if not re.fullmatch(r"[^\s/]+", host) or not port.isdigit() or not 0 < int(port) < 65_536:
        raise UserError(f"'{text}' is not a broker address; write host:port, for example localhost:9092")
    return Address(host, int(port))
