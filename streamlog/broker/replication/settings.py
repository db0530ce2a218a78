"""What of a broker's settings replication goes by. Names and defaults are Kafka's."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamlog.broker.config import BrokerConfig, inter_broker_listener


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """How followers fetch."""

    wait_ms_max: int = 500
    bytes_min: int = 1
    response_bytes_max: int = 10 * 1024 * 1024
    partition_bytes_max: int = 1024 * 1024
    backoff_ms: int = 1000
    """Longest pause; the first ones are shorter."""
    timeout_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class ReplicationSettings:
    lag_ms_max: int = 30_000
    session_ms: int = 3_000
    """broker.session.timeout.ms: after this long without an answer the controller has given this broker up."""
    listener: str = ""
    """Name of the listener by which brokers reach each other; "" takes the first that a broker has registered."""
    fetch: FetchSettings = field(default_factory=FetchSettings)


def replication_settings(config: BrokerConfig) -> ReplicationSettings:
    return ReplicationSettings(
        lag_ms_max=config.integer("replica.lag.time.max.ms"),
        session_ms=config.integer("broker.session.timeout.ms"),
        listener=inter_broker_listener(config.values),
        fetch=FetchSettings(
            wait_ms_max=config.integer("replica.fetch.wait.max.ms"),
            bytes_min=config.integer("replica.fetch.min.bytes"),
            response_bytes_max=config.integer("replica.fetch.response.max.bytes"),
            partition_bytes_max=config.integer("replica.fetch.max.bytes"),
            backoff_ms=config.integer("replica.fetch.backoff.ms"),
            timeout_ms=config.integer("replica.socket.timeout.ms"),
        ),
    )
