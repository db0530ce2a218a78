"""Topics that a client or a coordinator needs, created on the way: the controller decides, as for CreateTopics.

What they look like is this broker's to say, as in Kafka: its file is the one that has `auto.create.topics.enable`.
"""

from __future__ import annotations

from collections.abc import Iterable

from streamlog.broker.api import forward
from streamlog.broker.broker import Broker
from streamlog.broker.metadata.topic_names import CONSUMER_OFFSETS
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)


async def auto_create_topics(broker: Broker, names: Iterable[str]) -> dict[str, ErrorCode]:
    """Create topics that a client or a coordinator needs; returns the errors of those that cannot be."""
    request = CreateTopicsRequest(topics=[_topic(broker, name) for name in names])
    response = await forward.ask(broker, request, CreateTopicsResponse)
    codes = {result.name: ErrorCode.of(result.error_code) for result in response.topics}
    # Somebody else may have been faster, and then the topic is there.
    return {name: code for name, code in codes.items() if code not in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS)}


def _topic(broker: Broker, name: str) -> CreatableTopic:
    config = broker.config
    if name != CONSUMER_OFFSETS:
        return CreatableTopic(
            name=name,
            num_partitions=config.integer("num.partitions"),
            replication_factor=config.integer("default.replication.factor"),
        )
    active = sum(node.is_active for node in broker.image.brokers.values())
    configs = {
        "cleanup.policy": "compact",
        "compression.type": "producer",
        "segment.bytes": config.text("offsets.topic.segment.bytes"),
    }
    return CreatableTopic(
        name=name,
        num_partitions=config.integer("offsets.topic.num.partitions"),
        replication_factor=config.offsets_replicas(active),
        configs=[CreatableTopicConfig(name=key, value=value) for key, value in configs.items()],
    )
