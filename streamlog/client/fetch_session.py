"""An incremental fetch session with one broker (KIP-227): only what changed since the last request is sent.

`want` and `unwant` say what to fetch from now on and cost nothing when nothing changes; `build` turns the difference to
what the broker knows into a request. A broker that does not know the session any more makes us begin a new one with
everything in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from streamlog.client.values import NO_EPOCH, TopicPartition
from streamlog.wire.messages import FetchRequest
from streamlog.wire.messages.fetch import FetchPartition, FetchTopic, ForgottenTopic
from streamlog.wire.schema import ZERO_UUID

NO_SESSION_EPOCH = -1
NEW_SESSION_EPOCH = 0
SESSION_EPOCH_MAX = 0x7FFF_FFFF


class FetchSpec(NamedTuple):
    """Where to fetch one partition from."""

    topic_id: UUID
    offset: int
    leader_epoch: int
    """What we believe the leader's epoch to be; a broker that knows better says so (KIP-320)."""
    size_bytes_max: int


class FetchSession:
    """See the module's essay. One request is under way at a time."""

    def __init__(self) -> None:
        self.wanted: dict[TopicPartition, FetchSpec] = {}
        self._changed: dict[TopicPartition, None] = {}  # of wanted: the broker does not know it like this
        self._forgotten: dict[TopicPartition, UUID] = {}  # the broker knows it and should not
        self._known: dict[TopicPartition, FetchSpec] = {}  # what the broker's session holds, as it was sent
        self._session_id = 0
        self._epoch = NEW_SESSION_EPOCH  # of the next request
        self._with_ids = True  # topics are named by id, in the whole session

    def want(self, one: TopicPartition, spec: FetchSpec) -> bool:
        """Fetch `one` like this from now on. Whether that is a change."""
        if self.wanted.get(one) == spec:
            return False
        self.wanted[one] = spec
        self._changed[one] = None
        return True

    def unwant(self, one: TopicPartition) -> None:
        """Do not fetch `one` any more."""
        if self.wanted.pop(one, None) is not None:
            self._changed.pop(one, None)
            if one in self._known:
                self._forgotten[one] = self._known[one].topic_id

    def changes(self) -> dict[TopicPartition, FetchSpec]:
        """What is wanted and not asked for by the request under way."""
        return {one: self.wanted[one] for one in self._changed}

    def sent(self, one: TopicPartition) -> FetchSpec | None:
        """What the request under way, or the last one, asks for of a partition."""
        return self._known.get(one)

    @property
    def without_ids(self) -> bool:
        """Whether some topic has no id, so that a version before 13 has to be used."""
        return not self._with_ids

    def build(self) -> FetchRequest:
        """The next request, without its limits."""
        with_ids = all(spec.topic_id != ZERO_UUID for spec in self.wanted.values())
        if with_ids != self._with_ids:
            self._with_ids = with_ids
            self.reset()
        for one in self._changed:
            before = self._known.get(one)
            if before is not None and before.topic_id != self.wanted[one].topic_id:
                self._forgotten[one] = before.topic_id  # the topic was made again under the same name
        full = self._epoch == NEW_SESSION_EPOCH
        sent = dict(self.wanted) if full else self.changes()
        self._known.update(sent)
        forgotten: dict[tuple[str, UUID], ForgottenTopic] = {}
        for one, topic_id in sorted(self._forgotten.items()):
            if full or (one in sent and self.wanted[one].topic_id == topic_id):
                continue
            gone = forgotten.setdefault(
                (one.topic, topic_id), ForgottenTopic(topic=one.topic, topic_id=topic_id, partitions=[])
            )
            gone.partitions.append(one.partition)
            if one not in self.wanted:
                self._known.pop(one, None)
        self._changed.clear()
        self._forgotten.clear()
        return FetchRequest(
            session_id=self._session_id,
            session_epoch=self._epoch,
            topics=_topics(sent),
            forgotten_topics_data=list(forgotten.values()),
        )

    def on_response(self, session_id: int) -> None:
        """The broker answered; 0 means that it keeps no session for us."""
        if session_id == 0:
            self.reset()
        elif self._epoch == NEW_SESSION_EPOCH:
            self._session_id, self._epoch = session_id, 1
        else:
            self._epoch = 1 if self._epoch == SESSION_EPOCH_MAX else self._epoch + 1

    def reset(self) -> None:
        """Begin a new session with the next request: the old one is gone, or nobody knows what became of it."""
        self._session_id, self._epoch = 0, NEW_SESSION_EPOCH
        self._known.clear()
        self._forgotten.clear()
        self._changed = dict.fromkeys(self.wanted)


def fetch_once(wanted: Mapping[TopicPartition, FetchSpec]) -> FetchRequest:
    """A request outside of any session, without its limits."""
    return FetchRequest(session_id=0, session_epoch=NO_SESSION_EPOCH, topics=_topics(wanted))


def _topics(wanted: Mapping[TopicPartition, FetchSpec]) -> list[FetchTopic]:
    topics: dict[str, FetchTopic] = {}
    for one in sorted(wanted):
        spec = wanted[one]
        topic = topics.get(one.topic)
        if topic is None:
            topic = topics[one.topic] = FetchTopic(topic=one.topic, topic_id=spec.topic_id, partitions=[])
        topic.partitions.append(
            FetchPartition(
                partition=one.partition,
                current_leader_epoch=spec.leader_epoch,
                fetch_offset=spec.offset,
                last_fetched_epoch=NO_EPOCH,
                partition_max_bytes=spec.size_bytes_max,
            )
        )
    return list(topics.values())
