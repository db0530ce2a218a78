"""Transactions of one producer: which state it is in, and the talks with the coordinator.

    NEW -> READY -> OPEN -> ENDING -> READY ...       OPEN -> BROKEN (something failed) -> ENDING (abort) -> READY
    any -> FENCED: another producer has the transactional id now; nothing works any more

With transaction version 2 (KIP-890) brokers add partitions to the transaction by themselves when they are first
written, and every end of a transaction raises the producer's epoch, so that a request of an old transaction that
arrives late is refused. With older brokers partitions and groups are announced (AddPartitionsToTxn, AddOffsetsToTxn),
and only an abort raises the epoch.

A transaction that cannot be completed is BROKEN: a record was refused, or nobody knows what became of one, or the
offsets' group went on without us. Then sending and committing raise, and aborting is the only way on.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import TypeVar

from streamlog.client.accumulator import Accumulator
from streamlog.client.cluster import GROUP_COORDINATOR, TRANSACTION_COORDINATOR, Cluster
from streamlog.client.failures import LOST_COORDINATOR, BrokerUnreachable, ProducerFenced, one_line
from streamlog.client.producer_queue import NO_IDENTITY, PartitionKey, ProducerIdentity
from streamlog.client.values import GroupMetadata, OffsetAndMetadata, TopicPartition, partitions_by_topic
from streamlog.errors import RemoteProtocolError, StreamlogError, UserError
from streamlog.wire.apis import ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.message import Request, Response
from streamlog.wire.messages import (
    AddOffsetsToTxnRequest,
    AddOffsetsToTxnResponse,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    EndTxnRequest,
    EndTxnResponse,
    InitProducerIdRequest,
    InitProducerIdResponse,
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
)
from streamlog.wire.messages.add_partitions_to_txn import AddPartitionsToTxnTopic
from streamlog.wire.messages.txn_offset_commit import TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic

R = TypeVar("R", bound=Response)

log = logging.getLogger(__name__)

VERSION_2 = 2
"""Level of the cluster's feature `transaction.version` from which on KIP-890's protocol is spoken."""

PRODUCE_VERSION_1_MAX = 11
TXN_OFFSET_COMMIT_VERSION_1_MAX = 4
END_TXN_VERSION_1_MAX = 4
ADD_PARTITIONS_CLIENT_VERSION_MAX = 3
"""Higher versions of these mean the new protocol, or are for brokers."""

FENCED = frozenset(
    {
        ErrorCode.PRODUCER_FENCED,
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ErrorCode.INVALID_PRODUCER_ID_MAPPING,
    }
)
"""Answers of a coordinator that end a producer."""


class State(Enum):
    NEW = "new"
    READY = "ready"
    OPEN = "open"
    BROKEN = "broken"
    ENDING = "ending"
    FENCED = "fenced"


class Transactions:
    """See the module's essay."""

    def __init__(
        self,
        cluster: Cluster,
        accumulator: Accumulator,
        transactional_id: str,
        timeout_ms: int,
        wake: Callable[[], None],
    ) -> None:
        self.transactional_id = transactional_id
        self.state = State.NEW
        self.version = 1  # of the protocol; known after `init`
        self._cluster = cluster
        self._accumulator = accumulator
        self._timeout_ms = timeout_ms
        self._wake = wake
        self._why: StreamlogError | None = None  # BROKEN or FENCED: the first reason
        self._identity = NO_IDENTITY  # valid from READY on
        self._partitions: dict[PartitionKey, None] = {}  # part of the transaction
        self._pending: dict[PartitionKey, None] = {}  # version 1: to be announced
        self._announcing = False
        self._groups: dict[str, None] = {}  # version 1: announced
        self._begun = False  # the coordinator has a transaction to end
        self._committing: bool | None = None  # how the transaction is being ended; valid when ENDING

    # -- what the producer asks

    @property
    def fenced(self) -> StreamlogError | None:
        """Why this producer is at its end, if it is."""
        return self._why if self.state is State.FENCED else None

    @property
    def unfinished(self) -> bool:
        """Whether a transaction is open that nobody has tried to end."""
        return self.state in (State.OPEN, State.BROKEN)

    def check_may_send(self) -> None:
        """Raises when a record cannot be taken now."""
        if self.state is not State.OPEN:
            raise self._not_open()

    def may_send(self, key: PartitionKey) -> bool:
        """Whether batches of a partition may leave; version 1 announces it first."""
        if self.state not in (State.OPEN, State.ENDING):
            return False
        if key in self._partitions:
            return True
        if self.version >= VERSION_2:
            self._partitions[key] = None
            self._begun = True
            return True
        self._pending[key] = None
        if not self._announcing:
            self._announcing = True
            self._cluster.scope.spawn("announce partitions", self._announce())
        return False

    def fail(self, why: StreamlogError) -> None:
        """Something of the transaction failed: it can only be aborted."""
        if self.state is State.OPEN:
            self.state, self._why = State.BROKEN, why
            log.warning("transactional_id=%s must abort: %s", self.transactional_id, one_line(why))

    def _fence(self, refusal: KafkaError) -> ProducerFenced:
        fenced = ProducerFenced(
            refusal.code,
            f"another producer took over the transactional id '{self.transactional_id}', or its transaction timed out",
        )
        self.state, self._why = State.FENCED, fenced
        log.warning("transactional_id=%s is fenced: %s", self.transactional_id, one_line(refusal))
        return fenced

    def _not_open(self) -> StreamlogError:
        match self.state:
            case State.FENCED if self._why is not None:
                return self._why
            case State.BROKEN if self._why is not None:
                why = f"the transaction failed and has to be aborted: {one_line(self._why)}"
                return KafkaError(ErrorCode.TRANSACTION_ABORTABLE, why)
            case State.NEW:
                return UserError("a transactional producer begins with await init_transactions()")
            case State.ENDING if self._committing:
                return UserError("the transaction is being committed; await that, or call commit_transaction again")
            case State.ENDING:
                return UserError("the transaction is being aborted; await that, or call abort_transaction again")
            case _:
                return UserError("no transaction is open; call begin_transaction first")

    # -- the life of transactions

    async def init(self) -> None:
        """Get the id's epoch: older producers with the id are fenced, and their open transaction is aborted."""
        if self.state is not State.NEW:
            raise UserError("init_transactions was called before")
        await self._init_identity(NO_IDENTITY)
        self.state = State.READY

    async def _init_identity(self, current: ProducerIdentity) -> None:
        request = InitProducerIdRequest(
            transactional_id=self.transactional_id,
            transaction_timeout_ms=self._timeout_ms,
            producer_id=current.producer_id,
            producer_epoch=current.producer_epoch,
        )

        async def attempt() -> InitProducerIdResponse:
            answer = await self._ask(TRANSACTION_COORDINATOR, self.transactional_id, request, InitProducerIdResponse)
            self._check(answer.error_code, "getting a producer id")
            node_id = await self._cluster.coordinator(TRANSACTION_COORDINATOR, self.transactional_id)
            connection = await self._cluster.connection(node_id)
            self.version = connection.features.get("transaction.version", 0)
            if connection.version_of(ApiKey.PRODUCE) <= PRODUCE_VERSION_1_MAX:
                self.version = min(self.version, 1)
            return answer

        answer = await self._cluster.retrying("initialising transactions", attempt)
        self._adopt(ProducerIdentity(answer.producer_id, answer.producer_epoch))

    def _adopt(self, identity: ProducerIdentity) -> None:
        self._identity = identity
        self._accumulator.identity = identity

    def begin(self) -> None:
        if self.state is not State.READY:
            if self.state is State.OPEN:
                raise UserError("a transaction is open already")
            raise self._not_open()
        self.state = State.OPEN
        self._why = self._committing = None
        self._begun = False
        self._partitions.clear()
        self._groups.clear()

    async def commit(self, flush: Callable[[], Awaitable[None]]) -> None:
        """Send everything, then make it visible."""
        if self.state is State.ENDING and self._committing is True:
            await self._end(committed=True)  # the last call did not hear whether it was done
            return
        if self.state is not State.OPEN:
            raise self._not_open()
        try:
            await flush()
        except StreamlogError as failure:
            self.fail(failure)
        if self.state is not State.OPEN:
            raise self._not_open()
        await self._end(committed=True)

    async def abort(self, drop: Callable[[], Awaitable[None]]) -> None:
        """Make everything of the transaction void."""
        if self.state is State.ENDING and self._committing is False:
            await self._end(committed=False)
            return
        if self.state not in (State.OPEN, State.BROKEN):
            raise self._not_open()
        self.state = State.ENDING
        await drop()
        await self._end(committed=False)

    async def _end(self, *, committed: bool) -> None:
        self.state, self._committing = State.ENDING, committed
        self._pending.clear()
        if self._begun:
            try:
                await self._cluster.retrying("ending a transaction", lambda: self._end_once(committed))
            except KafkaError as refusal:
                if self.state is State.ENDING:
                    self.state, self._why = State.BROKEN, refusal
                raise
        if not committed and self.version < VERSION_2 and self._begun:
            await self._init_identity(self._identity)  # sequences that were given out and never written are void
        self.state = State.READY

    async def _end_once(self, committed: bool) -> None:
        request = EndTxnRequest(
            transactional_id=self.transactional_id,
            producer_id=self._identity.producer_id,
            producer_epoch=self._identity.producer_epoch,
            committed=committed,
        )
        version_max = None if self.version >= VERSION_2 else END_TXN_VERSION_1_MAX
        answer = await self._ask(TRANSACTION_COORDINATOR, self.transactional_id, request, EndTxnResponse, version_max)
        self._check(answer.error_code, "ending the transaction")
        if self.version >= VERSION_2 and answer.producer_id >= 0:
            self._adopt(ProducerIdentity(answer.producer_id, answer.producer_epoch))

    async def _announce(self) -> None:
        """Version 1: add the pending partitions to the transaction."""
        try:
            while self._pending and self.state in (State.OPEN, State.ENDING):
                batch, self._pending = self._pending, {}
                announce = functools.partial(self._announce_once, batch)
                await self._cluster.retrying("adding partitions to a transaction", announce)
                self._begun = True
                self._partitions.update(batch)
                self._wake()
        except StreamlogError as failure:
            self.fail(failure)
        finally:
            self._announcing = False
            self._wake()

    async def _announce_once(self, partitions: Mapping[PartitionKey, None]) -> None:
        grouped = partitions_by_topic([TopicPartition(*key) for key in partitions])
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=self.transactional_id,
            v3_and_below_producer_id=self._identity.producer_id,
            v3_and_below_producer_epoch=self._identity.producer_epoch,
            v3_and_below_topics=[
                AddPartitionsToTxnTopic(name=topic, partitions=numbers) for topic, numbers in grouped.items()
            ],
        )
        answer = await self._ask(
            TRANSACTION_COORDINATOR,
            self.transactional_id,
            request,
            AddPartitionsToTxnResponse,
            ADD_PARTITIONS_CLIENT_VERSION_MAX,
        )
        for topic in answer.results_by_topic_v3_and_below:
            for one in topic.results_by_partition:
                if one.partition_error_code != ErrorCode.OPERATION_NOT_ATTEMPTED:
                    self._check(one.partition_error_code, f"adding {topic.name}-{one.partition_index}")

    # -- offsets

    async def send_offsets(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group: GroupMetadata) -> None:
        """Commit a group's offsets with the transaction. A refusal breaks the transaction."""
        if self.state is not State.OPEN:
            raise self._not_open()
        if not offsets:
            return
        try:
            if self.version < VERSION_2 and group.group_id not in self._groups:
                await self._cluster.retrying("adding a group to a transaction", lambda: self._add_group(group.group_id))
                self._groups[group.group_id] = None
            self._begun = True
            await self._cluster.retrying("sending offsets", lambda: self._send_offsets_once(offsets, group))
        except StreamlogError as failure:
            self.fail(failure)
            raise

    async def _add_group(self, group_id: str) -> None:
        request = AddOffsetsToTxnRequest(
            transactional_id=self.transactional_id,
            producer_id=self._identity.producer_id,
            producer_epoch=self._identity.producer_epoch,
            group_id=group_id,
        )
        answer = await self._ask(TRANSACTION_COORDINATOR, self.transactional_id, request, AddOffsetsToTxnResponse)
        self._check(answer.error_code, f"adding group '{group_id}'")

    async def _send_offsets_once(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group: GroupMetadata
    ) -> None:
        request = TxnOffsetCommitRequest(
            transactional_id=self.transactional_id,
            group_id=group.group_id,
            producer_id=self._identity.producer_id,
            producer_epoch=self._identity.producer_epoch,
            generation_id=group.generation_id,
            member_id=group.member_id,
            group_instance_id=group.group_instance_id,
            topics=[
                TxnOffsetCommitRequestTopic(
                    name=topic,
                    partitions=[_offset(number, offsets[TopicPartition(topic, number)]) for number in numbers],
                )
                for topic, numbers in partitions_by_topic(list(offsets)).items()
            ],
        )
        version_max = None if self.version >= VERSION_2 else TXN_OFFSET_COMMIT_VERSION_1_MAX
        answer = await self._ask(GROUP_COORDINATOR, group.group_id, request, TxnOffsetCommitResponse, version_max)
        for topic in answer.topics:
            for one in topic.partitions:
                if one.error_code and ErrorCode.of(one.error_code) in LOST_COORDINATOR:
                    self._cluster.forget_coordinator(GROUP_COORDINATOR, group.group_id)
                self._check(one.error_code, f"offset of {topic.name}-{one.partition_index} for '{group.group_id}'")

    # -- answers

    def _check(self, error_code: int, what: str) -> None:
        """Raise what a coordinator answered. Being fenced ends the producer."""
        if not error_code:
            return
        code = ErrorCode.of(error_code)
        refusal = KafkaError(code, f"{what} for transactional id '{self.transactional_id}'")
        if code in FENCED:
            raise self._fence(refusal)
        if code in LOST_COORDINATOR:
            self._cluster.forget_coordinator(TRANSACTION_COORDINATOR, self.transactional_id)
        raise refusal

    async def _ask(
        self,
        key_type: int,
        key: str,
        request: Request,
        response: type[R],
        version_max: int | None = None,
    ) -> R:
        """One attempt at the coordinator of a transaction or of a group."""
        try:
            node_id = await self._cluster.coordinator(key_type, key)
            return await self._cluster.request(node_id, request, response, version_max=version_max)
        except (BrokerUnreachable, RemoteProtocolError):
            self._cluster.forget_coordinator(key_type, key)
            raise


def _offset(number: int, one: OffsetAndMetadata) -> TxnOffsetCommitRequestPartition:
    return TxnOffsetCommitRequestPartition(
        partition_index=number,
        committed_offset=one.offset,
        committed_leader_epoch=one.leader_epoch,
        committed_metadata=one.metadata,
    )
