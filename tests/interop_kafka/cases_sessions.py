"""Fetch sessions (KIP-227), leader epochs (KIP-320) and offsets by special timestamps."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.messages import fetch, list_offsets, metadata, offset_for_leader_epoch
from tests.broker.batches import new_batch
from tests.interop_kafka.cases import case
from tests.interop_kafka.cases_produce import produced
from tests.interop_kafka.peers import Peer, Seen, Wire, by_name, comparable

ZERO = UUID(int=0)


def part(index: int, offset: int = 0, last_epoch: int = -1, leader_epoch: int = -1) -> fetch.FetchPartition:
    """What to read of a partition, what was read before, and under whom."""
    return fetch.FetchPartition(index, leader_epoch, offset, last_epoch, partition_max_bytes=1000)


def asked(wire: Wire, session_id: int, epoch: int, topics: Seen, forgotten: Seen = (), version: int = 12) -> Seen:
    """(session id is ours or none, what came) of one request in a session."""
    request = fetch.FetchRequest(
        session_id=session_id, session_epoch=epoch, topics=list(topics), forgotten_topics_data=list(forgotten)
    )
    answer = wire.ask(request, version, fetch.FetchResponse)
    assert isinstance(answer, fetch.FetchResponse)
    which = "none" if answer.session_id == 0 else "same" if answer.session_id == session_id else "new"
    # Kafka reads what it knows first and then says what it does not know.
    answer.responses.sort(key=lambda topic: (topic.topic, topic.partitions[0].error_code))
    return answer.session_id, (which, comparable(answer))


@case
def fetch_in_a_session(peer: Peer) -> Seen:
    """Full, incremental, nothing new, news, changed and forgotten partitions, wrong epochs, the end."""
    peer.make_topic("talk", 3)
    for index in range(3):
        produced(peer, "talk", new_batch(b"a"), partition=index)
    every = [fetch.FetchTopic("talk", partitions=[part(0), part(1), part(2)])]
    ends = [fetch.FetchTopic("talk", partitions=[part(0, 1), part(1, 1), part(2, 1)])]
    seen: list[Seen] = []
    with peer.connect() as wire:
        session, answer = asked(wire, 0, 0, every)
        seen.append(answer)

        def go_on(epoch: int, topics: Seen = (), forgotten: Seen = ()) -> None:
            seen.append(asked(wire, session, epoch, topics, forgotten)[1])

        go_on(1, ends)
        go_on(2)
        produced(peer, "talk", new_batch(b"b"), partition=1)
        go_on(3)
        go_on(3)  # that was the last one
        go_on(5)  # one too far
        go_on(4, [fetch.FetchTopic("talk", partitions=[part(1, 2)])])
        go_on(5, [fetch.FetchTopic("talk", partitions=[part(7)])])  # a partition that is not there
        go_on(6)  # still said
        go_on(7, forgotten=[fetch.ForgottenTopic("talk", partitions=[7, 0])])
        go_on(8, [fetch.FetchTopic("nowhere", partitions=[part(0)])], [fetch.ForgottenTopic("other", partitions=[0])])
        go_on(9, [fetch.FetchTopic("talk", partitions=[part(2, 99)])])  # out of range
        go_on(10, forgotten=[fetch.ForgottenTopic("nowhere", partitions=[0])])
        seen.append(asked(wire, session, -2, ())[1])
        seen.append(asked(wire, session, -1, ends)[1])  # closes the session
        seen.append(asked(wire, session, 11, ())[1])
    return seen


@case
def fetch_in_a_session_by_id(peer: Peer) -> Seen:
    """Topic ids; the session cannot be continued in a version that has none, nor the other way round."""
    topic_id = peer.make_topic("talk-by-id")
    produced(peer, "talk-by-id", new_batch(b"a"))
    by_id = [fetch.FetchTopic(topic_id=topic_id, partitions=[part(0)])]
    unknown = [fetch.FetchTopic(topic_id=UUID(int=12345), partitions=[part(0)])]
    seen: list[Seen] = []
    with peer.connect() as wire:
        session, answer = asked(wire, 0, 0, by_id, version=13)
        seen.append(answer)
        seen.append(asked(wire, session, 1, (), version=12)[1])
        seen.append(asked(wire, session, 1, (), version=15)[1])
        seen.append(asked(wire, session, 2, unknown, version=17)[1])
        seen.append(asked(wire, session, 3, (), version=17)[1])
        named, answer = asked(wire, 0, 0, [fetch.FetchTopic("talk-by-id", partitions=[part(0)])], version=12)
        seen.append(answer)
        seen.append(asked(wire, named, 1, (), version=13)[1])
    return seen


@case
def fetch_sessions_of_nothing(peer: Peer) -> Seen:
    """No partitions, ids that are negative or not ours, a final epoch without a session."""
    peer.make_topic("empty-session")
    topics = [fetch.FetchTopic("empty-session", partitions=[part(0)])]
    with peer.connect() as wire:
        return [
            asked(wire, session, epoch, what)[1]
            for session, epoch, what in (
                (0, 0, ()),
                (0, -1, ()),
                (0, -1, topics),
                (0, 1, topics),
                (-1, 0, ()),
                (-1, 1, topics),
                (-5, 3, topics),
                (99, 2**31 - 1, topics),
                (77, -1, topics),
            )
        ]


@case
def fetch_by_somebody_who_claims_to_be_a_replica(peer: Peer) -> Seen:
    """CVE-2018-1288 and what became of it: broker ids that are not, debugging consumers."""
    peer.make_topic("replica")
    produced(peer, "replica", new_batch(b"a"))
    topics = [fetch.FetchTopic("replica", partitions=[part(0)])]
    seen: list[Seen] = []
    for replica_id in (-2, 5, 99):
        seen.append((replica_id, peer.see(fetch.FetchRequest(replica_id=replica_id, topics=topics), 12)))
    return seen


@case
def fetch_with_limits(peer: Peer) -> Seen:
    """The first batch always comes whole; the others fit or wait. Limits of the request and of each partition."""
    peer.make_topic("limits", 2)
    for index in range(2):
        for _ in range(3):
            produced(peer, "limits", new_batch(bytes(500)), partition=index)
    seen: list[Seen] = []
    for bytes_max in (0, 1, 600, 1200, 2000, 2**31 - 1):
        for partition_bytes in (0, 1, 600, 1200, 2000):
            parts = [fetch.FetchPartition(index, partition_max_bytes=partition_bytes) for index in range(2)]
            request = fetch.FetchRequest(max_bytes=bytes_max, topics=[fetch.FetchTopic("limits", partitions=parts)])
            answer = peer.see(request, 12)
            whole = [one["records"] // 570 for one in answer["responses"][0]["partitions"]]  # Kafka cuts in the middle
            seen.append((bytes_max, partition_bytes, whole))
    return seen


@case
def fetch_of_one_partition_twice(peer: Peer) -> Seen:
    """In one topic, and in two of the same name."""
    peer.make_topic("double")
    produced(peer, "double", new_batch(b"a"))
    once = fetch.FetchTopic("double", partitions=[part(0)])
    twice = fetch.FetchTopic("double", partitions=[part(0), part(0, 1)])
    return [peer.see(fetch.FetchRequest(topics=topics), 12) for topics in ([twice], [once, once])]


@case
def epochs_and_their_ends(peer: Peer) -> Seen:
    """OffsetForLeaderEpoch of an empty and a filled log, of topics that are not, by replicas and consumers."""
    peer.make_topic("epoch-empty")
    peer.make_topic("epoch-full")
    for _ in range(3):
        produced(peer, "epoch-full", new_batch(b"a"))
    one = offset_for_leader_epoch.OffsetForLeaderPartition
    seen: list[Seen] = []
    for topic in ("epoch-empty", "epoch-full", "nowhere", "", ".."):
        for partition in (one(0, -1, 0), one(0, 0, 0), one(0, -1, 1), one(0, -1, -1), one(0, 1, 0), one(-1, -1, 0)):
            topics = [offset_for_leader_epoch.OffsetForLeaderTopic(topic, [partition])]
            for version, replica_id in ((2, -1), (3, -1), (4, -1), (4, -2)):
                request = offset_for_leader_epoch.OffsetForLeaderEpochRequest(replica_id, topics)
                seen.append((topic, version, peer.see(request, version)))
    return seen


@case
def fetch_after_another_epoch(peer: Peer) -> Seen:
    """KIP-595: what the reader read last does not fit the log, so it learns where they part."""
    peer.make_topic("diverged")
    for _ in range(3):
        produced(peer, "diverged", new_batch(b"a"))
    return [
        peer.see(fetch.FetchRequest(topics=[fetch.FetchTopic("diverged", partitions=[one])]), 12)
        for one in (
            part(0, 1, last_epoch=0),
            part(0, 3, last_epoch=0),
            part(0, 4, last_epoch=0),
            part(0, 2, last_epoch=1),
            part(0, 2, last_epoch=-2),
            part(0, 2, leader_epoch=0),
            part(0, 2, leader_epoch=1),
            part(0, 2, leader_epoch=-2),
        )
    ]


@case
def offsets_by_special_timestamps(peer: Peer) -> Seen:
    """-1 to -7 in every version, on empty, filled and shrunk logs, for both isolation levels."""
    peer.make_topic("special-empty")
    peer.make_topic("special-full", retention_ms="-1")  # records of 1970: retention would come at any moment
    for at in (5000, 9000, 7000):
        produced(peer, "special-full", new_batch(b"a", b"b", timestamp_ms=at))
    one = list_offsets.ListOffsetsPartition
    seen: list[Seen] = []
    for topic in ("special-empty", "special-full"):
        for version in range(1, 12):
            for timestamp in (-1, -2, -3, -4, -5, -6, -7, 0, 6000, 9001):
                for isolation in (0, 1) if version >= 2 else (0,):
                    topics = [list_offsets.ListOffsetsTopic(topic, [one(0, timestamp=timestamp)])]
                    request = list_offsets.ListOffsetsRequest(-1, isolation, topics, 1000 if version >= 10 else 0)
                    seen.append((topic, version, timestamp, isolation, peer.see(request, version)))
    return seen


@case
def offsets_of_odd_partitions(peer: Peer) -> Seen:
    """One twice in a request, epochs of the past and the future, topics that are none, somebody who is no consumer."""
    peer.make_topic("odd-offsets")
    produced(peer, "odd-offsets", new_batch(b"a"))
    one, topic = list_offsets.ListOffsetsPartition, list_offsets.ListOffsetsTopic
    seen: list[Seen] = []
    for topics in (
        [topic("odd-offsets", [one(0, timestamp=-1), one(0, timestamp=-2)])],
        [topic("odd-offsets", [one(0, timestamp=-1)]), topic("odd-offsets", [one(0, timestamp=-1)])],
        [topic("odd-offsets", [one(0, 0, -1)])],
        [topic("odd-offsets", [one(0, 1, -1)])],
        [topic("odd-offsets", [one(0, -2, -1)])],
        [topic("odd-offsets", [one(-1, timestamp=-1)])],
        [topic("nowhere", [one(0, timestamp=-1)])],
        [topic("", [one(0, timestamp=-1)])],
        [topic("a b", [one(0, timestamp=-1)])],
        [topic("odd-offsets", [])],
        [],
    ):
        seen.append(peer.see(list_offsets.ListOffsetsRequest(-1, 0, topics), 9))
    filled = [topic("odd-offsets", [one(0, timestamp=-1)])]
    for replica_id, isolation in ((-2, 0), (-1, 1), (-1, 7), (5, 0)):
        seen.append(peer.see(list_offsets.ListOffsetsRequest(replica_id, isolation, filled), 9))
    return seen


@case
def metadata_by_topic_id(peer: Peer) -> Seen:
    """Ids that are known, unknown, zero, and together with names."""
    known = peer.make_topic("by-id", 2)
    topic = metadata.MetadataRequestTopic
    seen: list[Seen] = []
    for version in (10, 11, 12, 13):
        for one in (
            topic(known, None),
            topic(known, "by-id"),
            topic(known, "other"),
            topic(UUID(int=4), None),
            topic(UUID(int=4), "by-id"),
            topic(ZERO, "by-id"),
        ):
            request = metadata.MetadataRequest([one], False, include_topic_authorized_operations=True)
            answer = peer.see(request, version)
            seen.append((version, one.name, answer if isinstance(answer, str) else answer["topics"]))
    mixed = peer.see(metadata.MetadataRequest([topic(known, None), topic(ZERO, "by-id")], False), 12)
    none = metadata.MetadataRequest([], False, include_topic_authorized_operations=True)
    return seen, len(mixed["topics"]), peer.see(none, 12), peer.see(metadata.MetadataRequest([]), 1)


@case
def metadata_of_neither_name_nor_id(peer: Peer) -> Seen:
    """Version 12 can leave both out."""
    request = metadata.MetadataRequest([metadata.MetadataRequestTopic(ZERO, None)], False)
    return [one["error_code"] for one in peer.see(request, 12)["topics"]]


@case
def metadata_that_creates(peer: Peer) -> Seen:
    """Names nobody may have are refused; a good one is there soon after, with the default number of partitions."""
    topic = metadata.MetadataRequestTopic
    bad = metadata.MetadataRequest([topic(name=name) for name in ("", ".", "..", "a b", "x" * 250)], True)
    peer.see(metadata.MetadataRequest([topic(name="made-by-asking")], True), 9)
    refused = peer.see(bad, 9)["topics"]
    return by_name(refused), peer.wait_for_topic("made-by-asking")
