"""The same requests, right and wrong, to our broker and to Apache Kafka: the same answers.

A case is a function of a peer that returns what it saw. What is known to differ is in `KNOWN`, with the reason.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from uuid import UUID

import pytest

from streamlog.wire.frames import decode_response, encode_request
from streamlog.wire.message import Request, Response
from streamlog.wire.messages import (
    api_versions,
    create_partitions,
    create_topics,
    delete_groups,
    delete_records,
    delete_topics,
    describe_configs,
    describe_groups,
    fetch,
    find_coordinator,
    heartbeat,
    incremental_alter_configs,
    init_producer_id,
    join_group,
    leave_group,
    list_offsets,
    metadata,
    offset_commit,
    offset_delete,
    offset_fetch,
    offset_for_leader_epoch,
    produce,
    sync_group,
)
from streamlog.wire.records import Compression
from tests.broker.batches import (
    ATTRIBUTES,
    COUNT,
    LAST_DELTA,
    RECORDS,
    SECTIONS,
    changed,
    new_batch,
    produce_request,
    with_section,
)
from tests.broker.running import BrokerProcess
from tests.interop_kafka.peers import Peer, Seen, comparable, differences
from tests.kafka_node import KafkaNode

pytestmark = [pytest.mark.interop_kafka, pytest.mark.timeout(120)]

Case = Callable[[Peer], Seen]
CASES: dict[str, Case] = {}

REFUSED = "both refuse it; Kafka answers with the error of an exception nobody expected"

STRICTER = "Kafka takes it, we refuse it"

KNOWN: dict[str, str] = {
    "array_count_negative": "for Kafka every negative count means null; no encoder writes one below -1, so we close",
    "batch_compression_unknown": REFUSED,
    "batch_garbage_as_gzip": REFUSED,
    "batch_garbage_as_lz4": REFUSED,
    "batch_garbage_as_snappy": REFUSED,
    "batch_garbage_as_zstd": REFUSED,
    "batch_key_size_negative_gzip": STRICTER + ": only -1 means null",
    "batch_key_size_negative_none": STRICTER + ": only -1 means null",
    "batch_value_size_negative_gzip": STRICTER + ": only -1 means null",
    "batch_value_size_negative_none": STRICTER + ": only -1 means null",
    "batch_header_value_negative_gzip": STRICTER + ": only -1 means null",
    "batch_header_value_negative_none": STRICTER + ": only -1 means null",
    "batch_offset_gap_gzip": REFUSED,
    "batch_offset_gap_none": STRICTER + ": two records would come to share an offset, or one would have none",
    "batch_offset_twice_gzip": REFUSED,
    "batch_offset_twice_none": STRICTER + ": two records would come to share an offset",
    "batch_size_varint_too_long_none": REFUSED,
    "batch_log_append_time": "Kafka's validator means to refuse it, and does on stamped topics only; we always do",
    "batch_none": "Kafka never answers, and the connection is lost to its client; we say INVALID_RECORD",
    "configs_of_a_new_topic": "we name a default for every config; Kafka stores min.insync.replicas for ELR",
    "configs_that_cannot_be_altered": REFUSED,
    "fetch_of_less_than_nothing": "Kafka says UNKNOWN_SERVER_ERROR, we take it as zero",
}
"""Differences that stay, and why."""

SETTINGS = (
    "offsets.topic.num.partitions=4",
    "group.initial.rebalance.delay.ms=0",
    "group.min.session.timeout.ms=100",
)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with BrokerProcess(tmp_path_factory.mktemp("broker"), *SETTINGS) as broker:
        yield Peer("streamlog", broker.address)


@pytest.fixture(scope="module")
def theirs(kafka: KafkaNode) -> Peer:
    return Peer("kafka", kafka.bootstrap)


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def cases(**variants: Case) -> None:
    CASES.update(variants)


# --- frames ---

METADATA_V9 = struct.pack(">hhih", 3, 9, 1, 0) + b"\x00"


def header(api_key: int, version: int) -> bytes:
    return struct.pack(">hhih", api_key, version, 1, -1)


cases(
    size_negative=lambda peer: peer.raw(struct.pack(">i", -5) + bytes(20)),
    size_too_large=lambda peer: peer.raw(struct.pack(">i", 104857601) + bytes(20)),
    http=lambda peer: peer.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    tls=lambda peer: peer.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)),
    frame_empty=lambda peer: peer.frame(b""),
    frame_of_three_bytes=lambda peer: peer.frame(b"\x00\x03\x00"),
    api_unknown=lambda peer: peer.frame(header(500, 0)),
    api_negative=lambda peer: peer.frame(header(-1, 0)),
    api_of_a_controller=lambda peer: peer.frame(header(62, 0) + bytes(40)),
    api_removed=lambda peer: peer.frame(header(4, 0) + bytes(40)),
    version_too_high=lambda peer: peer.frame(header(3, 200) + bytes(20)),
    version_too_low=lambda peer: peer.frame(header(0, 2) + bytes(20)),
    version_negative=lambda peer: peer.frame(header(3, -1) + bytes(20)),
    header_only=lambda peer: peer.frame(header(3, 1)),
    header_without_client_id=lambda peer: peer.frame(struct.pack(">hhi", 3, 9, 1)),
    client_id_longer_than_the_frame=lambda peer: peer.frame(struct.pack(">hhih", 3, 9, 1, 500) + b"x"),
    body_cut=lambda peer: peer.frame(METADATA_V9 + b"\x02" + bytes(10)),
    body_of_garbage=lambda peer: peer.frame(METADATA_V9 + b"\xde\xad\xbe\xef" * 10),
    array_count_negative=lambda peer: peer.frame(header(3, 1) + struct.pack(">i", -2) + bytes(20)),
    array_count_huge=lambda peer: peer.frame(header(3, 1) + struct.pack(">i", 2**31 - 1) + bytes(20)),
    array_count_huge_compact=lambda peer: peer.frame(METADATA_V9 + b"\xff\xff\xff\xff\x07" + bytes(20)),
    string_length_negative=lambda peer: peer.frame(header(3, 1) + struct.pack(">ih", 1, -2)),
    string_longer_than_the_frame=lambda peer: peer.frame(header(3, 1) + struct.pack(">ih", 1, 5000) + b"x"),
    string_null_where_it_must_not_be=lambda peer: peer.frame(header(3, 1) + struct.pack(">ih", 1, -1)),
    varint_of_six_bytes=lambda peer: peer.frame(METADATA_V9 + b"\x80\x80\x80\x80\x80\x01" + bytes(20)),
    tags_two_billion=lambda peer: peer.frame(METADATA_V9 + b"\x01\x01\x00\x00" + b"\xff\xff\xff\xff\x07" + bytes(20)),
    api_versions_too_high=lambda peer: _api_versions_error(peer, 99),
    api_versions_negative=lambda peer: peer.frame(header(18, -1)),
    api_versions_bad_name=lambda peer: _software(peer, "not a name!", "1"),
    api_versions_bad_version=lambda peer: _software(peer, "name", "\x00"),
    api_versions_good_name=lambda peer: _software(peer, "apache-kafka", "4.3.1"),
)


def _api_versions_error(peer: Peer, version: int) -> Seen:
    """Correlation id, error, and what else a version 0 answer says."""
    return peer.frame(header(18, version))


def _software(peer: Peer, name: str, version: str) -> Seen:
    request = api_versions.ApiVersionsRequest(client_software_name=name, client_software_version=version)
    answer = peer.ask(request, 3, api_versions.ApiVersionsResponse)
    assert isinstance(answer, api_versions.ApiVersionsResponse)
    return answer.error_code


@case
def api_versions_of_what_we_serve(peer: Peer) -> Seen:
    """Groups, data and admin: the ranges are Kafka's."""
    answer = peer.ask(api_versions.ApiVersionsRequest("test", "1"), 3, api_versions.ApiVersionsResponse)
    assert isinstance(answer, api_versions.ApiVersionsResponse)
    served = {0, 1, 2, 3, 8, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23, 32, 33, 37, 42, 44, 47, 60, 75}
    return sorted((api.api_key, api.min_version, api.max_version) for api in answer.api_keys if api.api_key in served)


