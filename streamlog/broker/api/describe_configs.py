"""DescribeConfigs (API 32): every config of a topic or broker, its value, and where the value comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from streamlog.broker.api.large import distinct
from streamlog.broker.broker import Broker
from streamlog.broker.config import BROKER_CONFIGS, BrokerSetting
from streamlog.broker.context import RequestContext
from streamlog.broker.metadata.configs import REPLICATION_RATES
from streamlog.broker.metadata.image import RESOURCE_BROKER, RESOURCE_TOPIC
from streamlog.broker.metadata.topic_names import reason_against
from streamlog.broker.topic_configs import TOPIC_CONFIGS, ConfigSource, ConfigType, ConfigValue, find_value
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)

DYNAMIC_SOURCES: Final = (ConfigSource.TOPIC, ConfigSource.DYNAMIC_BROKER, ConfigSource.DYNAMIC_DEFAULT_BROKER)


def handle(broker: Broker, context: RequestContext, request: DescribeConfigsRequest) -> DescribeConfigsResponse:
    resources = distinct(request.resources, _identity)
    return DescribeConfigsResponse(results=[_describe(broker, request, resource) for resource in resources])


def _identity(resource: DescribeConfigsResource) -> tuple[object, ...]:
    keys = resource.configuration_keys
    return resource.resource_type, resource.resource_name, None if keys is None else tuple(keys)


def _describe(
    broker: Broker, request: DescribeConfigsRequest, resource: DescribeConfigsResource
) -> DescribeConfigsResult:
    result = DescribeConfigsResult(
        resource_type=resource.resource_type, resource_name=resource.resource_name, error_message=None
    )
    try:
        if resource.resource_type == RESOURCE_TOPIC:
            rows = _topic_rows(broker, request, resource.resource_name)
        elif resource.resource_type == RESOURCE_BROKER:
            rows = _broker_rows(broker, request, resource.resource_name)
        else:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, f"resources of type {resource.resource_type} have no configs here"
            )
        wanted = resource.configuration_keys
        result.configs = [row for row in rows if wanted is None or row.name in wanted]
    except KafkaError as error:
        result.error_code, result.error_message = error.code, error.message
    return result


def _topic_rows(broker: Broker, request: DescribeConfigsRequest, topic: str) -> Iterator[DescribeConfigsResourceResult]:
    reason = reason_against(topic)
    if reason is not None:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, reason)
    if topic not in broker.image.topics:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {topic}")
    overrides = broker.image.config(RESOURCE_TOPIC, topic)
    layers = _broker_layers(broker)
    return (
        _row(row.name, row.type, row.documentation, *find_value(row, overrides, layers), request)
        for row in TOPIC_CONFIGS.values()
    )


def _broker_layers(broker: Broker) -> list[tuple[ConfigSource, Mapping[str, str]]]:
    image = broker.image
    return [
        (ConfigSource.DYNAMIC_BROKER, image.config(RESOURCE_BROKER, str(broker.node_id))),
        (ConfigSource.DYNAMIC_DEFAULT_BROKER, image.config(RESOURCE_BROKER, "")),
        (ConfigSource.STATIC_BROKER, broker.config.values),
    ]


def _broker_rows(broker: Broker, request: DescribeConfigsRequest, name: str) -> Iterator[DescribeConfigsResourceResult]:
    if name == "":
        return _cluster_default_rows(broker, request)
    if name != str(broker.node_id):
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"ask broker {name} itself: this is broker {broker.node_id}")
    return _all_broker_rows(broker, request)


def _cluster_default_rows(broker: Broker, request: DescribeConfigsRequest) -> Iterator[DescribeConfigsResourceResult]:
    for name, value in sorted(broker.image.config(RESOURCE_BROKER, "").items()):
        values = [ConfigValue(value, ConfigSource.DYNAMIC_DEFAULT_BROKER, name)]
        config_type, documentation = _dynamic_row(name)
        yield _row(name, config_type, documentation, values[0], values, request)


def _all_broker_rows(broker: Broker, request: DescribeConfigsRequest) -> Iterator[DescribeConfigsResourceResult]:
    layers = _broker_layers(broker)
    for setting in BROKER_CONFIGS.values():
        values = _static_values(broker, setting)
        yield _row(setting.name, setting.type, setting.documentation, values[0], values, request, True)
    for row in TOPIC_CONFIGS.values():
        for synonym in row.synonyms[-1:]:
            values = [
                ConfigValue(layer[synonym.broker_name], source, synonym.broker_name)
                for source, layer in layers
                if synonym.broker_name in layer
            ]
            default = row.default if synonym.factor == 1 else str(int(row.default) // synonym.factor)
            values.append(ConfigValue(default, ConfigSource.DEFAULT, synonym.broker_name))
            yield _row(synonym.broker_name, row.type, row.documentation, values[0], values, request)
    for name, documentation in REPLICATION_RATES.items():
        values = [ConfigValue(layer[name], source, name) for source, layer in layers if name in layer]
        if values:
            yield _row(name, ConfigType.LONG, documentation, values[0], values, request)


def _static_values(broker: Broker, setting: BrokerSetting) -> list[ConfigValue]:
    values = [ConfigValue(setting.default, ConfigSource.DEFAULT, setting.name)]
    if setting.name in broker.config.values:
        values.insert(0, ConfigValue(broker.config.values[setting.name], ConfigSource.STATIC_BROKER, setting.name))
    return values


def _dynamic_row(broker_name: str) -> tuple[ConfigType, str]:
    if broker_name in REPLICATION_RATES:
        return ConfigType.LONG, REPLICATION_RATES[broker_name]
    for row in TOPIC_CONFIGS.values():
        if any(synonym.broker_name == broker_name for synonym in row.synonyms):
            return row.type, row.documentation
    return ConfigType.STRING, ""


def _row(
    name: str,
    config_type: ConfigType,
    documentation: str,
    winner: ConfigValue,
    values: list[ConfigValue],
    request: DescribeConfigsRequest,
    read_only: bool = False,
) -> DescribeConfigsResourceResult:
    return DescribeConfigsResourceResult(
        name=name,
        value=winner.value,
        read_only=read_only,
        config_source=winner.source,
        synonyms=[
            DescribeConfigsSynonym(name=value.source_name, value=value.value, source=value.source) for value in values
        ]
        if request.include_synonyms
        else [],
        config_type=config_type,
        documentation=documentation if request.include_documentation else None,
    )
