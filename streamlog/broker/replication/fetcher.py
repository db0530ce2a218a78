"""Following one leader: a loop that asks for everything this broker replicates from it, and appends what comes.

    fetch -> for each partition a step (follower.py) -> append, cut, start over -> fetch

A fetch waits at the leader until there is something. The leader keeps a session (KIP-227), so that a request names only
the partitions whose place has changed. A partition that joins while a fetch waits breaks it off: what a new leader is
asked first decides how soon its partition can be written again.

What topics flush before it is acknowledged is flushed before the next fetch, which tells the leader that we have it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

from streamlog.broker.log.flusher import Flusher
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.pace import Pace
from streamlog.broker.partition import Partition
from streamlog.broker.peer import NotOffered, PeerConnection, PeerGone, connect
from streamlog.broker.replication.follower import RETRY_MS_MIN, FollowerState, StepKind
from streamlog.broker.replication.settings import FetchSettings
from streamlog.env import Env, Scope
from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    ForgottenTopic,
    PartitionData,
    ReplicaState,
)
from streamlog.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)

log = logging.getLogger(__name__)

NO_SESSION: Final = 0
NEW_SESSION: Final = 0
SESSION_EPOCH_MAX: Final = 0x7FFF_FFFF

LATEST: Final = -1
EARLIEST: Final = -2

INTERRUPT_PAUSE_S: Final = 0.01
"""A fetch that is broken off is the second in this time at most: partitions come in crowds."""

CONNECT_S_MAX: Final = 2.0
"""An address that does not answer is tried again after this; a leader that is gone for good is replaced sooner."""

Key: TypeAlias = tuple[UUID, int]
"""Topic id and partition."""


class Place(NamedTuple):
    """What the leader was last told about a partition."""

    partition: Partition
    state: FollowerState
    offset: int
    last_epoch: int
    log_start_offset: int
    high_watermark: int


class Fetcher:
    """Everything this broker follows one other broker for. Its task lives while that is anything."""

    def __init__(
        self,
        env: Env,
        scope: Scope,
        flusher: Flusher,
        settings: FetchSettings,
        *,
        node_id: int,
        leader_id: int,
        address: Callable[[], tuple[str, int] | None],
        own_broker_epoch: Callable[[], int],
        may_fetch: Callable[[Partition], bool],
        on_bytes: Callable[[Partition, int], None],
        save_log_starts: Callable[[], None],
    ) -> None:
        """`address()`: where the leader is, None when the cluster does not know. `may_fetch(partition)`: False while
        its share of the network is used up, and `on_bytes` tells how much of that it takes. `save_log_starts()` writes
        the log starts of this broker's partitions to its disk."""
        self._env = env
        self._scope = scope
        self._flusher = flusher
        self._settings = settings
        self._node_id = node_id
        self._leader_id = leader_id
        self._address = address
        self._own_broker_epoch = own_broker_epoch
        self._may_fetch = may_fetch
        self._on_bytes = on_bytes
        self._save_log_starts = save_log_starts
        self._followed: dict[Key, Partition] = {}
        self._connection: PeerConnection | None = None
        self._session_id, self._session_epoch = NO_SESSION, NEW_SESSION
        self._places: dict[Key, Place] = {}
        """What is fetched, and from where: what the leader's session knows, once it is asked."""
        self._unsure: dict[Key, None] = {}
        """Partitions whose place is to be looked at: something has come for them, or it is not their turn yet."""
        self._is_unreachable = False  # it has no address for brokers, and that was said
        self._pace = Pace(settings.response_bytes_max)
        self._failures = 0  # connections and requests that failed in a row
        self._changed = asyncio.Event()
        """Partitions have come or gone, or are to be fetched anew."""
        self._log_start_moved = False  # a leader told us one that is not on our disk yet
        self._is_asking = False  # a fetch is under way, which may wait for long
        self._was_broken_off = False  # and was ended by us
        self._task: asyncio.Task[None] | None = None

    def follow(self, partition: Partition) -> None:
        """Fetch this one too, from now on; or anew, in another leader epoch."""
        key = partition.topic_id, partition.index
        self._followed[key] = partition
        self._unsure[key] = None
        self._changed.set()
        if self._is_asking and self._connection is not None and not self._was_broken_off:
            self._was_broken_off = True
            self._connection.close()
        if self._task is None:
            self._task = self._scope.spawn(f"follow {self._leader_id}", self._run())

    def leave(self, partition: Partition) -> None:
        if self._followed.get((partition.topic_id, partition.index)) is partition:
            del self._followed[partition.topic_id, partition.index]
            self._unsure[partition.topic_id, partition.index] = None
            if not self._followed and self._is_asking and self._connection is not None:
                self._was_broken_off = True
                self._connection.close()

    # -- the loop ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while self._followed:
                self._changed.clear()
                try:
                    await self._round()
                except (PeerGone, NotOffered, RemoteProtocolError, LocalProtocolError, TimeoutError) as error:
                    self._disconnect()
                    if self._was_broken_off:
                        self._was_broken_off = False
                        await asyncio.sleep(INTERRUPT_PAUSE_S)
                        continue
                    log.debug("leader=%d cannot be followed: %s", self._leader_id, str(error) or "no answer")
                    await self._pause()
        finally:
            self._disconnect()
            self._task = None

    async def _pause(self) -> None:
        self._failures += 1
        pause_ms = min(RETRY_MS_MIN * 2 ** min(self._failures - 1, 10), self._settings.backoff_ms)
        await self._sleep(pause_ms)

    async def _sleep(self, pause_ms: int) -> None:
        """Wait, but not longer than until something has changed."""
        try:
            async with asyncio.timeout(pause_ms / 1000):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _round(self) -> None:
        """One fetch, and everything that its answer asks for."""
        now_ms = self._env.clock.mono_ms()
        changed = self._look(now_ms)
        if not self._places:
            self._forget_session()
            await self._sleep(self._next_due_ms(now_ms))
            return
        connection = await self._connected()
        request = self._request(changed, now_ms)
        self._is_asking = True
        try:
            async with asyncio.timeout(self._settings.timeout_ms / 1000):
                response = await connection.request(request)
        except TimeoutError:
            self._pace.on_late()
            raise
        finally:
            self._is_asking = False
        assert isinstance(response, FetchResponse), "the answer is of the request's API"
        took_ms = self._env.clock.mono_ms() - now_ms
        self._pace.on_answer(_records_bytes(response), took_ms, self._settings.timeout_ms)
        self._failures = 0
        appended, lost = self._take(response)
        self._keep_log_starts()
        await self._flush(appended)
        for place in lost:
            await self._find_range(connection, place)

    async def _connected(self) -> PeerConnection:
        connection = self._connection
        if connection is None or connection.closed is not None:
            self._disconnect()
            address = self._address()
            if address is None:
                if not self._is_unreachable:
                    self._is_unreachable = True
                    log.warning(
                        "leader=%d nothing is replicated from it: it has no listener of the name that "
                        "inter.broker.listener.name has here",
                        self._leader_id,
                    )
                raise PeerGone(f"the cluster knows no address of broker {self._leader_id}")
            self._is_unreachable = False
            async with asyncio.timeout(CONNECT_S_MAX):
                connection = await connect(self._env, *address, f"broker-{self._node_id}-fetcher")
            self._connection = connection
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._forget_session()

    def _forget_session(self) -> None:
        self._session_id, self._session_epoch = NO_SESSION, NEW_SESSION

    # -- asking -----------------------------------------------------------------------------------------------

    def _look(self, now_ms: int) -> list[Key]:
        """Bring `_places` up to date. Says which have changed: of a thousand partitions seldom more than a few."""
        changed: list[Key] = []
        for key in self._unsure:
            partition = self._followed.get(key)
            place = None if partition is None else self._place(partition, now_ms)
            if place is not None:
                if self._places.get(key) != place:
                    self._places.pop(key, None)  # who got something is behind the others, should not all have room
                    self._places[key] = place
                    changed.append(key)
            elif self._places.pop(key, None) is not None:
                changed.append(key)
        self._unsure = {key: None for key in self._unsure if key in self._followed and key not in self._places}
        return changed

    def _place(self, partition: Partition, now_ms: int) -> Place | None:
        """Where it goes on; None while it is not its turn."""
        state, one = partition.follower, partition.log
        if state is None or not state.is_due(now_ms) or one.failure is not None or not self._may_fetch(partition):
            return None
        return Place(partition, state, one.log_end_offset, one.epochs.latest, one.log_start_offset, one.high_watermark)

    def _next_due_ms(self, now_ms: int) -> int:
        """How long until it is the turn of a partition that waits for it."""
        waiting = [self._followed.get(key) for key in self._unsure]  # some have left since we looked
        states = [partition.follower for partition in waiting if partition is not None]
        due = [state.retry_at_ms - now_ms for state in states if state is not None]
        return min((ms for ms in due if ms > 0), default=self._settings.wait_ms_max)

    def _request(self, changed: list[Key], now_ms: int) -> FetchRequest:
        if self._session_epoch == NEW_SESSION:
            changed, forgotten = list(self._places), list[Key]()
        else:
            forgotten = [key for key in changed if key not in self._places]
        asked = {key: self._places[key] for key in changed if key in self._places}
        return FetchRequest(
            replica_state=ReplicaState(replica_id=self._node_id, replica_epoch=self._own_broker_epoch()),
            max_wait_ms=min(self._settings.wait_ms_max, self._next_due_ms(now_ms)),
            min_bytes=self._settings.bytes_min,
            max_bytes=self._pace.bytes_max,
            session_id=self._session_id,
            session_epoch=self._session_epoch,
            topics=self._fetch_topics(asked),
            forgotten_topics_data=[
                ForgottenTopic(topic_id=topic_id, partitions=indexes) for topic_id, indexes in _grouped(forgotten)
            ],
        )

    def _fetch_topics(self, asked: dict[Key, Place]) -> list[FetchTopic]:
        topics: dict[UUID, FetchTopic] = {}
        for (topic_id, index), place in asked.items():
            topics.setdefault(topic_id, FetchTopic(topic_id=topic_id)).partitions.append(
                FetchPartition(
                    partition=index,
                    current_leader_epoch=place.state.leader_epoch,
                    fetch_offset=place.offset,
                    last_fetched_epoch=place.last_epoch,
                    log_start_offset=place.log_start_offset,
                    partition_max_bytes=self._settings.partition_bytes_max,
                    high_watermark=place.high_watermark,
                )
            )
        return list(topics.values())

    # -- what the answer means --------------------------------------------------------------------------------

    def _take(self, response: FetchResponse) -> tuple[list[Partition], list[Place]]:
        """Perform what each partition's answer asks for: (who got records, who is out of its leader's range)."""
        if response.error_code:
            self._forget_session()
            if response.error_code not in (
                ErrorCode.FETCH_SESSION_ID_NOT_FOUND,
                ErrorCode.INVALID_FETCH_SESSION_EPOCH,
                ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR,
            ):
                raise RemoteProtocolError(f"the leader answers {ErrorCode.of(response.error_code).name}")
            return [], []
        if response.session_id == NO_SESSION:
            self._forget_session()
        else:
            self._session_id = response.session_id
            self._session_epoch = 1 if self._session_epoch == SESSION_EPOCH_MAX else self._session_epoch + 1
        appended: list[Partition] = []
        lost: list[Place] = []
        for topic in response.responses:
            for data in topic.partitions:
                key = topic.topic_id, data.partition_index
                self._unsure[key] = None
                place = self._places.get(key)
                if place is not None and place.partition.follower is place.state:
                    self._take_one(place, data, appended, lost)
        return appended, lost

    def _take_one(self, place: Place, data: PartitionData, appended: list[Partition], lost: list[Place]) -> None:
        partition, state, one = place.partition, place.state, place.partition.log
        if one.log_end_offset != place.offset:
            return  # it was cut meanwhile, and asks from there next
        now_ms = self._env.clock.mono_ms()
        if data.diverging_epoch is not None and not data.error_code:
            diverging = data.diverging_epoch
            step = state.on_diverging(one.epochs, one.log_end_offset, diverging.epoch, diverging.end_offset)
        else:
            step = state.on_answer(ErrorCode.of(data.error_code), now_ms)
        try:
            match step.kind:
                case StepKind.APPEND:
                    self._append(partition, data)
                    if one.log_end_offset != place.offset:
                        appended.append(partition)
                    state.on_performed()
                case StepKind.TRUNCATE:
                    self._truncate(partition, step.offset)
                    state.on_performed()
                case StepKind.FIND_RANGE:
                    lost.append(place)
                case StepKind.RETRY | StepKind.WAIT:
                    log.debug("partition=%r leader=%d %s", partition, self._leader_id, ErrorCode.of(data.error_code))
                case StepKind.START_OVER:
                    raise AssertionError("only the leader's range asks to start over")
        except PartitionOffline as error:
            state.on_failure(now_ms)
            if one.failure is not None or step.kind is not StepKind.APPEND:
                log.error("partition=%r state=offline reason=%s", partition, error.message)
        except KafkaError as error:
            state.on_failure(now_ms)
            log.warning("partition=%r leader=%d sent what cannot be appended: %s", partition, self._leader_id, error)

    def _append(self, partition: Partition, data: PartitionData) -> None:
        records = data.records or b""
        if len(records):
            self._on_bytes(partition, len(records))
        log_start_offset = partition.log.log_start_offset
        partition.append_from_leader(records, data.high_watermark, data.log_start_offset, self._env.clock.wall_ms())
        if partition.log.log_start_offset != log_start_offset:
            self._log_start_moved = True

    def _truncate(self, partition: Partition, offset: int) -> None:
        log.info(
            "partition=%r epoch=%d role=follower truncate=%d end=%d hw=%d",
            partition,
            partition.leader_epoch,
            offset,
            partition.log.log_end_offset,
            partition.log.high_watermark,
        )
        if offset < partition.log.high_watermark:
            log.warning("partition=%r loses records below its high watermark", partition)
        self._env.hooks.sometimes("follower truncated")
        partition.truncate(offset, self._env.clock.wall_ms())

    def _keep_log_starts(self) -> None:
        """Our next fetch tells the leader our log starts, and it tells whoever deleted records that they are gone.

        Apache Kafka writes them once a minute: a follower that is killed and then elected has those records again.
        """
        if self._log_start_moved:
            try:
                self._save_log_starts()
            except OSError as error:
                log.error("log starts could not be saved, so deleted records may come back: %s", error)
            self._log_start_moved = False

    async def _flush(self, appended: list[Partition]) -> None:
        """Sync what must be on disk before the leader may count on it."""
        for partition in appended:
            if partition.flush_before_ack and partition.follower is not None:
                try:
                    await self._flusher.flushed(partition.log, partition.log.log_end_offset)
                    partition.on_follower_flushed()
                except PartitionOffline as error:
                    log.error("partition=%r not flushed: %s", partition, error.message)

    async def _find_range(self, connection: PeerConnection, place: Place) -> None:
        """Our end is outside of the leader's log: find out where that is."""
        partition, state = place.partition, place.state
        earliest = await self._ask_offset(connection, place, EARLIEST)
        latest = await self._ask_offset(connection, place, LATEST)
        now_ms = self._env.clock.mono_ms()
        if partition.follower is not state:
            return
        if earliest is None or latest is None:
            state.on_failure(now_ms)
            return
        step = state.on_range(partition.log.log_end_offset, earliest, latest)
        try:
            if step.kind is StepKind.TRUNCATE:
                self._truncate(partition, step.offset)
            elif step.kind is StepKind.START_OVER:
                log.info("partition=%r role=follower starts over at %d", partition, step.offset)
                self._env.hooks.sometimes("follower started over")
                partition.start_over(step.offset, self._env.clock.wall_ms())
            else:
                state.on_failure(now_ms)
        except PartitionOffline as error:
            state.on_failure(now_ms)
            log.error("partition=%r state=offline reason=%s", partition, error.message)

    async def _ask_offset(self, connection: PeerConnection, place: Place, timestamp: int) -> int | None:
        partition = place.partition
        asked = ListOffsetsPartition(
            partition_index=partition.index, current_leader_epoch=place.state.leader_epoch, timestamp=timestamp
        )
        request = ListOffsetsRequest(
            replica_id=self._node_id, topics=[ListOffsetsTopic(name=partition.topic, partitions=[asked])]
        )
        async with asyncio.timeout(self._settings.timeout_ms / 1000):
            response = await connection.request(request)
        assert isinstance(response, ListOffsetsResponse), "the answer is of the request's API"
        answers: Iterable[ListOffsetsPartitionResponse] = (one for topic in response.topics for one in topic.partitions)
        return next((one.offset for one in answers if not one.error_code and one.offset >= 0), None)


def _records_bytes(response: FetchResponse) -> int:
    return sum(len(data.records or b"") for topic in response.responses for data in topic.partitions)


def _grouped(keys: list[Key]) -> list[tuple[UUID, list[int]]]:
    topics: dict[UUID, list[int]] = {}
    for topic_id, index in keys:
        topics.setdefault(topic_id, []).append(index)
    return list(topics.items())