# --- produce ---


def produced(peer: Peer, topic: str, records: bytes | None, version: int = 9, **options: int) -> Seen:
    """The partition's answer, with the places of bad records."""
    with peer.connect() as wire:
        wire.send(encode_request(produce_request(topic, records, **options), version, 1, "test"))
        frame = wire.read_frame()
    if isinstance(frame, str):
        return frame
    answer = decode_response(produce.ProduceResponse, version, frame)[1]
    for topic_answer in answer.responses:
        for one in topic_answer.partition_responses:
            if one.error_code:
                one.log_start_offset = -1  # Kafka says it for some errors; nobody reads it
    return comparable(answer)


BATCHES: dict[str, Callable[[], bytes | None]] = {
    "none": lambda: None,
    "empty": lambda: b"",
    "two": lambda: new_batch(b"a") + new_batch(b"b"),
    "magic_1": lambda: changed(new_batch(b"a"), 16, b"\x01", resum=False),
    "magic_0": lambda: changed(new_batch(b"a"), 16, b"\x00", resum=False),
    "magic_3": lambda: changed(new_batch(b"a"), 16, b"\x03", resum=False),
    "bad_crc": lambda: changed(new_batch(b"a"), 17, b"\x00\x00\x00\x00", resum=False),
    "cut_short": lambda: new_batch(b"a")[:40],
    "length_too_small": lambda: changed(new_batch(b"a"), 8, struct.pack(">i", 10), resum=False),
    "length_too_large": lambda: changed(new_batch(b"a"), 8, struct.pack(">i", 5000), resum=False),
    "length_negative": lambda: changed(new_batch(b"a"), 8, struct.pack(">i", -1), resum=False),
    "count_too_large": lambda: changed(new_batch(b"a", b"b"), COUNT, struct.pack(">i", 3)),
    "count_too_small": lambda: changed(new_batch(b"a", b"b"), COUNT, struct.pack(">i", 1)),
    "count_zero": lambda: changed(new_batch(b"a"), COUNT, struct.pack(">i", 0)),
    "count_negative": lambda: changed(new_batch(b"a"), COUNT, struct.pack(">i", -5)),
    "delta_wrong": lambda: changed(new_batch(b"a", b"b"), LAST_DELTA, struct.pack(">i", 7)),
    "delta_negative": lambda: changed(new_batch(b"a"), LAST_DELTA, struct.pack(">i", -7)),
    "control": lambda: changed(new_batch(b"a"), ATTRIBUTES, struct.pack(">h", 0x20)),
    "transactional_without_id": lambda: changed(new_batch(b"a"), ATTRIBUTES, struct.pack(">h", 0x10)),
    "log_append_time": lambda: changed(new_batch(b"a"), ATTRIBUTES, struct.pack(">h", 0x08)),
    "compression_unknown": lambda: changed(new_batch(b"a"), ATTRIBUTES, struct.pack(">h", 0x07)),
    "record_too_long": lambda: changed(new_batch(b"abcdef"), RECORDS, b"\x7e"),
    "record_length_negative": lambda: changed(new_batch(b"abcdef"), RECORDS, b"\x01"),
    "garbage_as_gzip": lambda: changed(new_batch(b"abcdef"), ATTRIBUTES, struct.pack(">h", 1)),
    "garbage_as_snappy": lambda: changed(new_batch(b"abcdef"), ATTRIBUTES, struct.pack(">h", 2)),
    "garbage_as_lz4": lambda: changed(new_batch(b"abcdef"), ATTRIBUTES, struct.pack(">h", 3)),
    "garbage_as_zstd": lambda: changed(new_batch(b"abcdef"), ATTRIBUTES, struct.pack(">h", 4)),
    "too_large": lambda: new_batch(bytes(2_000_000)),
    "producer_without_sequence": lambda: new_batch(b"a", producer_id=5000, producer_epoch=0, base_sequence=-1),
    "producer_epoch_negative": lambda: new_batch(b"a", producer_id=5001, producer_epoch=-1, base_sequence=0),
    "base_offset_odd": lambda: changed(new_batch(b"a"), 0, struct.pack(">q", 77), resum=False),
    "leader_epoch_odd": lambda: changed(new_batch(b"a"), 12, struct.pack(">i", 77), resum=False),
    "too_new": lambda: new_batch(b"a", b"b", timestamp_ms=int(time.time() * 1000) + 7_200_000),
    "very_old": lambda: new_batch(b"a", timestamp_ms=1000),
    "timestamp_negative": lambda: new_batch(b"a", timestamp_ms=-1),
}


