"""Incremental fetch sessions: the broker's picture is always ours."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from streamlog.client.fetch_session import FetchSession, FetchSpec
from streamlog.client.values import TopicPartition
from streamlog.wire.messages import FetchRequest
from streamlog.wire.schema import ZERO_UUID

IDS = {"a": UUID(int=1), "b": UUID(int=2)}


def spec(topic: str, offset: int, topic_id: UUID | None = None) -> FetchSpec:
    return FetchSpec(IDS[topic] if topic_id is None else topic_id, offset, 0, 1_000)


class ModelBroker:
    """Keeps a session as KIP-227 says."""

    def __init__(self) -> None:
        self.session_id = 0
        self.next_epoch = 0
        self.partitions: dict[tuple[UUID, int], int] = {}  # -> fetch offset

    def fetch(self, request: FetchRequest) -> int:
        if request.session_epoch == 0:
            self.session_id += 1
            self.next_epoch = 1
            self.partitions.clear()
        else:
            assert (request.session_id, request.session_epoch) == (self.session_id, self.next_epoch)
            self.next_epoch += 1
        for gone in request.forgotten_topics_data:
            for number in gone.partitions:
                del self.partitions[gone.topic_id, number]
        for topic in request.topics:
            for one in topic.partitions:
                self.partitions[topic.topic_id, one.partition] = one.fetch_offset
        return self.session_id


PARTITIONS = st.builds(TopicPartition, st.sampled_from(["a", "b"]), st.integers(0, 3))


@given(
    st.lists(st.tuples(st.sampled_from(["want", "unwant", "fetch", "lose", "remake"]), PARTITIONS, st.integers(0, 5)))
)
def test_the_broker_knows_exactly_what_is_wanted(steps: list[tuple[str, TopicPartition, int]]) -> None:
    """After every request, whatever was wanted, forgotten, lost or made again before."""
    session, broker = FetchSession(), ModelBroker()
    ids = dict(IDS)
    for what, one, offset in steps:
        if what == "want":
            session.want(one, spec(one.topic, offset, ids[one.topic]))
        elif what == "unwant":
            session.unwant(one)
        elif what == "remake":
            ids[one.topic] = UUID(int=ids[one.topic].int + 10)
            for other in list(session.wanted):
                if other.topic == one.topic:
                    session.want(other, spec(other.topic, 0, ids[other.topic]))
        elif what == "lose":
            session.reset()
        else:
            session.on_response(broker.fetch(session.build()))
            expected = {(spec_.topic_id, one.partition): spec_.offset for one, spec_ in session.wanted.items()}
            assert broker.partitions == expected
            assert all(session.sent(one) == spec_ for one, spec_ in session.wanted.items())


def test_only_changes_are_sent() -> None:
    """A thousand idle partitions cost nothing per request."""
    session = FetchSession()
    for number in range(1_000):
        session.want(TopicPartition("a", number), spec("a", 0))
    assert len(session.build().topics[0].partitions) == 1_000
    session.on_response(5)
    assert not session.want(TopicPartition("a", 7), spec("a", 0)), "nothing changed"
    session.want(TopicPartition("a", 7), spec("a", 1))
    session.unwant(TopicPartition("a", 8))
    request = session.build()
    assert (request.session_id, request.session_epoch) == (5, 1)
    assert [one.partition for one in request.topics[0].partitions] == [7]
    assert [one.partitions for one in request.forgotten_topics_data] == [[8]]


def test_a_broker_without_sessions_gets_everything_each_time() -> None:
    """Session id 0 in the answer means that nothing is kept."""
    session = FetchSession()
    session.want(TopicPartition("a", 0), spec("a", 0))
    session.build()
    session.on_response(0)
    request = session.build()
    assert (request.session_epoch, len(request.topics)) == (0, 1)


def test_a_topic_without_id_makes_the_whole_session_use_names() -> None:
    """Versions from 13 on cannot name topics; mixing within a session is not allowed."""
    session = FetchSession()
    session.want(TopicPartition("a", 0), spec("a", 0))
    session.build()
    session.on_response(5)
    named_by_id = not session.without_ids
    session.want(TopicPartition("b", 0), spec("b", 0, ZERO_UUID))
    request = session.build()
    assert named_by_id
    assert session.without_ids
    assert (request.session_epoch, [one.topic for one in request.topics]) == (0, ["a", "b"])
