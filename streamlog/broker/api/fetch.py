"""Fetch (API 1): read batches as they lie in the log, now or as soon as there are enough of them.

A request that finds less than `min_bytes` waits in one place: on its partitions' growth, until enough has been
appended or `max_wait_ms` are over; then everything is read again. Records are byte ranges and are never looked into.

A follower is a reader that may see everything up to the log's end. Where its fetch begins tells what it has, so that
the high watermark and the in-sync set follow from it. It is told of a new high watermark even if there is nothing to
read, after a moment in which something may come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from uuid import UUID

from streamlog.broker import limits
from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.fetch_sessions import FetchPlan, FetchState
from streamlog.broker.partition import ISOLATION_LEVELS, READ_COMMITTED, GrowthWait, Partition
from streamlog.broker.replication.read_replica import nearest
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.fetch import (
    AbortedTransaction,
    EpochEndOffset,
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    LeaderIdAndEpoch,
    PartitionData,
)

NO_OFFSET = -1
NO_BROKER_EPOCH = -1
FROM_FOLLOWERS_SINCE = 11
"""Version whose clients know that replicas besides the leader can be read (KIP-392)."""
EMPTY = b""


def handle(broker: Broker, context: RequestContext, request: FetchRequest) -> FetchResponse | Awaitable[FetchResponse]:
    if request.isolation_level not in ISOLATION_LEVELS:
        return _refuse(request, ErrorCode.INVALID_REQUEST)
    try:
        plan = broker.fetch_sessions.plan(request, context.version, broker.env.clock.mono_ms())
    except KafkaError as error:
        return FetchResponse(error_code=error.code)
    fetch = _Fetch(broker, request, plan, context.version)
    fetch.read()
    fetch.is_first_look = False
    if fetch.is_complete or request.max_wait_ms <= 0 or not plan.states:
        return fetch.response()
    return _wait(fetch, request.max_wait_ms)


def _refuse(request: FetchRequest, code: ErrorCode) -> FetchResponse:
    """The whole request. The first versions can say so of each partition only."""
    return FetchResponse(
        error_code=code,
        responses=[
            FetchableTopicResponse(
                topic=topic.topic,
                topic_id=topic.topic_id,
                partitions=[
                    PartitionData(
                        partition_index=asked.partition,
                        error_code=code,
                        high_watermark=NO_OFFSET,
                        aborted_transactions=None,
                        records=EMPTY,
                    )
                    for asked in topic.partitions
                ],
            )
            for topic in request.topics
        ],
    )


async def _wait(fetch: _Fetch, max_wait_ms: int) -> FetchResponse:
    """Read again when there is enough. Cancelling (the client has left) leaves nothing behind."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + max_wait_ms / 1000
    partitions = fetch.partitions()
    while not fetch.is_complete:
        growth = GrowthWait(fetch.min_bytes - fetch.read_bytes)
        for partition in partitions:
            fetch.waits(partition)[growth] = None
        if fetch.is_behind:
            growth.linger()
        timer = loop.call_at(deadline, growth.wake)
        try:
            await growth.done
        finally:
            timer.cancel()
            growth.close()
            for partition in partitions:
                fetch.waits(partition).pop(growth, None)
        fetch.read()
        if growth.is_overdue or loop.time() >= deadline:
            break
    return fetch.response()