for _name, (_section, _count) in SECTIONS.items():
    for _compression in (Compression.NONE, Compression.GZIP):
        BATCHES[f"{_name}_{_compression.name.lower()}"] = partial(with_section, _section, _count, _compression)


def batch_case(name: str) -> Case:
    def run(peer: Peer) -> Seen:
        topic = f"batch-{name}"
        peer.make_topic(topic)
        refused = produced(peer, topic, BATCHES[name]())
        return refused, produced(peer, topic, new_batch(b"after"))

    return run


for _name in BATCHES:
    CASES[f"batch_{_name}"] = batch_case(_name)


@case
def batch_old_for_its_topic(peer: Peer) -> Seen:
    peer.make_topic("old", message_timestamp_before_max_ms="1000")
    return produced(peer, "old", new_batch(b"a", b"b", timestamp_ms=1000))


@case
def batch_of_a_compacted_topic_without_keys(peer: Peer) -> Seen:
    peer.make_topic("compacted", cleanup_policy="compact")
    return produced(peer, "compacted", new_batch(b"a", b"b")), produced(peer, "compacted", new_batch(b"a", key=b"k"))


@case
def batch_larger_than_a_segment(peer: Peer) -> Seen:
    peer.make_topic("segment", segment_bytes="1048576", max_message_bytes="3000000")
    return produced(peer, "segment", new_batch(bytes(1_500_000)))


