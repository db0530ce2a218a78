"""Configs of topics and brokers: alter. Decides; changes nothing.

A resource's change is taken whole or refused whole: the values it would have afterwards are validated together.
Brokers take the defaults of topic configs (`log.retention.ms`) while they run, for one broker or, with an empty
name, for all; their other settings come from the file they start with.

Sources: KIP-133, KIP-226 (dynamic broker configs), KIP-339 (incremental).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Final, Protocol, TypeVar

from streamlog.broker.config import is_known_setting, validate_topic_default
from streamlog.broker.metadata.changes import MIN_ISR, UNCLEAN, PartitionChanges
from streamlog.broker.metadata.cluster_min_isr import check_min_isr
from streamlog.broker.metadata.decision import ControllerSettings, Decision, refuse
from streamlog.broker.metadata.image import RESOURCE_BROKER, RESOURCE_TOPIC, ConfigKey, KnownRecord, MetadataImage
from streamlog.broker.topic_configs import (
    LONG_MAX,
    TOPIC_CONFIGS,
    ConfigType,
    InvalidConfig,
    broker_names,
    parse_list,
    validate_topic_configs,
)
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.internal.metadata import ConfigRecord
from streamlog.wire.messages.alter_configs import (
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
)
from streamlog.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from streamlog.wire.messages.incremental_alter_configs import (
    AlterConfigsResource as IncrementalResource,
)
from streamlog.wire.messages.incremental_alter_configs import (
    AlterConfigsResourceResponse as IncrementalResult,
)

DYNAMIC_BROKER_CONFIGS: Final = frozenset(broker_names())
"""What can be altered on a running broker."""

REPLICATION_RATES: Final = {
    "leader.replication.throttled.rate": "Bytes per second that throttled replicas are sent.",
    "follower.replication.throttled.rate": "Bytes per second that throttled replicas fetch.",
}
"""With what they are (KIP-73). They exist as dynamic configs only."""


R = TypeVar("R")


class _Resource(Protocol):
    resource_type: int
    resource_name: str


class Operation(IntEnum):
    """KIP-339."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


def alter_configs(
    image: MetadataImage, settings: ControllerSettings, request: AlterConfigsRequest
) -> Decision[AlterConfigsResponse]:
    """Decide the older AlterConfigs: what a resource's configs are afterwards is exactly what is named."""
    counts = Counter((r.resource_type, r.resource_name) for r in request.resources)
    records: list[KnownRecord] = []
    results: list[AlterConfigsResourceResponse] = []
    for resource in request.resources:
        result = AlterConfigsResourceResponse(
            resource_type=resource.resource_type, resource_name=resource.resource_name, error_message=None
        )
        try:
            _check_once(counts, resource.resource_type, resource.resource_name)
            after = _named_values(resource)
            records += _change(image, resource.resource_type, resource.resource_name, after)
        except KafkaError as error:
            result.error_code, result.error_message = error.code, error.message
        results.append(result)
    records += _consequences(image, settings, records)
    return Decision(() if request.validate_only else tuple(records), AlterConfigsResponse(responses=results))


def refuse_each(make: Callable[..., R], resources: Iterable[_Resource], error: KafkaError) -> list[R]:
    """The same refusal for every resource of a request; `make` is the response's own type for one."""
    return [
        make(
            error_code=error.code,
            error_message=error.message,
            resource_type=resource.resource_type,
            resource_name=resource.resource_name,
        )
        for resource in resources
    ]


def _named_values(resource: AlterConfigsResource) -> dict[str, str]:
    after: dict[str, str] = {}
    for config in resource.configs:
        if config.name in after:
            raise refuse(ErrorCode.INVALID_REQUEST, f"config {config.name} is named twice")
        if config.value is None:
            raise refuse(ErrorCode.INVALID_REQUEST, f"config {config.name} has no value")
        after[config.name] = config.value
    return after


def incremental_alter_configs(
    image: MetadataImage, settings: ControllerSettings, request: IncrementalAlterConfigsRequest
) -> Decision[IncrementalAlterConfigsResponse]:
    """Decide IncrementalAlterConfigs: what is not named stays as it is."""
    counts = Counter((r.resource_type, r.resource_name) for r in request.resources)
    records: list[KnownRecord] = []
    results: list[IncrementalResult] = []
    for resource in request.resources:
        result = IncrementalResult(
            resource_type=resource.resource_type, resource_name=resource.resource_name, error_message=None
        )
        try:
            _check_once(counts, resource.resource_type, resource.resource_name)
            before = image.config(resource.resource_type, resource.resource_name)
            after = _operate(before, resource)
            records += _change(image, resource.resource_type, resource.resource_name, after)
        except KafkaError as error:
            result.error_code, result.error_message = error.code, error.message
        results.append(result)
    records += _consequences(image, settings, records)
    return Decision(() if request.validate_only else tuple(records), IncrementalAlterConfigsResponse(responses=results))


