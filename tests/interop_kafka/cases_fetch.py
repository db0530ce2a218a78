"""Fetch and its sessions, offsets, epochs, metadata."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.messages import fetch, list_offsets, metadata, offset_for_leader_epoch
from tests.broker.batches import new_batch
from tests.interop_kafka.cases import case
from tests.interop_kafka.cases_produce import produced
from tests.interop_kafka.peers import Peer, Seen, comparable


def fetched(peer: Peer, partition: fetch.FetchPartition, topic: str, version: int = 12, **options: int) -> Seen:
    request = fetch.FetchRequest(topics=[fetch.FetchTopic(topic=topic, partitions=[partition])], **options)  # type: ignore[arg-type]
    return comparable(peer.ask(request, version, fetch.FetchResponse))


@case
def fetch_at_odd_places(peer: Peer) -> Seen:
    peer.make_topic("read")
    for _ in range(3):
        produced(peer, "read", new_batch(b"a", b"b"))
    part = fetch.FetchPartition
    asked = [
        part(0, fetch_offset=0, partition_max_bytes=1000),
        part(0, fetch_offset=3, partition_max_bytes=1),
        part(0, fetch_offset=6, partition_max_bytes=1000),
        part(0, fetch_offset=7, partition_max_bytes=1000),
        part(0, fetch_offset=-1, partition_max_bytes=1000),
        part(0, fetch_offset=0, partition_max_bytes=1000, current_leader_epoch=9),
        part(0, fetch_offset=0, partition_max_bytes=1000, last_fetched_epoch=9),
        part(5, fetch_offset=0, partition_max_bytes=1000),
        part(-1, fetch_offset=0, partition_max_bytes=1000),
    ]
    return [fetched(peer, one, "read") for one in asked], fetched(peer, asked[0], "nowhere")


@case
def fetch_of_less_than_nothing(peer: Peer) -> Seen:
    peer.make_topic("less")
    produced(peer, "less", new_batch(b"a", b"b"))
    return fetched(peer, fetch.FetchPartition(0, partition_max_bytes=-5), "less")


@case
def fetch_by_unknown_id(peer: Peer) -> Seen:
    topic = fetch.FetchTopic(topic_id=UUID(int=77), partitions=[fetch.FetchPartition(0, partition_max_bytes=1000)])
    seen = [comparable(peer.ask(fetch.FetchRequest(topics=[topic]), v, fetch.FetchResponse)) for v in (13, 17)]
    zero = fetch.FetchTopic(partitions=[fetch.FetchPartition(0, partition_max_bytes=1000)])
    return seen, comparable(peer.ask(fetch.FetchRequest(topics=[zero]), 13, fetch.FetchResponse))


@case
def fetch_in_sessions_that_are_not(peer: Peer) -> Seen:
    peer.make_topic("session")
    produced(peer, "session", new_batch(b"a"))
    one = fetch.FetchPartition(0, partition_max_bytes=1000)
    unknown = fetched(peer, one, "session", session_id=12345, session_epoch=5)
    closing = fetched(peer, one, "session", session_id=12345, session_epoch=-1)
    topics = [fetch.FetchTopic(topic="session", partitions=[one])]
    with peer.connect() as wire:
        first = wire.ask(fetch.FetchRequest(topics=topics, session_epoch=0), 12, fetch.FetchResponse)
        assert isinstance(first, fetch.FetchResponse)
        assert first.session_id != 0
        follow = fetch.FetchRequest(session_id=first.session_id, session_epoch=7)
        wrong_epoch = comparable(wire.ask(follow, 12, fetch.FetchResponse))
        follow.session_epoch = 1
        right_epoch = comparable(wire.ask(follow, 12, fetch.FetchResponse))
    return unknown, closing, wrong_epoch, right_epoch


@case
def list_offsets_of_every_kind(peer: Peer) -> Seen:
    peer.make_topic("offsets", retention_ms="-1")  # records of 1970: retention would come at any moment
    for at in (1000, 3000, 2000):
        produced(peer, "offsets", new_batch(b"a", timestamp_ms=at))
    seen: list[Seen] = []
    part = list_offsets.ListOffsetsPartition
    for one in [
        *(part(0, timestamp=at) for at in (-1, -2, -3, -4, -5, -6, -7, 0, 1000, 1001, 2500, 3001)),
        part(0, current_leader_epoch=5, timestamp=-1),
        part(9, timestamp=-1),
    ]:
        topics = [list_offsets.ListOffsetsTopic("offsets", [one])]
        for version in (1, 9):
            if version == 1 and one.timestamp < -2:
                continue
            request = list_offsets.ListOffsetsRequest(replica_id=-1, topics=topics)
            seen.append(
                (one.timestamp, version, comparable(peer.ask(request, version, list_offsets.ListOffsetsResponse)))
            )
    return seen


@case
def leader_epochs(peer: Peer) -> Seen:
    peer.make_topic("epochs")
    produced(peer, "epochs", new_batch(b"a"))
    part = offset_for_leader_epoch.OffsetForLeaderPartition
    asked = [part(0, -1, 0), part(0, 0, 0), part(0, 7, 0), part(0, -1, 7), part(0, -1, -1), part(8, -1, 0)]
    topics = [offset_for_leader_epoch.OffsetForLeaderTopic("epochs", [one]) for one in asked]
    return [
        comparable(
            peer.ask(
                offset_for_leader_epoch.OffsetForLeaderEpochRequest(topics=[topic]),
                4,
                offset_for_leader_epoch.OffsetForLeaderEpochResponse,
            )
        )
        for topic in topics
    ]


@case
def metadata_of_known_and_unknown_topics(peer: Peer) -> Seen:
    peer.make_topic("seen", 2)
    topic = metadata.MetadataRequestTopic
    seen: list[Seen] = []
    for version in (0, 1, 4, 9, 12, 13):
        for name in ("seen", "unseen", "", "a b", ".."):
            if version < 4 and name == "unseen":
                continue  # would create it
            request = metadata.MetadataRequest(topics=[topic(name=name)], allow_auto_topic_creation=version < 4)
            seen.append((version, name, _topics_of(peer, request, version)))
    by_id = metadata.MetadataRequest(topics=[topic(topic_id=UUID(int=5), name=None)])
    return seen, _topics_of(peer, by_id, 12)


def _topics_of(peer: Peer, request: metadata.MetadataRequest, version: int) -> Seen:
    answer = peer.ask(request, version, metadata.MetadataResponse)
    assert isinstance(answer, metadata.MetadataResponse)
    return comparable(answer.topics)