@case
def batch_stamped_by_the_broker(peer: Peer) -> Seen:
    peer.make_topic("stamped", message_timestamp_type="LogAppendTime")
    return produced(peer, "stamped", new_batch(b"a", timestamp_ms=1000))


@case
def batch_zstd_in_an_old_request(peer: Peer) -> Seen:
    peer.make_topic("zstd")
    batch = new_batch(b"a" * 100, compression=Compression.ZSTD)
    return produced(peer, "zstd", batch, 6), produced(peer, "zstd", batch, 7)


@case
def produce_acks_of_two(peer: Peer) -> Seen:
    peer.make_topic("acks")
    return produced(peer, "acks", new_batch(b"a"), acks=2)


@case
def produce_without_acks_and_with_an_error(peer: Peer) -> Seen:
    peer.make_topic("no-acks")
    with peer.connect() as wire:
        wire.send(encode_request(produce_request("no-acks", new_batch(b"a"), partition=9, acks=0), 9, 1, "test"))
        return wire.outcome()


@case
def produce_to_unknown_places(peer: Peer) -> Seen:
    peer.make_topic("known")
    request = produce.ProduceRequest(
        acks=-1,
        timeout_ms=1000,
        topic_data=[
            produce.TopicProduceData(
                topic_id=UUID(int=99),
                partition_data=[produce.PartitionProduceData(index=0, records=new_batch(b"a"))],
            )
        ],
    )
    by_id = comparable(peer.ask(request, 13, produce.ProduceResponse))
    by_name = [produced(peer, topic, new_batch(b"a")) for topic in ("nowhere", "", "..", "a/b", "x" * 250)]
    return (
        by_id,
        by_name,
        produced(peer, "known", new_batch(b"a"), partition=7),
        produced(peer, "known", new_batch(b"a"), partition=-1),
    )


@case
def produce_to_an_internal_topic(peer: Peer) -> Seen:
    _coordinator(peer, "make-it")
    return produced(peer, "__consumer_offsets", new_batch(b"a", key=b"k"))


@case
def produce_with_sequences(peer: Peer) -> Seen:
    """Duplicates, gaps, new and old epochs."""
    peer.make_topic("sequences")
    seen: list[Seen] = []

    def send(epoch: int, sequence: int, count: int = 1) -> None:
        batch = new_batch(*[b"v"] * count, producer_id=4000, producer_epoch=epoch, base_sequence=sequence)
        seen.append((epoch, sequence, count, produced(peer, "sequences", batch)))

    for epoch, sequence, count in [
        (0, 0, 2),
        (0, 2, 1),
        (0, 2, 1),  # again
        (0, 0, 2),  # one before, again
        (0, 0, 1),  # another batch with an old sequence
        (0, 5, 1),  # a gap
        (0, 3, 1),
        (0, 4, 1),
        (0, 5, 1),
        (0, 6, 1),
        (0, 7, 1),
        (0, 0, 2),  # too old to be remembered
        (1, 3, 1),  # a new epoch starts at 0
        (1, 0, 1),
        (0, 8, 1),  # the old epoch
    ]:
        send(epoch, sequence, count)
    return seen


# --- fetch and lookups ---


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


# --- topics and configs ---


