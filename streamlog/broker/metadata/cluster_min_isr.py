"""One `min.insync.replicas` for the cluster, while replicas can be eligible as leaders (KIP-966).

The high watermark stops below min ISR, and the controller relies on it when it calls a replica eligible. Both have to
mean the same number. So it is a config of the cluster and its topics then: not of one broker, nor of the properties
file of whoever happens to be the controller or to lead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streamlog.broker.metadata.changes import MIN_ISR, has_elr
from streamlog.broker.metadata.decision import refuse
from streamlog.broker.metadata.image import RESOURCE_BROKER, MetadataImage
from streamlog.broker.topic_configs import TOPIC_CONFIGS, ConfigSource, find_value
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.internal.metadata import ConfigRecord


def settle_min_isr(image: MetadataImage, topic_defaults: Mapping[str, str]) -> Iterator[ConfigRecord]:
    """Records that go with the feature's first level: this node's number for the cluster, if it has none, and none for
    single brokers."""
    if MIN_ISR not in image.config(RESOURCE_BROKER, ""):
        own = find_value(TOPIC_CONFIGS[MIN_ISR], {}, [(ConfigSource.STATIC_BROKER, topic_defaults)])[0].value
        yield ConfigRecord(resource_type=RESOURCE_BROKER, resource_name="", name=MIN_ISR, value=own)
    for (kind, name), values in sorted(image.configs.items()):
        if kind == RESOURCE_BROKER and name and MIN_ISR in values:
            yield ConfigRecord(resource_type=RESOURCE_BROKER, resource_name=name, name=MIN_ISR, value=None)


def check_min_isr(image: MetadataImage, broker: str, after: Mapping[str, str]) -> None:
    """Refuse configs of a broker, or of all with an empty name, that would leave more than one number, or none.

    Raises KafkaError: INVALID_CONFIG.
    """
    if not has_elr(image):
        return
    if broker and MIN_ISR in after:
        raise refuse(ErrorCode.INVALID_CONFIG, f"{MIN_ISR} is set for a topic or for all brokers, not for one")
    if not broker and MIN_ISR not in after and MIN_ISR in image.config(RESOURCE_BROKER, ""):
        raise refuse(
            ErrorCode.INVALID_CONFIG,
            f"{MIN_ISR} of all brokers can be changed, but not removed while there are eligible leader replicas",
        )
