"""Settings of topics, brokers and groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from streamlog.client.admin_values import (
    BROKER_RESOURCE,
    TOPIC_RESOURCE,
    ConfigEntry,
)
from streamlog.client.asking import Asking, check
from streamlog.errors import UserError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.message import Request, Response
from streamlog.wire.messages import (
    DescribeConfigsRequest,
    DescribeConfigsResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from streamlog.wire.messages.describe_configs import DescribeConfigsResource
from streamlog.wire.messages.incremental_alter_configs import AlterableConfig, AlterConfigsResource

R = TypeVar("R", bound=Response)

SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
"""Kafka's numbers of what is done to a setting."""


async def describe_configs(
    asking: Asking, resource: str, *, kind: int = TOPIC_RESOURCE, names: Sequence[str] | None = None
) -> dict[str, ConfigEntry]:
    """Settings of a topic, a broker (`kind=BROKER_RESOURCE`, the id as text) or a group."""
    request = DescribeConfigsRequest(
        resources=[
            DescribeConfigsResource(
                resource_type=kind,
                resource_name=resource,
                configuration_keys=None if names is None else list(names),
            )
        ]
    )

    async def attempt() -> dict[str, ConfigEntry]:
        answer = await _ask_resource(asking, kind, resource, request, DescribeConfigsResponse)
        if not answer.results:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "the broker's answer does not mention the resource")
        result = answer.results[0]
        check(result.error_code, result.error_message, f"settings of '{resource}'")
        return {
            one.name: ConfigEntry(one.name, one.value, one.config_source, one.read_only, one.is_sensitive)
            for one in result.configs
        }

    return await asking.cluster.retrying("describing configs", attempt, timeout_ms=asking.timeout_ms)


async def incremental_alter_configs(
    asking: Asking,
    resource: str,
    *,
    set: Mapping[str, str] | None = None,  # noqa: A002  # Kafka's names of the operations
    delete: Iterable[str] = (),
    append: Mapping[str, str] | None = None,
    subtract: Mapping[str, str] | None = None,
    kind: int = TOPIC_RESOURCE,
    validate_only: bool = False,
) -> None:
    """Change some settings and leave the others; `delete` goes back to the default."""
    changes = [AlterableConfig(name=name, config_operation=SET, value=value) for name, value in (set or {}).items()]
    changes += [AlterableConfig(name=name, config_operation=DELETE, value=None) for name in delete]
    for operation, values in ((APPEND, append), (SUBTRACT, subtract)):
        changes += [
            AlterableConfig(name=name, config_operation=operation, value=value)
            for name, value in (values or {}).items()
        ]
    request = IncrementalAlterConfigsRequest(
        resources=[AlterConfigsResource(resource_type=kind, resource_name=resource, configs=changes)],
        validate_only=validate_only,
    )

    async def attempt() -> None:
        answer = await _ask_resource(asking, kind, resource, request, IncrementalAlterConfigsResponse)
        for one in answer.responses:
            check(one.error_code, one.error_message, f"settings of '{resource}'")

    await asking.cluster.retrying("altering configs", attempt, timeout_ms=asking.timeout_ms)


async def _ask_resource(asking: Asking, kind: int, resource: str, request: Request, response: type[R]) -> R:
    """A broker's own settings are known to that broker alone."""
    if kind == BROKER_RESOURCE and resource:
        if not resource.isdigit():
            raise UserError(f"'{resource}' is not a broker id")
        await _check_broker(asking, int(resource))
        return await asking.cluster.request(int(resource), request, response)
    return await asking.cluster.request_any(request, response)


async def _check_broker(asking: Asking, node_id: int) -> None:
    """Raises UserError: a broker that is down or was never there will not answer, however often it is asked."""
    cluster = asking.cluster
    if node_id not in cluster.metadata.brokers:
        await cluster.refresh(timeout_ms=asking.timeout_ms)
    if node_id not in cluster.metadata.brokers:
        there = ", ".join(str(one) for one in sorted(cluster.metadata.brokers))
        raise UserError(f"broker {node_id} is not part of the cluster right now; its brokers: {there}")