@case
def topics_that_cannot_be_made(peer: Peer) -> Seen:
    peer.make_topic("there")
    topic, config = create_topics.CreatableTopic, create_topics.CreatableTopicConfig
    by_hand = create_topics.CreatableReplicaAssignment
    asked = [
        [topic("there", 1, 1)],
        [topic("twice", 1, 1), topic("twice", 2, 1)],
        [topic("p0", 0, 1)],
        [topic("p-5", -5, 1)],
        [topic("r0", 1, 0)],
        [topic("r2", 1, 2)],
        [topic("r-2", 1, -2)],
        [topic("hand", -1, -1, [by_hand(0, [1])])],
        [topic("hand-and-count", 1, 1, [by_hand(0, [1])])],
        [topic("hand-gap", -1, -1, [by_hand(1, [1])])],
        [topic("hand-nobody", -1, -1, [by_hand(0, [55])])],
        [topic("hand-empty", -1, -1, [by_hand(0, [])])],
        [topic("hand-twice", -1, -1, [by_hand(0, [1, 1])])],
        [topic("config-unknown", 1, 1, [], [config("no.such", "1")])],
        [topic("config-bad", 1, 1, [], [config("retention.ms", "x")])],
        [topic("config-null", 1, 1, [], [config("retention.ms", None)])],
        [topic("config-range", 1, 1, [], [config("min.cleanable.dirty.ratio", "7")])],
        [topic("config-policy", 1, 1, [], [config("cleanup.policy", "shred")])],
        [topic("", 1, 1)],
        [topic(".", 1, 1)],
        [topic("..", 1, 1)],
        [topic("a/b", 1, 1)],
        [topic("a b", 1, 1)],
        [topic("é", 1, 1)],
        [topic("x" * 250, 1, 1)],
        [topic("x" * 249, 1, 1)],
        [topic("dot.ted", 1, 1)],
        [topic("dot_ted", 1, 1)],
        [],
    ]
    seen: list[Seen] = []
    for one in asked:
        for dry in (True, False):
            request = create_topics.CreateTopicsRequest(one, 20_000, dry)
            answer = peer.ask(request, 5, create_topics.CreateTopicsResponse)
            assert isinstance(answer, create_topics.CreateTopicsResponse)
            seen.append([(t.name[:20], t.error_code, t.num_partitions, t.replication_factor) for t in answer.topics])
    return seen


@case
def topics_that_cannot_be_deleted_or_grown(peer: Peer) -> Seen:
    peer.make_topic("grow", 2)
    state = delete_topics.DeleteTopicState
    seen: list[Seen] = []
    for states in [
        [state("nowhere")],
        [state("")],
        [state(None, UUID(int=3))],
        [state(None)],
        [state("nowhere"), state("nowhere")],
    ]:
        request = delete_topics.DeleteTopicsRequest(topics=states, timeout_ms=5000)
        seen.append(comparable(peer.ask(request, 6, delete_topics.DeleteTopicsResponse)))
    grow, hand = create_partitions.CreatePartitionsTopic, create_partitions.CreatePartitionsAssignment
    for topics in [
        [grow("grow", 1, None)],
        [grow("grow", 2, None)],
        [grow("grow", 0, None)],
        [grow("grow", -1, None)],
        [grow("nowhere", 3, None)],
        [grow("grow", 3, [hand([9])])],
        [grow("grow", 3, [hand([1]), hand([1])])],
        [grow("grow", 3, []), grow("grow", 4, None)],
        [grow("grow", 3, [hand([1])])],
    ]:
        request2 = create_partitions.CreatePartitionsRequest(topics, 5000)
        seen.append(comparable(peer.ask(request2, 3, create_partitions.CreatePartitionsResponse)))
    return seen