class _Fetch:
    """One request while it is answered. `read` may be called again; the last one counts."""

    def __init__(self, broker: Broker, request: FetchRequest, plan: FetchPlan, version: int) -> None:
        self._broker = broker
        self._plan = plan
        self._isolation_level = request.isolation_level
        self._bytes_max = max(0, min(request.max_bytes, broker.fetch_bytes_max, limits.FETCH_RESPONSE_BYTES_MAX))
        replica = request.replica_state
        self._replica_id = request.replica_id if replica is None else replica.replica_id
        self._replica_epoch = NO_BROKER_EPOCH if replica is None else replica.replica_epoch
        self._is_follower = self._replica_id >= 0
        self._rack = request.rack_id if broker.sends_to_near_replicas and not self._is_follower else ""
        self._only_from_leader = self._is_follower or version < FROM_FOLLOWERS_SINCE
        self._now_ms = broker.env.clock.mono_ms()
        self.is_first_look = True
        """A follower's fetch tells where it stood when it asked, and not later."""
        self.is_behind = False
        """It is a follower's that knows less of a high watermark than we do."""
        self.min_bytes = request.min_bytes
        self.read_bytes = 0
        self.is_complete = False
        """Enough was read, or something has to be said at once."""
        self._found: list[tuple[FetchState, PartitionData]] = []

    def partitions(self) -> list[Partition]:
        found = (self._find(state) for state in self._plan.states)
        return [partition for partition in found if isinstance(partition, Partition)]

    def _find(self, state: FetchState) -> Partition | ErrorCode:
        topic = state.topic
        if isinstance(topic, UUID):
            image = self._broker.image.topics_by_id.get(topic)
            if image is None:
                return ErrorCode.UNKNOWN_TOPIC_ID
            topic = image.name
        partition = self._broker.partitions.find(topic, state.index)
        if partition is None:
            return self._broker.partitions.absence(topic, state.index)
        if self._only_from_leader and not partition.is_leader:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        return partition

    def waits(self, partition: Partition) -> dict[GrowthWait, None]:
        """Who waits for the same as this one."""
        return partition.append_waits if self._is_follower else partition.growth_waits

    def read(self) -> None:
        """Read every partition of the plan as far as `max_bytes` reaches."""
        self.read_bytes = 0
        self.is_complete = False
        self.is_behind = False
        self._found = []
        only_news = self._plan.is_incremental
        for state in self._plan.states:
            partition = self._find(state)
            if isinstance(partition, ErrorCode):
                self._fail(state, partition)
                continue
            log = partition.log
            if self._is_follower:
                end_offset = log.log_end_offset
                self.is_behind = self.is_behind or state.replica_high_watermark < log.high_watermark
            else:
                end_offset = partition.readable_end_offset(self._isolation_level)
            if (
                only_news
                and state.fetch_offset == end_offset
                and state.high_watermark == log.high_watermark
                and state.log_start_offset == log.log_start_offset
                and state.current_leader_epoch in (-1, partition.leader_epoch)
                and (self._is_idle_follower(state, partition) if self._is_follower else state.last_fetched_epoch < 0)
            ):
                continue  # nothing new for this one: the most frequent case by far
            self._read_one(state, partition, end_offset)
        if self.read_bytes >= self.min_bytes:
            self.is_complete = True

    def _is_idle_follower(self, state: FetchState, partition: Partition) -> bool:
        """Whether a follower stands where it stood, at the end of the same past; and note that it does."""
        if state.last_fetched_epoch != partition.log.epochs.latest_with_records(partition.log.log_end_offset):
            return False
        return self._note_follower(state, partition) is ErrorCode.NONE

    def _note_follower(self, state: FetchState, partition: Partition) -> ErrorCode:
        """Tell the leader where a follower stands. Its log is ours up to there."""
        if not self.is_first_look:
            return ErrorCode.NONE
        code = partition.on_replica_fetch(
            self._replica_id, state.fetch_offset, state.replica_log_start_offset, self._replica_epoch, self._now_ms
        )
        if code is ErrorCode.UNKNOWN_LEADER_EPOCH and state.current_leader_epoch < 0:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER  # it has not named an epoch that we could not know
        return code

    def _read_one(self, state: FetchState, partition: Partition, end_offset: int) -> None:
        log = partition.log
        epoch = state.current_leader_epoch
        if epoch >= 0 and epoch != partition.leader_epoch:
            known = epoch < partition.leader_epoch
            data = self._fail(state, ErrorCode.FENCED_LEADER_EPOCH if known else ErrorCode.UNKNOWN_LEADER_EPOCH)
            if known:
                data.current_leader = LeaderIdAndEpoch(
                    leader_id=self._broker.node_id, leader_epoch=partition.leader_epoch
                )
            return
        data = PartitionData(
            partition_index=state.index,
            high_watermark=log.high_watermark,
            last_stable_offset=log.last_stable_offset,
            log_start_offset=log.log_start_offset,
            aborted_transactions=None,
            records=EMPTY,
        )
        try:
            if state.last_fetched_epoch >= 0 and self._diverges(state, partition, data):
                self._found.append((state, data))
                return
            if self._rack and self._is_read_better_elsewhere(state, partition, data):
                return
            room = self._bytes_max - self.read_bytes
            if self._is_follower and not self._broker.replication.may_send(partition, self._replica_id, self._now_ms):
                end_offset = state.fetch_offset
            in_range = log.log_start_offset <= state.fetch_offset <= log.log_end_offset
            if room > 0 or not self.read_bytes or not in_range:
                read = log.read(
                    state.fetch_offset,
                    max(0, min(state.max_bytes, room)),
                    end_offset=end_offset,
                    at_least_one_batch=not self.read_bytes,
                )
                data.records = read.data
                self.read_bytes += len(read.data)
                if self._is_follower:
                    self._broker.replication.on_sent(partition, self._replica_id, len(read.data), self._now_ms)
                    code = self._note_follower(state, partition)
                    if code is not ErrorCode.NONE:
                        self.read_bytes -= len(read.data)
                        self._fail(state, code)
                        return
                    data.high_watermark = log.high_watermark
                    data.last_stable_offset = log.last_stable_offset
                if self._isolation_level == READ_COMMITTED:
                    data.aborted_transactions = [
                        AbortedTransaction(producer_id=aborted.producer_id, first_offset=aborted.first_offset)
                        for aborted in log.aborted_transactions(state.fetch_offset, read.next_offset)
                    ]
        except KafkaError as error:
            self._fail(state, error.code)
            return
        self._found.append((state, data))

    def _is_read_better_elsewhere(self, state: FetchState, partition: Partition, data: PartitionData) -> bool:
        """Whether a replica nearer to the reader has what it asks for; then it learns which, and nothing else."""
        if partition.leader is None:
            return False
        brokers = self._broker.image.brokers

        def rack_of(broker_id: int) -> str | None:
            broker = brokers.get(broker_id)
            return None if broker is None or not broker.is_active else broker.rack

        found = nearest(partition.leader, self._rack, state.fetch_offset, rack_of)
        if found == self._broker.node_id:
            return False
        data.preferred_read_replica = found
        self._found.append((state, data))
        self.is_complete = True
        return True

    def _diverges(self, state: FetchState, partition: Partition, data: PartitionData) -> bool:
        """Whether the reader's past is not ours (KIP-320, KIP-595); then it learns where they part."""
        epoch, end_offset = partition.log.end_offset_for_epoch(state.last_fetched_epoch)
        if epoch < 0:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, f"epoch {state.last_fetched_epoch} never was")
        if epoch == state.last_fetched_epoch and end_offset >= state.fetch_offset:
            return False
        data.diverging_epoch = EpochEndOffset(epoch=epoch, end_offset=end_offset)
        self.is_complete = True
        return True

    def _fail(self, state: FetchState, code: ErrorCode) -> PartitionData:
        data = PartitionData(
            partition_index=state.index,
            error_code=code,
            high_watermark=NO_OFFSET,
            aborted_transactions=None,
            records=EMPTY,
        )
        self._found.append((state, data))
        self.is_complete = True
        return data

    def response(self) -> FetchResponse:
        """The response; and note in the session what it tells."""
        topics: list[FetchableTopicResponse] = []
        topic: str | UUID | None = None
        session = self._plan.session
        for state, data in self._found:
            news = state.tell(data.high_watermark, data.log_start_offset)
            has_records = data.records is not None and len(data.records) > 0
            if self._plan.is_incremental and not (
                news
                or has_records
                or data.error_code
                or data.diverging_epoch is not None
                or data.preferred_read_replica >= 0
            ):
                continue
            if session is not None and has_records:
                session.move_to_end(state)
            if state.topic != topic:
                topic = state.topic
                if isinstance(topic, UUID):
                    topics.append(FetchableTopicResponse(topic_id=topic))
                else:
                    topics.append(FetchableTopicResponse(topic=topic))
            topics[-1].partitions.append(data)
        return FetchResponse(session_id=self._plan.session_id, responses=topics)
