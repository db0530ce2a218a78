"""Sends what the accumulator decides, and carries the answers back.

One task pumps: it closes batches whose linger is over, fills the requests of every broker that has room for one, and
sleeps until a batch, an answer, new metadata or a deadline wakes it. Answers arrive in the connection's own callback.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from streamlog.client.accumulator import Accumulator, Limits, Verdict
from streamlog.client.cluster import Cluster, topic_error
from streamlog.client.config import Address
from streamlog.client.connection import Connection
from streamlog.client.delivery import Delivery
from streamlog.client.failures import BrokerUnreachable, DeliveryUnknown, one_line
from streamlog.client.lease import Lease
from streamlog.client.links import Lane
from streamlog.client.metadata import Broker, is_topic_name
from streamlog.client.producer_queue import Batch, PartitionKey, ProducerIdentity
from streamlog.client.refusals import RefusalWatch
from streamlog.client.transactions import PRODUCE_VERSION_1_MAX, VERSION_2, Transactions
from streamlog.client.values import TopicPartition
from streamlog.errors import EnvironmentFailure, StreamlogError, UserError
from streamlog.wire.apis import ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages import (
    InitProducerIdRequest,
    InitProducerIdResponse,
    ProduceRequest,
    ProduceResponse,
)
from streamlog.wire.messages.produce import PartitionProduceData, PartitionProduceResponse, TopicProduceData
from streamlog.wire.schema import ZERO_UUID

log = logging.getLogger(__name__)

IN_FLIGHT_REQUESTS_MAX = 5
"""Per broker, as in Java."""

PRODUCE_VERSION_WITHOUT_IDS = 12

TRANSACTION_TIMEOUT_NONE_MS = 0x7FFF_FFFF

LEASE_LOST = "who wrote them may not write any more: others have taken over"


class Sender:
    """See the module's essay. Owned by a producer."""

    def __init__(
        self,
        cluster: Cluster,
        limits: Limits,
        acks: int,
        buffer_bytes_max: int,
        *,
        check_open: Callable[[], None],
        on_end: Callable[[StreamlogError], None],
        missing_topic_timeout_ms: int | None = None,
        lease: Lease | None = None,
    ) -> None:
        """
        Args:    check_open: raises when no record can be taken now. on_end: told when nothing can be sent any more.
                 missing_topic_timeout_ms: how long a topic may be missing; None: as long as its records wait.
                 lease: nothing leaves but while it is held.
        """
        self.accumulator = Accumulator(limits, self)
        self.delivery = Delivery(self.accumulator, cluster.metadata, buffer_bytes_max)
        self.wake = asyncio.Event()  # the pump has to look
        self.transactions: Transactions | None = None
        self._cluster = cluster
        self._clock = cluster.env.clock
        self._acks = acks
        self._check_open = check_open
        self._on_end = on_end
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._in_flight: dict[int, int] = {}  # node id -> unanswered requests
        self._connecting: set[int] = set()  # brokers that a task is connecting to
        self._acquiring = False  # a task is asking for a producer id
        self._missing_topic_timeout_ms = missing_topic_timeout_ms
        self._missing_since_ms: dict[str, int] = {}  # topics with records that the brokers do not have
        self._doubted: dict[PartitionKey, int] = {}  # partitions that are not in the metadata -> refresh that decides
        self._refusals = RefusalWatch()
        self._lease = lease
        self._lapsed = False  # and the log says so
        self._was_lost = True  # the lease, at its last change
        if lease is not None:
            self._was_lost = lease.lost
            lease.on_change(self._on_lease)
        cluster.on_change(self._on_change)

    def use(self, transactions: Transactions) -> None:
        """Send in transactions only."""
        self.transactions = self.delivery.transactions = transactions

    def close(self) -> None:
        """Answer for what is left; answers that still arrive are dropped."""
        self._closed = True
        if self._lease is not None:
            self._lease.forget(self._on_lease)
        self.delivery.settle(self.accumulator.abandon())
        if self._timer is not None:
            self._timer.cancel()

    # -- what the accumulator asks (accumulator.Port)

    def opening_batch(self) -> int:
        self._check_open()
        if self.transactions is not None:
            self.transactions.check_may_send()
        if self.accumulator.limits.linger_ms == 0:
            self.wake.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(
                self.accumulator.limits.linger_ms / 1000, self._on_timer
            )
        return self._clock.mono_ms()

    def check_partition(self, key: PartitionKey) -> None:
        topic = key[0]
        partition: object = key[1]  # what callers without a type checker pass would else be found out by the pump
        if not is_topic_name(topic):
            raise topic_error(topic, ErrorCode.INVALID_TOPIC_EXCEPTION)
        if not isinstance(partition, int) or partition < 0:
            raise UserError(f"partition {partition!r} of '{topic}' is no number from 0 upwards")

    def batch_ready(self) -> None:
        self.wake.set()

    def leader(self, key: PartitionKey) -> int | None:
        return self._cluster.metadata.leader(*key)

    def draw(self) -> float:
        return self._cluster.env.entropy.random()

    def may_send(self, key: PartitionKey) -> bool:
        return self.transactions is None or self.transactions.may_send(key)

    def on_gap(self, key: PartitionKey) -> None:
        assert self.transactions is not None, "only asked in transactions"
        self.transactions.fail(DeliveryUnknown(f"records for {key[0]}-{key[1]} may have been lost"))

    # -- the lease

    def _on_lease(self) -> None:
        assert self._lease is not None, "who listens has one"
        self._drop_if_lost()  # had again: what came before that is not covered
        self._was_lost = self._lease.lost
        self.wake.set()

    def _drop_if_lost(self) -> None:
        if self._lease is not None and (self._lease.lost or self._was_lost):
            self._lapsed = False
            self.delivery.settle(self.accumulator.drop_all(LEASE_LOST))

    def _may_write(self) -> bool:
        """Asked right before bytes leave: a process can be stopped at any moment, for any time."""
        if self._lease is None or self._lease.held:
            if self._lapsed:
                self._lapsed = False
                log.warning("going on: the lease was prolonged")
            return True
        if not self._lapsed and not self._lease.lost:
            self._lapsed = True
            log.warning("nothing is sent until it is known whether others have taken over: the lease has run out")
        return False

    def _lease_end_ms(self, now_ms: int) -> int | None:
        """When to break off what has no answer then, unless that was done."""
        if self._lease is None or not any(self._in_flight.values()):
            return None
        until_ms = self._lease.until_ms
        return until_ms if until_ms is not None and until_ms > now_ms else None

    def _break_off_if_lapsed(self) -> None:
        """What was sent in time and has no answer may still be in this machine, for a network that comes back."""
        if self._lease is None or self._lease.held or self._lease.lost:
            return
        for node_id, count in list(self._in_flight.items()):
            connection = self._cluster.open_connection(node_id, Lane.PRODUCE) if count else None
            if connection is not None:
                connection.break_off(BrokerUnreachable("no answer came before the lease ran out"))

    # -- the pump

    def _on_timer(self) -> None:
        self._timer = None
        self.wake.set()

    def _on_change(self) -> None:
        metadata = self._cluster.metadata
        for key in self.accumulator.queues:
            self.accumulator.set_leader(key, metadata.leader(*key))
        if self._cluster.crashed is not None:
            self.end(EnvironmentFailure(f"the producer stopped after an internal error: {self._cluster.crashed!r}"))
        self.wake.set()

    def end(self, failure: StreamlogError) -> None:
        """Nothing can be sent any more: answer everybody."""
        if self.delivery.fatal is None:
            self.delivery.fatal = failure
        self.delivery.settle(self.accumulator.abandon())
        self._on_end(failure)

    async def pump_forever(self) -> None:
        while True:
            await self.wake.wait()
            self.wake.clear()
            now_ms = self._clock.mono_ms()
            self._pump(now_ms)
            deadlines = (self.accumulator.next_deadline_ms(sending=True), self._lease_end_ms(now_ms))
            self._sleep_until(min((one for one in deadlines if one is not None), default=None), now_ms)

    def _sleep_until(self, deadline_ms: int | None, now_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline_ms is not None:
            self._timer = asyncio.get_running_loop().call_later(max(deadline_ms - now_ms, 1) / 1000, self._on_timer)

    def _pump(self, now_ms: int) -> None:
        accumulator = self.accumulator
        self._break_off_if_lapsed()
        accumulator.close_lingering(now_ms)
        accumulator.retries_due(now_ms)
        self.delivery.settle(accumulator.expire(now_ms))
        self._drop_if_lost()
        if accumulator.leaderless:
            self._find_leaders()
        nodes = accumulator.nodes_with_work()
        if nodes and accumulator.needs_identity and not self._acquiring and self.transactions is None:
            self._acquiring = True
            self._cluster.scope.spawn("producer id", self._acquire_identity())
        for node_id in nodes:
            while self._in_flight.get(node_id, 0) < IN_FLIGHT_REQUESTS_MAX and self._may_write():
                connection = self._cluster.open_connection(node_id, Lane.PRODUCE)
                if connection is None:
                    self._connect(node_id)
                    break
                if self._lease is not None and connection.unwritten_bytes and self._in_flight.get(node_id):
                    break  # it would wait in this process, and leave when nobody asks; the next answer wakes us
                batches = accumulator.drain(node_id, now_ms)
                self.delivery.settle(accumulator.take_unsent())
                if not batches:
                    break
                self._send(connection, node_id, batches)

    def _find_leaders(self) -> None:
        """Ask about partitions whose leader is not known; refuse those that do not exist."""
        metadata = self._cluster.metadata
        topics = dict.fromkeys(topic for topic, _ in self.accumulator.leaderless)
        known = self._cluster.track(topics)
        given_up = self._given_up(topics)
        for topic, partition in list(self.accumulator.leaderless):
            count = metadata.partition_count(topic)
            code = metadata.errors.get(topic)
            if code is not None and not code.retriable:
                refusal = topic_error(topic, code)
                self.delivery.settle(self.accumulator.refuse((topic, partition), code, one_line(refusal)))
            elif topic in given_up:
                code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                why = one_line(topic_error(topic, code))
                self.delivery.settle(self.accumulator.refuse((topic, partition), code, why, numbered=True))
            elif not 0 <= partition < count and count:
                number = self._doubted.setdefault((topic, partition), self._cluster.refresh_nowait())
                if self._cluster.answered(number):
                    del self._doubted[topic, partition]
                    why = f"topic '{topic}' has {count} partitions, there is no partition {partition}"
                    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                    self.delivery.settle(self.accumulator.refuse((topic, partition), code, why))
        if known and self.accumulator.leaderless:
            self._cluster.refresh_nowait()

    def _given_up(self, topics: Iterable[str]) -> set[str]:
        """Which of these topics have been missing for too long."""
        patience_ms = self._missing_topic_timeout_ms
        if patience_ms is None:
            return set()
        errors, now_ms = self._cluster.metadata.errors, self._clock.mono_ms()
        missing = [topic for topic in topics if errors.get(topic) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
        self._missing_since_ms = {topic: self._missing_since_ms.get(topic, now_ms) for topic in missing}
        return {topic for topic in missing if now_ms - self._missing_since_ms[topic] >= patience_ms}

    def _connect(self, node_id: int) -> None:
        if node_id not in self._connecting:
            self._connecting.add(node_id)
            self._cluster.scope.spawn(f"reach {node_id}", self._reach(node_id))

    async def _reach(self, node_id: int) -> None:
        try:
            await self._cluster.connection(node_id, Lane.PRODUCE)
        except StreamlogError as failure:
            log.info("node=%d unreachable for producing: %s", node_id, one_line(failure))
            self._cluster.refresh_nowait()
        finally:
            self._connecting.discard(node_id)
            self.wake.set()

    async def _acquire_identity(self) -> None:
        """Get a producer id; until then nothing is sent. A refusal ends the producer."""

        async def attempt() -> InitProducerIdResponse:
            request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=TRANSACTION_TIMEOUT_NONE_MS)
            answer = await self._cluster.request_any(request, InitProducerIdResponse)
            if answer.error_code:
                raise KafkaError(ErrorCode.of(answer.error_code), "the broker gave no producer id")
            return answer

        try:
            while True:
                try:
                    answer = await self._cluster.retrying("getting a producer id", attempt)
                    break
                except BrokerUnreachable as failure:
                    log.warning("no producer id yet, trying again: %s", one_line(failure))
            self.accumulator.identity = ProducerIdentity(answer.producer_id, answer.producer_epoch)
        except KafkaError as refusal:
            self.end(refusal)
        finally:
            self._acquiring = False
            self.wake.set()

    # -- requests and answers

    def _send(self, connection: Connection, node_id: int, batches: list[tuple[PartitionKey, Batch]]) -> None:
        metadata = self._cluster.metadata
        topics: dict[str, TopicProduceData] = {}
        with_ids = True
        for (topic, partition), batch in batches:
            data = topics.get(topic)
            if data is None:
                topic_id = metadata.topic_id(topic)
                with_ids = with_ids and topic_id != ZERO_UUID
                data = topics[topic] = TopicProduceData(name=topic, topic_id=topic_id, partition_data=[])
            data.partition_data.append(PartitionProduceData(index=partition, records=batch.encoded))
        request = ProduceRequest(
            transactional_id=self.transactions.transactional_id if self.transactions is not None else None,
            acks=self._acks,
            timeout_ms=self._cluster.settings.request_timeout_ms,
            topic_data=list(topics.values()),
        )
        version_max = None if with_ids else PRODUCE_VERSION_WITHOUT_IDS
        if self.transactions is not None and self.transactions.version < VERSION_2:
            version_max = PRODUCE_VERSION_1_MAX
        try:
            version = connection.version_of(ApiKey.PRODUCE, version_max)
            if not self._may_write():  # building the batches took too long
                self._answer_all(batches, ErrorCode.LEADER_NOT_AVAILABLE)  # it did not leave this process
                return
            if self._acks == 0:
                connection.send(request, ProduceResponse, None, version=version)
                self._answer_all(batches, ErrorCode.NONE)
                return
            connection.send(
                request,
                ProduceResponse,
                lambda answer: self._on_response(node_id, batches, answer),
                version=version,
            )
        except BrokerUnreachable:
            self._answer_all(batches, ErrorCode.LEADER_NOT_AVAILABLE)  # it did not leave this process
            return
        except KafkaError as refusal:
            self._answer_all(batches, refusal.code, one_line(refusal))
            return
        except Exception as failure:  # the request cannot be built: nothing was written
            if len(batches) > 1:
                for one in batches:
                    self._send(connection, node_id, [one])  # find out whose fault it is
            else:
                self.delivery.settle([self.accumulator.on_unsendable(*batches[0], failure)])
            return
        self._in_flight[node_id] = self._in_flight.get(node_id, 0) + 1

    def _answer_all(
        self, batches: Sequence[tuple[PartitionKey, Batch]], code: ErrorCode, message: str | None = None
    ) -> None:
        now_ms = self._clock.mono_ms()
        for key, batch in batches:
            verdict = self.accumulator.on_answer(key, batch, code, now_ms, retriable=code.retriable, message=message)
            if verdict is not None:
                self.delivery.settle([verdict])
        if code:
            self._cluster.refresh_nowait()

    def _on_response(
        self, node_id: int, batches: list[tuple[PartitionKey, Batch]], answer: ProduceResponse | Exception
    ) -> None:
        self._in_flight[node_id] -= 1
        self.wake.set()
        if self._closed or self.delivery.fatal is not None:
            return
        if isinstance(answer, Exception):
            self._answer_all(batches, ErrorCode.NETWORK_EXCEPTION, one_line(answer))
            return
        answers: dict[PartitionKey, PartitionProduceResponse] = {}
        for topic in answer.responses:
            name = topic.name or self._cluster.metadata.topic_name(topic.topic_id)
            for one in topic.partition_responses:
                if name is not None:
                    answers[name, one.index] = one
        endpoints = {
            one.node_id: Broker(one.node_id, Address(one.host, one.port), one.rack) for one in answer.node_endpoints
        }
        now_ms = self._clock.mono_ms()
        verdicts = []
        for key, batch in batches:
            verdict = self._on_partition(key, batch, answers.get(key), endpoints, now_ms)
            if verdict is not None:
                verdicts.append(verdict)
        self.delivery.settle(verdicts)

    def _on_partition(
        self,
        key: PartitionKey,
        batch: Batch,
        answer: PartitionProduceResponse | None,
        endpoints: dict[int, Broker],
        now_ms: int,
    ) -> Verdict | None:
        if answer is None:
            message = "the broker's answer does not mention the partition"
            return self.accumulator.on_answer(
                key, batch, ErrorCode.NETWORK_EXCEPTION, now_ms, retriable=True, message=message
            )
        code = ErrorCode.of(answer.error_code)
        if code is ErrorCode.NONE:
            if self._refusals.is_refused:
                self._refusals.accepted(now_ms)
        elif code.retriable:
            why = f"{answer.error_message} ({code.name})" if answer.error_message else code.name
            self._refusals.refused(f"writing to {TopicPartition(*key)}", why, now_ms)
        at_once = False
        if code.refresh_metadata:
            leader = answer.current_leader
            if leader is not None:
                one = TopicPartition(*key)
                at_once = self._cluster.learn_leader(one, leader.leader_id, leader.leader_epoch, endpoints)
            else:
                self._cluster.refresh_nowait()
        return self.accumulator.on_answer(
            key,
            batch,
            code,
            now_ms,
            base_offset=answer.base_offset,
            append_time_ms=answer.log_append_time_ms,
            retriable=code.retriable,
            message=answer.error_message,
            at_once=at_once,
        )
