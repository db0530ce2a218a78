"""Sequences of idempotent producers (KIP-98, KIP-360): what is a duplicate, a gap, or another producer's."""

from __future__ import annotations

from streamlog.wire.messages import delete_records, init_producer_id
from tests.broker.batches import new_batch
from tests.interop_kafka.cases import case
from tests.interop_kafka.cases_produce import produced
from tests.interop_kafka.peers import Peer, Seen

LAST = 2**31 - 1


def sent(peer: Peer, topic: str, *steps: tuple[int, int, int, int]) -> Seen:
    """Batches of (producer id, epoch, base sequence, count), one after another."""
    return [
        (
            step,
            produced(
                peer,
                topic,
                new_batch(*[b"v"] * step[3], producer_id=step[0], producer_epoch=step[1], base_sequence=step[2]),
            ),
        )
        for step in steps
    ]


@case
def sequences_of_an_unknown_producer(peer: Peer) -> Seen:
    """Nobody knows it, so it may begin anywhere; from there on it is held to its word."""
    peer.make_topic("unknown-producer")
    return sent(peer, "unknown-producer", (6000, 0, 17, 1), (6000, 0, 18, 2), (6000, 0, 18, 1), (6000, 0, 16, 1))


@case
def sequences_wrap_around(peer: Peer) -> Seen:
    """From 2^31 - 1 to 0, between batches and inside one; duplicates of those are known too."""
    peer.make_topic("wrap")
    return sent(
        peer,
        "wrap",
        (6100, 0, LAST - 1, 1),
        (6100, 0, LAST, 1),
        (6100, 0, 0, 1),
        (6100, 0, LAST, 1),
        (6100, 0, 2, 1),
        (6101, 0, LAST - 1, 5),
        (6101, 0, 3, 1),
        (6101, 0, LAST - 1, 5),
        (6101, 0, LAST - 1, 4),
    )


@case
def sequences_of_overlapping_batches(peer: Peer) -> Seen:
    """A batch that begins or ends as a known one but is another is no duplicate."""
    peer.make_topic("overlap")
    return sent(
        peer,
        "overlap",
        (6200, 0, 0, 5),
        (6200, 0, 0, 4),
        (6200, 0, 1, 4),
        (6200, 0, 0, 6),
        (6200, 0, 4, 1),
        (6200, 0, 5, 5),
        (6200, 0, 0, 10),
        (6200, 0, 0, 5),
    )


@case
def sequences_of_six_batches(peer: Peer) -> Seen:
    """Five are remembered; the sixth last is out of order."""
    peer.make_topic("six")
    return sent(
        peer, "six", *((6300, 0, number, 1) for number in range(6)), *((6300, 0, number, 1) for number in range(6))
    )


@case
def sequences_of_new_epochs(peer: Peer) -> Seen:
    """An epoch begins at 0, forgets the batches before it, and fences those who speak with the old one."""
    peer.make_topic("new-epoch")
    return sent(
        peer,
        "new-epoch",
        (6400, 5, 0, 1),
        (6400, 5, 1, 1),
        (6400, 6, 1, 1),
        (6400, 6, 2, 1),
        (6400, 6, 0, 1),
        (6400, 6, 0, 1),
        (6400, 5, 1, 1),
        (6400, 5, 2, 1),
        (6400, 9, 0, 1),
        (6400, 8, 0, 1),
        (6400, 32767, 0, 1),
        (6400, 0, 0, 1),
    )


@case
def sequences_of_two_producers_in_one_log(peer: Peer) -> Seen:
    """Each counts for itself, and on each partition for itself."""
    peer.make_topic("two-producers", 2)
    first = sent(peer, "two-producers", (6500, 0, 0, 1), (6501, 0, 0, 2), (6500, 0, 1, 1), (6501, 0, 2, 1))
    batch = new_batch(b"v", producer_id=6500, producer_epoch=0, base_sequence=0)
    other = produced(peer, "two-producers", batch, partition=1)
    return first, other, sent(peer, "two-producers", (6501, 0, 0, 2), (6500, 0, 3, 1))


@case
def sequences_outlive_deleted_records(peer: Peer) -> Seen:
    """DeleteRecords takes the batches; what a producer sent last is remembered all the same."""
    peer.make_topic("outlive")
    before = sent(peer, "outlive", (6600, 0, 0, 1), (6600, 0, 1, 1))
    topics = [delete_records.DeleteRecordsTopic("outlive", [delete_records.DeleteRecordsPartition(0, -1)])]
    gone = peer.see(delete_records.DeleteRecordsRequest(topics, 10_000), 2)
    return before, gone, sent(peer, "outlive", (6600, 0, 1, 1), (6600, 0, 3, 1), (6600, 0, 2, 1))


@case
def producer_ids_in_every_version(peer: Peer) -> Seen:
    """What is no transaction: epochs, ids given along, names of nothing."""
    peer.wait_for_producer_ids()
    request = init_producer_id.InitProducerIdRequest
    seen: list[Seen] = []
    for version in range(6):
        seen.append((version, peer.see(request(None, 60_000), version)))
    for one in (request(None, 0), request(None, -1), request(None, 2**31 - 1), request(None, 1000, 5000, 0)):
        seen.append(peer.see(one, 5))
    seen.append(peer.see(request("", 1000), 4))
    return seen