@case
def configs_that_cannot_be_altered(peer: Peer) -> Seen:
    peer.make_topic("configured")
    resource, entry = incremental_alter_configs.AlterConfigsResource, incremental_alter_configs.AlterableConfig
    seen: list[Seen] = []
    for resources in [
        [resource(2, "configured", [entry("retention.ms", 0, "5")])],
        [resource(2, "configured", [entry("retention.ms", 0, "x")])],
        [resource(2, "configured", [entry("retention.ms", 0, None)])],
        [resource(2, "configured", [entry("retention.ms", 1, None)])],
        [resource(2, "configured", [entry("no.such", 0, "5")])],
        [resource(2, "configured", [entry("no.such", 1, None)])],
        [resource(2, "configured", [entry("retention.ms", 2, "5")])],
        [resource(2, "configured", [entry("cleanup.policy", 2, "compact")])],
        [resource(2, "configured", [entry("cleanup.policy", 3, "compact")])],
        [resource(2, "configured", [entry("retention.ms", 9, "5")])],
        [resource(2, "configured", [entry("retention.ms", 0, "5"), entry("retention.ms", 0, "6")])],
        [resource(2, "nowhere", [entry("retention.ms", 0, "5")])],
        [resource(2, "", [entry("retention.ms", 0, "5")])],
        [resource(4, "99", [entry("message.max.bytes", 0, "5000000")])],
        [resource(4, "one", [entry("message.max.bytes", 0, "5000000")])],
        [resource(0, "x", [entry("retention.ms", 0, "5")])],
        [resource(2, "configured", []), resource(2, "configured", [])],
    ]:
        request = incremental_alter_configs.IncrementalAlterConfigsRequest(resources)
        seen.append(comparable(peer.ask(request, 1, incremental_alter_configs.IncrementalAlterConfigsResponse)))
    asked = describe_configs.DescribeConfigsResource
    for one in (asked(2, "nowhere", None), asked(4, "99", None), asked(2, "", None), asked(0, "x", None)):
        answer = peer.ask(describe_configs.DescribeConfigsRequest([one]), 4, describe_configs.DescribeConfigsResponse)
        seen.append(comparable(answer))
    return seen


@case
def configs_of_a_new_topic(peer: Peer) -> Seen:
    """Names, values, sources, types, sensitivity and synonyms: all of them, but for our own."""
    peer.make_topic("plain", retention_ms="1234567")
    asked = describe_configs.DescribeConfigsResource(2, "plain", None)
    request = describe_configs.DescribeConfigsRequest([asked], include_synonyms=True)
    answer = peer.ask(request, 4, describe_configs.DescribeConfigsResponse)
    assert isinstance(answer, describe_configs.DescribeConfigsResponse)
    found = {entry.name: comparable(entry) for entry in answer.results[0].configs if "streamlog" not in entry.name}
    for entry in found.values():
        del entry["documentation"]
    return found


@case
def records_that_cannot_be_deleted(peer: Peer) -> Seen:
    peer.make_topic("shrink")
    for _ in range(3):
        produced(peer, "shrink", new_batch(b"a"))
    part = delete_records.DeleteRecordsPartition
    seen: list[Seen] = []
    for one in (part(0, 9), part(0, -5), part(0, 2), part(0, 1), part(0, -1), part(4, 1)):
        request = delete_records.DeleteRecordsRequest([delete_records.DeleteRecordsTopic("shrink", [one])], 5000)
        seen.append(comparable(peer.ask(request, 2, delete_records.DeleteRecordsResponse)))
    return seen, fetched(peer, fetch.FetchPartition(0, fetch_offset=1, partition_max_bytes=99), "shrink")


# --- groups ---


def _coordinator(peer: Peer, group: str) -> None:
    """Wait until the group's coordinator is there."""
    for _ in range(200):
        request = find_coordinator.FindCoordinatorRequest(key_type=0, coordinator_keys=[group])
        answer = peer.ask(request, 4, find_coordinator.FindCoordinatorResponse)
        assert isinstance(answer, find_coordinator.FindCoordinatorResponse)
        if answer.coordinators[0].error_code == 0:
            probe = peer.ask(describe_groups.DescribeGroupsRequest([group]), 5, describe_groups.DescribeGroupsResponse)
            assert isinstance(probe, describe_groups.DescribeGroupsResponse)
            if probe.groups[0].error_code not in (14, 15, 16):
                return
        time.sleep(0.05)
    raise AssertionError("no coordinator")


def joining(group: str, **changes: object) -> join_group.JoinGroupRequest:
    request = join_group.JoinGroupRequest(
        group_id=group,
        session_timeout_ms=10_000,
        rebalance_timeout_ms=10_000,
        protocol_type="consumer",
        protocols=[join_group.JoinGroupRequestProtocol("range", b"m")],
    )
    for name, value in changes.items():
        setattr(request, name, value)
    return request


