"""What a node's properties file says in vain, told once at each start.

Configs in the cluster's metadata go before the files of nodes, as in Kafka; and with eligible leader replicas
min.insync.replicas always is one of them (metadata/cluster_min_isr.py). Where brokers and controllers are apart there
is another reason: each goes by its own file. Apache Kafka says nothing in either case, and who wrote
`delete.topic.enable=false` into the files of brokers finds out when a topic is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Final

from streamlog.broker.config import BROKER_CONFIGS, BrokerConfig
from streamlog.broker.metadata.changes import MIN_ISR, UNCLEAN
from streamlog.broker.metadata.image import RESOURCE_BROKER, MetadataImage
from streamlog.broker.topic_configs import TOPIC_CONFIGS, ConfigSource, ConfigValue, TopicConfig, find_value

log = logging.getLogger(__name__)

DECIDED_BY_CONTROLLERS: Final = frozenset(
    {"auto.leader.rebalance.enable", "delete.topic.enable", "leader.imbalance.check.interval.seconds", UNCLEAN}
)
"""No broker ever looks at these."""

READ_BY_CONTROLLERS: Final = frozenset(
    {
        *DECIDED_BY_CONTROLLERS,
        "advertised.listeners",
        "broker.session.timeout.ms",
        "connections.max.idle.ms",
        "default.replication.factor",
        "listeners",
        "log.dirs",
        "max.connections",
        "max.connections.per.ip",
        "metadata.log.max.record.bytes.between.snapshots",
        MIN_ISR,
        "node.id",
        "num.partitions",
        "socket.request.max.bytes",
    }
)
"""And at settings of the quorum. The rest is for brokers."""

QUORUM_PREFIX: Final = "controller.quorum."


def tell_overruled(config: BrokerConfig, image: MetadataImage) -> None:
    """Log it. `image`: as of this start, with all that was committed before."""
    for line in (*overruled(config, image), *meant_for_controllers(config, image)):
        log.warning("%s", line)
    names = meant_for_brokers(config)
    if names:
        log.info("only brokers go by %s: in this controller's file that has no effect", ", ".join(names))


def overruled(config: BrokerConfig, image: MetadataImage) -> Iterator[str]:
    """A sentence for each setting of the file in place of which the metadata have another value."""
    for name in TOPIC_CONFIGS if config.is_broker else (MIN_ISR, UNCLEAN):
        row = TOPIC_CONFIGS[name]
        in_file = find_value(row, {}, [(ConfigSource.STATIC_BROKER, config.values)])[0]
        if in_file.source is not ConfigSource.STATIC_BROKER:
            continue
        for source, values, whose in _dynamic(config, image, name):
            layers = [(source, values), (ConfigSource.STATIC_BROKER, config.values)]
            holds = find_value(row, {}, layers)[0]
            if holds.source is source:
                if holds.value.strip().lower() != in_file.value.strip().lower():
                    yield _tell(config, row, in_file, holds.source_name, values[holds.source_name], whose)
                break


def _dynamic(
    config: BrokerConfig, image: MetadataImage, name: str
) -> Iterator[tuple[ConfigSource, Mapping[str, str], str]]:
    """Dynamic configs that count for this topic config, which win first, and whose they are: a broker's number, or "".

    Those of one broker are for what brokers decide.
    """
    if config.is_broker and name not in (MIN_ISR, UNCLEAN):
        number = str(config.node_id)
        yield ConfigSource.DYNAMIC_BROKER, image.config(RESOURCE_BROKER, number), number
    yield ConfigSource.DYNAMIC_DEFAULT_BROKER, image.config(RESOURCE_BROKER, ""), ""


def _tell(config: BrokerConfig, row: TopicConfig, in_file: ConfigValue, name: str, value: str, whose: str) -> str:
    factor = next(synonym.factor for synonym in row.synonyms if synonym.broker_name == name)
    wanted = in_file.value if factor == 1 or int(in_file.value) < 0 else str(int(in_file.value) // factor)
    entity = f"--entity-name {whose}" if whose else "--entity-default"
    return (
        f"{in_file.source_name}={config.values[in_file.source_name]} in this node's file has no effect: "
        f"{f'broker {whose}' if whose else 'the cluster'} has {name}={value}, and that goes before files. "
        f"To change it: `streamlog configs alter {whose or 'all'} -c {name}={wanted}`, or kafka-configs.sh "
        f"--entity-type brokers {entity} --alter --add-config {name}={wanted}. To keep it: take the file's line out"
    )


def meant_for_controllers(config: BrokerConfig, image: MetadataImage) -> Iterator[str]:
    """A sentence for each setting of a mere broker's file that is not the default, and that controllers decide."""
    if config.is_controller:
        return
    for name, value in config.values.items():
        if name not in DECIDED_BY_CONTROLLERS:
            continue
        default = (TOPIC_CONFIGS[name] if name == UNCLEAN else BROKER_CONFIGS[name]).default
        if value.strip().lower() == default:
            continue
        said = f"{name}={value} in this broker's file has no effect: controllers decide that, each by its own file"
        if name != UNCLEAN:
            yield said
        elif name not in image.config(RESOURCE_BROKER, ""):  # it would be told above if that said otherwise
            yield f"{said}, or `streamlog configs alter all -c {name}={value}` for the whole cluster"


def meant_for_brokers(config: BrokerConfig) -> list[str]:
    """Settings of a mere controller's file that no controller looks at."""
    names = [] if config.is_broker else sorted(set(config.values) - READ_BY_CONTROLLERS)
    return [name for name in names if not name.startswith(QUORUM_PREFIX)]
