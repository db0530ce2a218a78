"""Produce: good and bad batches, sequences of idempotent producers."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from functools import partial
from uuid import UUID

from streamlog.wire.frames import decode_response, encode_request
from streamlog.wire.messages import produce
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
from tests.interop_kafka.cases import CASES, Case, case
from tests.interop_kafka.peers import Peer, Seen, comparable


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


BATCHES: dict[str, Callable[[], bytes]] = {
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
        peer.make_topic(topic, retention_ms="-1")  # some are of 1970
        refused = produced(peer, topic, BATCHES[name]())
        return refused, produced(peer, topic, new_batch(b"after"))

    return run


@case
def batch_none(peer: Peer) -> Seen:
    """Null records: the error code alone, for one of the two says nothing."""
    peer.make_topic("batch-none")
    seen = produced(peer, "batch-none", None)
    code = seen if isinstance(seen, str) else seen["responses"][0]["partition_responses"][0]["error_code"]
    return code, produced(peer, "batch-none", new_batch(b"after"))


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
    peer.wait_for_coordinator("make-it")
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
