"""What an answer to a fetch means for each partition in it: records, a new leader, a refusal that passes or does not.

`fetcher.py` asks, and carries out what follows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from streamlog.client.cluster import Cluster, topic_error
from streamlog.client.config import Address
from streamlog.client.fetch_chunk import Chunk
from streamlog.client.fetch_session import FetchSpec
from streamlog.client.fetched import FetchSettings
from streamlog.client.metadata import Broker
from streamlog.client.positions import Phase, Position, Positions
from streamlog.client.values import TopicPartition
from streamlog.errors import RemoteProtocolError, StreamlogError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import FetchResponse
from streamlog.wire.messages.fetch import PartitionData

log = logging.getLogger(__name__)

PREFERRED_REPLICA_MS = 300_000
"""How long a follower that the leader named is used before the leader is asked again (Kafka's metadata age)."""


class Fetching(Protocol):
    """What the fetcher does about it."""

    def update(self, partition: TopicPartition) -> None: ...
    def line_up(self, partition: TopicPartition) -> None: ...
    def back_off(self, one: Position) -> None: ...
    def lose(self, one: Position, why: str) -> None: ...
    def fail(self, one: Position, failure: StreamlogError) -> bool: ...


class FetchAnswers:
    """See the module's essay. One per fetcher."""

    def __init__(self, cluster: Cluster, positions: Positions, settings: FetchSettings, fetching: Fetching) -> None:
        self._cluster, self._positions, self._settings, self._fetching = cluster, positions, settings, fetching

    def take_in(self, answer: FetchResponse, asked: Callable[[TopicPartition], FetchSpec | None]) -> bool:
        """Give the partitions of an answer what it brought. Whether there is anything new for the application."""
        endpoints = {
            one.node_id: Broker(one.node_id, Address(one.host, one.port), one.rack) for one in answer.node_endpoints
        }
        brought = False
        touched = []
        for topic in answer.responses:
            name = topic.topic or self._cluster.metadata.topic_name(topic.topic_id)
            if name is None:
                continue
            for data in topic.partitions:
                partition = TopicPartition(name, data.partition_index)
                one = self._positions.by_partition.get(partition)
                spec = asked(partition)
                # The same place in the same log: records of it are right, whatever happened to the position since.
                if (
                    one is not None
                    and spec is not None
                    and one.phase is Phase.FETCHING
                    and (one.topic_id, one.fetch_offset, one.leader_epoch) == spec[:3]
                ):
                    brought = self._on_partition(one, data, endpoints) or brought
                    touched.append(partition)
        for partition in touched:
            self._fetching.update(partition)
        return brought

    def _on_partition(self, one: Position, data: PartitionData, endpoints: dict[int, Broker]) -> bool:
        """Whether there is something new for the application."""
        if data.error_code:
            return self._on_partition_error(one, ErrorCode.of(data.error_code), data, endpoints)
        one.high_watermark = data.high_watermark
        one.last_stable_offset = data.last_stable_offset
        one.log_start_offset = data.log_start_offset
        if data.preferred_read_replica >= 0 and data.preferred_read_replica != one.read_replica:
            one.read_replica = data.preferred_read_replica
            one.read_replica_until_ms = self._cluster.env.clock.mono_ms() + PREFERRED_REPLICA_MS
        records = data.records
        if not records:
            return False
        view = records if isinstance(records, memoryview) else memoryview(records)
        aborted = (data.aborted_transactions or []) if self._settings.read_committed else None
        try:
            one.add_chunk(Chunk(view, one.fetch_offset, aborted))
        except RemoteProtocolError as failure:
            where = f"{one.partition} at offset {one.fetch_offset}"
            return self._fetching.fail(one, KafkaError(ErrorCode.CORRUPT_MESSAGE, f"cannot read {where}: {failure}"))
        self._fetching.line_up(one.partition)
        return True

    def _on_partition_error(
        self, one: Position, code: ErrorCode, data: PartitionData, endpoints: dict[int, Broker]
    ) -> bool:
        if code == ErrorCode.OFFSET_OUT_OF_RANGE:
            return self._on_out_of_range(one)
        if code.refresh_metadata or code in (ErrorCode.UNKNOWN_LEADER_EPOCH, ErrorCode.OFFSET_NOT_AVAILABLE):
            one.read_replica = None
            leader = data.current_leader
            known = leader is not None and self._cluster.learn_leader(
                one.partition, leader.leader_id, leader.leader_epoch, endpoints
            )
            if not known:
                self._cluster.refresh_nowait()
                self._fetching.back_off(one)
            return False
        if code == ErrorCode.TOPIC_AUTHORIZATION_FAILED:
            return self._fetching.fail(one, topic_error(one.partition.topic, code))
        return self._fetching.fail(one, KafkaError(code, f"fetching {one.partition} from offset {one.fetch_offset}"))

    def _on_out_of_range(self, one: Position) -> bool:
        if one.read_replica is not None or one.chunks:
            # A follower may lag; and what is buffered comes first, the offset behind it may mend until then.
            one.read_replica = None
            self._fetching.back_off(one)
            return False
        log.warning("partition=%s offset=%d is out of range", one.partition, one.fetch_offset)
        self._fetching.lose(one, f"offset {one.fetch_offset} of {one.partition} does not exist")
        return one.error is not None
