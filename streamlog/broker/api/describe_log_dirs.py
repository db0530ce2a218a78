"""DescribeLogDirs (API 35): what is in this broker's data directory, replica by replica (KIP-113).

There is one directory, so no replica is ever on its way from one to another.
"""

from __future__ import annotations

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.partition import Partition
from streamlog.wire.messages.describe_log_dirs import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)


def handle(broker: Broker, context: RequestContext, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse:
    topics: dict[str, DescribeLogDirsTopic] = {}
    for partition in _asked(broker, request):
        topic = topics.setdefault(partition.topic, DescribeLogDirsTopic(name=partition.topic))
        log = partition.log
        topic.partitions.append(
            DescribeLogDirsPartition(
                partition_index=partition.index,
                partition_size=log.size_bytes,
                offset_lag=max(0, log.high_watermark - log.log_end_offset),
            )
        )
    return DescribeLogDirsResponse(
        results=[
            DescribeLogDirsResult(
                log_dir=broker.logs.path,
                topics=list(topics.values()),
                usable_bytes=broker.env.storage.free_bytes(broker.logs.path),
            )
        ]
    )


def _asked(broker: Broker, request: DescribeLogDirsRequest) -> list[Partition]:
    """Those of the request that are here; what is not here is not mentioned."""
    if request.topics is None:
        return sorted(broker.partitions, key=lambda partition: (partition.topic, partition.index))
    asked = dict.fromkeys((topic.topic, index) for topic in request.topics for index in topic.partitions)
    found = (broker.partitions.find(*one) for one in asked)
    return [partition for partition in found if partition is not None]
