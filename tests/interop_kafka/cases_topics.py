"""Topics, partitions, configs and records, as an operator changes them."""

from __future__ import annotations

from uuid import UUID

from streamlog.wire.messages import (
    create_partitions,
    create_topics,
    delete_records,
    delete_topics,
    describe_configs,
    fetch,
    incremental_alter_configs,
)
from tests.broker.batches import new_batch
from tests.interop_kafka.cases import case
from tests.interop_kafka.cases_fetch import fetched
from tests.interop_kafka.cases_produce import produced
from tests.interop_kafka.peers import Peer, Seen, comparable


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
    synonyms = {name: entry.pop("synonyms") for name, entry in found.items()}
    for entry in found.values():
        del entry["documentation"]
    return found, synonyms


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