@case
def group_requests_of_nobody(peer: Peer) -> Seen:
    """Unknown groups and members, empty names, timeouts out of range."""
    _coordinator(peer, "g")
    pairs: list[tuple[Request, int, type[Response]]] = [
        (joining(""), 9, join_group.JoinGroupResponse),
        (joining("g"), 9, join_group.JoinGroupResponse),
        (joining("g", member_id="who"), 9, join_group.JoinGroupResponse),
        (joining("g", session_timeout_ms=1), 9, join_group.JoinGroupResponse),
        (joining("g", session_timeout_ms=10_000_000), 9, join_group.JoinGroupResponse),
        (joining("g", protocols=[]), 9, join_group.JoinGroupResponse),
        (joining("g", protocol_type=""), 9, join_group.JoinGroupResponse),
        (sync_group.SyncGroupRequest("none", 1, "who"), 5, sync_group.SyncGroupResponse),
        (sync_group.SyncGroupRequest("", 1, "who", None, "consumer", "range"), 5, sync_group.SyncGroupResponse),
        (heartbeat.HeartbeatRequest("none", 1, "who"), 4, heartbeat.HeartbeatResponse),
        (heartbeat.HeartbeatRequest("", 1, "who"), 4, heartbeat.HeartbeatResponse),
        (
            leave_group.LeaveGroupRequest("none", members=[leave_group.MemberIdentity("who")]),
            5,
            leave_group.LeaveGroupResponse,
        ),
        (leave_group.LeaveGroupRequest("none", members=[]), 5, leave_group.LeaveGroupResponse),
        (describe_groups.DescribeGroupsRequest(["none", ""]), 5, describe_groups.DescribeGroupsResponse),
        (describe_groups.DescribeGroupsRequest(["none", ""]), 6, describe_groups.DescribeGroupsResponse),
        (delete_groups.DeleteGroupsRequest(["none"]), 2, delete_groups.DeleteGroupsResponse),
        (delete_groups.DeleteGroupsRequest([""]), 2, delete_groups.DeleteGroupsResponse),
        (offset_delete.OffsetDeleteRequest("none"), 0, offset_delete.OffsetDeleteResponse),
        (
            find_coordinator.FindCoordinatorRequest(key_type=9, coordinator_keys=["g"]),
            4,
            find_coordinator.FindCoordinatorResponse,
        ),
    ]
    return [(type(request).__name__, comparable(peer.ask(request, version, kind))) for request, version, kind in pairs]


@case
def offsets_of_a_simple_group(peer: Peer) -> Seen:
    """Commits without a group: unknown partitions, metadata too long, generations that are not."""
    peer.make_topic("commit")
    _coordinator(peer, "simple")
    part, topic = offset_commit.OffsetCommitRequestPartition, offset_commit.OffsetCommitRequestTopic
    seen: list[Seen] = []
    for generation, member, topics in [
        (-1, "", [topic("commit", partitions=[part(0, 5, committed_metadata="m")])]),
        (-1, "", [topic("commit", partitions=[part(0, 5, committed_metadata="m" * 4097)])]),
        (-1, "", [topic("commit", partitions=[part(9, 5)])]),
        (-1, "", [topic("nowhere", partitions=[part(0, 5)])]),
        (-1, "", [topic("commit", partitions=[part(0, -5)])]),
        (-1, "who", [topic("commit", partitions=[part(0, 5)])]),
        (3, "who", [topic("commit", partitions=[part(0, 5)])]),
        (-1, "", []),
    ]:
        request = offset_commit.OffsetCommitRequest("simple", generation, member, topics=topics)
        seen.append(comparable(peer.ask(request, 8, offset_commit.OffsetCommitResponse)))
    empty = offset_commit.OffsetCommitRequest("", topics=[topic("commit", partitions=[part(0, 5)])])
    seen.append(comparable(peer.ask(empty, 8, offset_commit.OffsetCommitResponse)))
    asked = offset_fetch.OffsetFetchRequestTopics
    for group, topics2 in [
        ("simple", None),
        ("simple", [asked("commit", partition_indexes=[0, 1]), asked("nowhere", partition_indexes=[0])]),
        ("none", None),
        ("none", [asked("commit", partition_indexes=[0])]),
        ("", None),
    ]:
        one = offset_fetch.OffsetFetchRequestGroup(group, topics=topics2)
        request2 = offset_fetch.OffsetFetchRequest(groups=[one], require_stable=True)
        seen.append(comparable(peer.ask(request2, 9, offset_fetch.OffsetFetchResponse)))
    return seen