def _consequences(
    image: MetadataImage, settings: ControllerSettings, records: Sequence[KnownRecord]
) -> list[KnownRecord]:
    """What the same batch has to do to partitions (KIP-966, and Kafka's unclean elections after a config change)."""
    after: dict[ConfigKey, dict[str, str]] = {}
    touched: dict[str, None] = {}
    for record in records:
        if not isinstance(record, ConfigRecord) or record.name not in (MIN_ISR, UNCLEAN):
            continue
        key = (record.resource_type, record.resource_name)
        values = after.setdefault(key, dict(image.config(*key)))
        if record.value is None:
            values.pop(record.name, None)
        else:
            values[record.name] = record.value
        if key == (RESOURCE_BROKER, ""):
            touched.update(dict.fromkeys(image.topics))
        elif record.resource_type == RESOURCE_TOPIC:
            touched[record.resource_name] = None
    changes = PartitionChanges(image, settings, configs=after)
    changes.apply_configs(image.topics[name] for name in touched)
    return changes.records


def _operate(before: Mapping[str, str], resource: IncrementalResource) -> dict[str, str]:
    after = dict(before)
    named: set[str] = set()
    for config in resource.configs:
        if config.name in named:
            raise refuse(ErrorCode.INVALID_REQUEST, f"config {config.name} is named twice")
        named.add(config.name)
        _operate_one(after, config)
    return after


def _operate_one(values: dict[str, str], config: AlterableConfig) -> None:
    try:
        operation = Operation(config.config_operation)
    except ValueError:
        raise refuse(ErrorCode.INVALID_REQUEST, f"there is no operation {config.config_operation}") from None
    if operation is Operation.DELETE:
        values.pop(config.name, None)
        return
    if config.value is None:
        raise refuse(ErrorCode.INVALID_REQUEST, f"config {config.name} has no value")
    if operation is Operation.SET:
        values[config.name] = config.value
        return
    row = TOPIC_CONFIGS.get(config.name)
    if row is None or row.type is not ConfigType.LIST:
        raise refuse(ErrorCode.INVALID_CONFIG, f"{config.name} is not a list; {operation.name} needs one")
    items = parse_list(values.get(config.name, row.default))
    operands = config.value.split(",")  # an empty one too: it is refused with the values it would be among
    if operation is Operation.APPEND:
        items += [item for item in operands if item not in items]
    else:
        items = [item for item in items if item not in operands]
    values[config.name] = ",".join(items)


def _check_once(counts: Counter[tuple[int, str]], resource_type: int, name: str) -> None:
    if counts[resource_type, name] > 1:
        raise refuse(ErrorCode.INVALID_REQUEST, "each resource may appear once in a request")


def _change(image: MetadataImage, resource_type: int, name: str, after: Mapping[str, str]) -> list[KnownRecord]:
    """Records that turn a resource's configs into `after`, which is validated first."""
    try:
        if resource_type == RESOURCE_TOPIC:
            if not name:
                raise refuse(ErrorCode.INVALID_REQUEST, "a topic's configs need its name")
            if name not in image.topics:
                raise refuse(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name}")
            validate_topic_configs(after)
        elif resource_type == RESOURCE_BROKER:
            _check_broker(image, name, after)
        else:
            raise refuse(ErrorCode.INVALID_REQUEST, f"resources of type {resource_type} have no configs here")
    except InvalidConfig as error:
        raise refuse(ErrorCode.INVALID_CONFIG, str(error)) from None
    before = image.config(resource_type, name)
    return [
        ConfigRecord(resource_type=resource_type, resource_name=name, name=key, value=after.get(key))
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]


def _check_broker(image: MetadataImage, name: str, after: Mapping[str, str]) -> None:
    if name and not (name.isascii() and name.isdigit()):
        raise refuse(ErrorCode.INVALID_REQUEST, f"{name!r} is no broker's number")
    if name and int(name) not in image.brokers:
        raise refuse(ErrorCode.INVALID_REQUEST, f"there is no broker {name}")
    check_min_isr(image, name, after)
    for key, value in after.items():
        if key in REPLICATION_RATES:
            _check_rate(key, value)
            continue
        if not is_known_setting(key):
            raise InvalidConfig(f"brokers know no setting {key}")
        if key not in DYNAMIC_BROKER_CONFIGS:
            raise refuse(
                ErrorCode.INVALID_REQUEST, f"{key} cannot be altered on a running broker; set it in its properties file"
            )
        validate_topic_default(key, value)


def _check_rate(name: str, value: str) -> None:
    try:
        rate = int(value)
    except ValueError:
        rate = -1
    if not 0 <= rate <= LONG_MAX:
        raise InvalidConfig(f"Invalid value {value} for configuration {name}: bytes per second, at least 0")
