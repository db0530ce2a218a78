"""Incremental fetch sessions (KIP-227): the broker remembers what a consumer reads, so that requests and responses
carry only what changed.

A session is a numbered conversation: the client counts `session_epoch` up with each request, and a request that is
not the next one is refused. Partitions are kept in the order in which they are to be read; one that had data goes to
the end, so that a few busy partitions cannot starve the others. There are at most
`max.incremental.fetch.session.cache.slots` sessions; a client that gets none simply names everything each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias
from uuid import UUID

from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.fetch import FetchPartition, FetchRequest

NO_SESSION: Final = 0
INITIAL_EPOCH: Final = 0
FINAL_EPOCH: Final = -1
EPOCH_MAX: Final = 0x7FFF_FFFF

STALE_MS: Final = 120_000
"""A session unused for this long may be evicted by any newcomer, one younger than this by nobody (Kafka's numbers)."""

TOPIC_IDS_SINCE: Final = 13
"""Version of Fetch that names topics by id."""

PartitionKey: TypeAlias = tuple[str | UUID, int]
"""Topic name or, in sessions that use ids, topic id; partition."""


class FetchState:
    """One partition of a session: what to read next, and what the client was last told."""

    __slots__ = (
        "current_leader_epoch",
        "fetch_offset",
        "high_watermark",
        "index",
        "last_fetched_epoch",
        "log_start_offset",
        "max_bytes",
        "replica_high_watermark",
        "replica_log_start_offset",
        "topic",
    )

    def __init__(self, topic: str | UUID, asked: FetchPartition) -> None:
        self.topic = topic
        self.index = asked.partition
        self.high_watermark = -1  # never told
        self.log_start_offset = -1
        self.ask(asked)

    def ask(self, asked: FetchPartition) -> None:
        self.fetch_offset = asked.fetch_offset
        self.max_bytes = asked.partition_max_bytes
        self.current_leader_epoch = asked.current_leader_epoch
        self.last_fetched_epoch = asked.last_fetched_epoch
        self.replica_high_watermark = asked.high_watermark  # of a follower that wants to hear of it soon (KIP-1166)
        self.replica_log_start_offset = asked.log_start_offset

    def tell(self, high_watermark: int, log_start_offset: int) -> bool:
        """Note what a response would say about the partition; whether that is news."""
        if high_watermark == self.high_watermark and log_start_offset == self.log_start_offset:
            return False
        self.high_watermark, self.log_start_offset = high_watermark, log_start_offset
        return True


class FetchSession:
    __slots__ = ("created_at_ms", "epoch", "id", "partitions", "used_at_ms", "uses_topic_ids")

    def __init__(
        self, number: int, partitions: dict[PartitionKey, FetchState], uses_topic_ids: bool, now_ms: int
    ) -> None:
        self.id = number
        self.partitions = partitions  # in reading order
        self.uses_topic_ids = uses_topic_ids
        self.epoch = 1  # what the next request has to say
        self.created_at_ms = self.used_at_ms = now_ms

    def is_next(self, epoch: int) -> bool:
        return epoch == self.epoch

    def move_to_end(self, state: FetchState) -> None:
        key = (state.topic, state.index)
        if self.partitions.pop(key, None) is not None:
            self.partitions[key] = state


class FetchPlan:
    """What one request reads: its partitions in order, and the session they belong to, if any."""

    __slots__ = ("is_incremental", "session", "states")

    def __init__(self, states: Iterable[FetchState], session: FetchSession | None, is_incremental: bool) -> None:
        self.states = list(states)
        self.session = session
        self.is_incremental = is_incremental

    @property
    def session_id(self) -> int:
        return NO_SESSION if self.session is None else self.session.id


class FetchSessions:
    """All sessions of one broker."""

    def __init__(self, slots_max: int, draw_id: Callable[[int], int]) -> None:
        """`draw_id(n)`: a random number in [0, n). Ids are random so that a client cannot take over another's."""
        self._slots_max = slots_max
        self._draw_id = draw_id
        self._sessions: dict[int, FetchSession] = {}  # least recently used first

    def __len__(self) -> int:
        return len(self._sessions)

    def plan(self, request: FetchRequest, version: int, now_ms: int) -> FetchPlan:
        """Work out what a request reads. Raises KafkaError for the whole request."""
        if request.session_epoch in (INITIAL_EPOCH, FINAL_EPOCH):
            self._sessions.pop(request.session_id, None)
            asked = _asked(request, version)
            session = None
            if request.session_epoch == INITIAL_EPOCH:
                session = self._create(asked, version >= TOPIC_IDS_SINCE, now_ms)
            return FetchPlan(asked.values(), session, is_incremental=False)
        session = self._sessions.get(request.session_id)
        if session is None:
            raise KafkaError(ErrorCode.FETCH_SESSION_ID_NOT_FOUND, "there is no such fetch session")
        if not session.is_next(request.session_epoch):
            raise KafkaError(
                ErrorCode.INVALID_FETCH_SESSION_EPOCH, f"epoch {request.session_epoch} where {session.epoch} is next"
            )
        if session.uses_topic_ids != (version >= TOPIC_IDS_SINCE):
            raise KafkaError(ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR, "the session names topics in the other way")
        self._update(session, request)
        if not session.partitions:
            del self._sessions[session.id]
            return FetchPlan((), None, is_incremental=False)
        session.epoch = 1 if session.epoch == EPOCH_MAX else session.epoch + 1
        session.used_at_ms = now_ms
        self._sessions[session.id] = self._sessions.pop(session.id)
        return FetchPlan(session.partitions.values(), session, is_incremental=True)

    def _update(self, session: FetchSession, request: FetchRequest) -> None:
        partitions = session.partitions
        for topic in request.topics:
            name = topic.topic_id if session.uses_topic_ids else topic.topic
            for asked in topic.partitions:
                state = partitions.get((name, asked.partition))
                if state is None:
                    partitions[name, asked.partition] = FetchState(name, asked)
                else:
                    state.ask(asked)
        for forgotten in request.forgotten_topics_data:
            name = forgotten.topic_id if session.uses_topic_ids else forgotten.topic
            for index in forgotten.partitions:
                partitions.pop((name, index), None)

    def _create(
        self, partitions: dict[PartitionKey, FetchState], uses_topic_ids: bool, now_ms: int
    ) -> FetchSession | None:
        if len(self._sessions) >= self._slots_max and not self._evict(len(partitions), now_ms):
            return None
        session_id = NO_SESSION
        while session_id == NO_SESSION or session_id in self._sessions:
            session_id = self._draw_id(EPOCH_MAX)
        session = self._sessions[session_id] = FetchSession(session_id, partitions, uses_topic_ids, now_ms)
        return session

    def _evict(self, size: int, now_ms: int) -> bool:
        """Make room for a session of `size` partitions: a stale one goes, else a smaller one that has had its time."""
        oldest = next(iter(self._sessions.values()), None)
        if oldest is None:
            return False
        if now_ms - oldest.used_at_ms <= STALE_MS:
            settled = [s for s in self._sessions.values() if now_ms - s.created_at_ms > STALE_MS]
            oldest = min(settled, key=lambda s: len(s.partitions), default=None)
            if oldest is None or len(oldest.partitions) >= size:
                return False
        del self._sessions[oldest.id]
        return True


def _asked(request: FetchRequest, version: int) -> dict[PartitionKey, FetchState]:
    by_id = version >= TOPIC_IDS_SINCE
    return {
        (name, asked.partition): FetchState(name, asked)
        for topic in request.topics
        for name in (topic.topic_id if by_id else topic.topic,)
        for asked in topic.partitions
    }