@case
def life_of_a_group(peer: Peer) -> Seen:
    """Joining in two steps, syncing, beating, committing, wrong generations, deleting while in use, leaving."""
    peer.make_topic("life")
    _coordinator(peer, "life")
    seen: list[Seen] = []
    with peer.connect() as wire:

        def ask(request: Request, version: int, kind: type[Response]) -> Response:
            answer = wire.ask(request, version, kind)
            seen.append((type(request).__name__, comparable(answer)))
            return answer

        first = ask(joining("life"), 9, join_group.JoinGroupResponse)
        assert isinstance(first, join_group.JoinGroupResponse)
        member = first.member_id
        assert member.startswith("test-"), member
        joined = ask(joining("life", member_id=member), 9, join_group.JoinGroupResponse)
        assert isinstance(joined, join_group.JoinGroupResponse)
        assert joined.leader == member
        ask(heartbeat.HeartbeatRequest("life", 1, member), 4, heartbeat.HeartbeatResponse)
        assigned = [sync_group.SyncGroupRequestAssignment(member, b"a")]
        ask(sync_group.SyncGroupRequest("life", 7, member), 5, sync_group.SyncGroupResponse)
        ask(
            sync_group.SyncGroupRequest("life", 1, member, None, "other", "range", assigned),
            5,
            sync_group.SyncGroupResponse,
        )
        ask(
            sync_group.SyncGroupRequest("life", 1, member, None, "consumer", "range", assigned),
            5,
            sync_group.SyncGroupResponse,
        )
        for generation, who in ((1, member), (2, member), (0, member), (1, "other")):
            ask(heartbeat.HeartbeatRequest("life", generation, who), 4, heartbeat.HeartbeatResponse)
            part = offset_commit.OffsetCommitRequestPartition(0, 3)
            topics = [offset_commit.OffsetCommitRequestTopic("life", partitions=[part])]
            ask(
                offset_commit.OffsetCommitRequest("life", generation, who, topics=topics),
                8,
                offset_commit.OffsetCommitResponse,
            )
        ask(joining("life", protocol_type="connect"), 9, join_group.JoinGroupResponse)
        other = [join_group.JoinGroupRequestProtocol("sticky", b"m")]
        ask(joining("life", protocols=other), 9, join_group.JoinGroupResponse)
        ask(delete_groups.DeleteGroupsRequest(["life"]), 2, delete_groups.DeleteGroupsResponse)
        delete = offset_delete.OffsetDeleteRequestTopic("life", [offset_delete.OffsetDeleteRequestPartition(0)])
        ask(offset_delete.OffsetDeleteRequest("life", [delete]), 0, offset_delete.OffsetDeleteResponse)
        described = ask(
            describe_groups.DescribeGroupsRequest(["life"], True), 5, describe_groups.DescribeGroupsResponse
        )
        assert isinstance(described, describe_groups.DescribeGroupsResponse)
        leaving = [leave_group.MemberIdentity(member), leave_group.MemberIdentity("other")]
        ask(leave_group.LeaveGroupRequest("life", members=leaving), 5, leave_group.LeaveGroupResponse)
        ask(heartbeat.HeartbeatRequest("life", 1, member), 4, heartbeat.HeartbeatResponse)
        ask(offset_delete.OffsetDeleteRequest("life", [delete]), 0, offset_delete.OffsetDeleteResponse)
        ask(describe_groups.DescribeGroupsRequest(["life"]), 5, describe_groups.DescribeGroupsResponse)
        ask(delete_groups.DeleteGroupsRequest(["life"]), 2, delete_groups.DeleteGroupsResponse)
        ask(describe_groups.DescribeGroupsRequest(["life"]), 5, describe_groups.DescribeGroupsResponse)
    return seen


@case
def producer_ids(peer: Peer) -> Seen:
    seen: list[Seen] = []
    request = init_producer_id.InitProducerIdRequest
    for _ in range(200):  # Kafka fetches its first block of ids meanwhile
        first = peer.ask(request(None, 1000), 4, init_producer_id.InitProducerIdResponse)
        assert isinstance(first, init_producer_id.InitProducerIdResponse)
        if first.error_code == 0:
            break
        time.sleep(0.05)
    for one in (request(None, 1000), request(None, 1000, 5, -1), request(None, 1000, 999_999, 3), request(None, -1)):
        seen.append(comparable(peer.ask(one, 4, init_producer_id.InitProducerIdResponse)))
    return seen


# --- the comparison ---


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_answer_is_kafkas(name: str, ours: Peer, theirs: Peer, request: pytest.FixtureRequest) -> None:
    """Codes and shapes; texts for people may differ."""
    if name in KNOWN:
        request.node.add_marker(pytest.mark.xfail(reason=KNOWN[name], strict=True))
    found = differences(CASES[name](ours), CASES[name](theirs))
    assert not found, "\n".join(found)
