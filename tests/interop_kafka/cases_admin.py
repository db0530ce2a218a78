"""Bad input of every API that an operator's tool calls, and what a change leaves behind."""

from __future__ import annotations

import time
from uuid import UUID

from streamlog.wire.messages import (
    alter_configs,
    create_partitions,
    create_topics,
    delete_groups,
    delete_records,
    delete_topics,
    describe_cluster,
    describe_configs,
    describe_groups,
    describe_topic_partitions,
    fetch,
    incremental_alter_configs,
    list_groups,
    list_offsets,
    offset_delete,
)
from tests.broker.batches import new_batch
from tests.interop_kafka.cases import case
from tests.interop_kafka.cases_fetch import fetched
from tests.interop_kafka.cases_produce import produced
from tests.interop_kafka.peers import Peer, Seen, by_name

TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = range(4)


def altered(peer: Peer, *entries: tuple[str, int, str | None], topic: str, dry: bool = False) -> Seen:
    """Incremental changes of a topic's configs, all in one request."""
    configs = [incremental_alter_configs.AlterableConfig(*entry) for entry in entries]
    resource = incremental_alter_configs.AlterConfigsResource(TOPIC, topic, configs)
    return peer.see(incremental_alter_configs.IncrementalAlterConfigsRequest([resource], dry), 1)


PUBLISHED_S = 0.3
"""Kafka's controller answers before its broker has published the change, and nothing tells when it has."""


def configs_of(peer: Peer, topic: str, *names: str) -> Seen:
    """(value, source) of some of a topic's configs, some time after whatever changed them."""
    time.sleep(PUBLISHED_S)
    asked = describe_configs.DescribeConfigsResource(TOPIC, topic, list(names))
    seen = peer.see(describe_configs.DescribeConfigsRequest([asked]), 4)
    return {one["name"]: (one["value"], one["config_source"]) for one in seen["results"][0]["configs"]}


@case
def configs_are_appended_to_and_subtracted_from(peer: Peer) -> Seen:
    """KIP-339, one operation after another, and what the list is after each."""
    topic, name = "lists", "cleanup.policy"
    peer.make_topic(topic)
    seen: list[Seen] = []
    changes: list[list[tuple[str, int, str | None]]] = [
        [(name, APPEND, "compact")],
        [(name, APPEND, "compact")],
        [(name, APPEND, "delete,compact")],
        [(name, SUBTRACT, "delete")],
        [(name, SUBTRACT, "delete")],
        [(name, SUBTRACT, "compact")],
        [(name, SUBTRACT, "compact,delete")],
        [(name, DELETE, None)],
        [(name, APPEND, "shred")],
        [(name, APPEND, "")],
        [(name, SUBTRACT, "")],
        [(name, SET, "delete,")],
        [(name, SET, ",")],
        [(name, SET, " delete , compact ")],
        [(name, DELETE, None)],
        [(name, APPEND, None)],
        [(name, SUBTRACT, None)],
        [(name, DELETE, "ignored")],
        [("leader.replication.throttled.replicas", APPEND, "0:1")],
        [("leader.replication.throttled.replicas", APPEND, "1:1,2:1")],
        [("leader.replication.throttled.replicas", SUBTRACT, "1:1")],
        [("leader.replication.throttled.replicas", SET, "nonsense")],
        [("retention.ms", SUBTRACT, "5")],
        [("compression.type", APPEND, "gzip")],
        [("no.such.config", APPEND, "5")],
        [(name, SET, "compact"), (name, APPEND, "delete")],
        [(name, SET, "compact"), ("retention.ms", SET, "nonsense")],
        [(name, SET, "compact"), ("retention.ms", SET, "7000000")],
        [("", SET, "x")],
    ]
    for entries in changes:
        answer = altered(peer, *entries, topic=topic)
        values = configs_of(peer, topic, name, "retention.ms", "leader.replication.throttled.replicas")
        seen.append((entries, answer, values))
    return seen


@case
def configs_are_only_tried(peer: Peer) -> Seen:
    """validate_only: the same errors, no change."""
    peer.make_topic("tried")
    return (
        altered(peer, ("retention.ms", SET, "5"), topic="tried", dry=True),
        altered(peer, ("retention.ms", SET, "x"), topic="tried", dry=True),
        configs_of(peer, "tried", "retention.ms"),
    )


@case
def configs_are_replaced_by_the_older_request(peer: Peer) -> Seen:
    """AlterConfigs: what is not named goes back to its default."""
    peer.make_topic("older", retention_ms="5000000")
    resource, entry = alter_configs.AlterConfigsResource, alter_configs.AlterableConfig
    seen: list[Seen] = []
    for resources, dry in [
        ([resource(TOPIC, "older", [entry("max.message.bytes", "5000")])], True),
        ([resource(TOPIC, "older", [entry("max.message.bytes", "5000")])], False),
        ([resource(TOPIC, "older", [entry("max.message.bytes", "x")])], False),
        ([resource(TOPIC, "older", [entry("max.message.bytes", None)])], False),
        ([resource(TOPIC, "older", [entry("no.such", "1")])], False),
        ([resource(TOPIC, "nowhere", [entry("max.message.bytes", "5000")])], False),
        ([resource(TOPIC, "", [])], False),
        ([resource(TOPIC, "older", []), resource(TOPIC, "older", [])], False),
        ([resource(BROKER, "99", [])], False),
        ([resource(0, "older", [])], False),
        ([resource(TOPIC, "older", [])], False),
    ]:
        answer = peer.see(alter_configs.AlterConfigsRequest(resources, dry), 2)
        if not isinstance(answer, str):
            answer = [one["error_code"] for one in answer["responses"]]
        seen.append((answer, configs_of(peer, "older", "max.message.bytes", "retention.ms")))
    return seen


@case
def values_of_configs_out_of_range(peer: Peer) -> Seen:
    """Every topic config with values that are too small, too large or of another type: what is taken."""
    peer.make_topic("ranges")
    request = describe_configs.DescribeConfigsRequest([describe_configs.DescribeConfigsResource(TOPIC, "ranges", None)])
    every = peer.see(request, 4)["results"][0]["configs"]
    names = sorted(one["name"] for one in every if "streamlog" not in one["name"])
    values = ("-2", "-1", "0", "1", "2", "9", "1e3", "99999999999999999999", "", " 5 ", "true", "TRUE", "gzip", "x")
    return {
        (name, value): altered(peer, (name, SET, value), topic="ranges", dry=True)["responses"][0]["error_code"]
        for name in names
        for value in values
    }


@case
def records_of_odd_places_are_deleted(peer: Peer) -> Seen:
    """To the end, below the start, of compacted and internal topics, of what is not there; where the log begins."""
    peer.make_topic("records", 2)
    peer.make_topic("kept", cleanup_policy="compact")
    peer.make_topic("both", cleanup_policy="compact,delete")
    for topic in ("records", "kept", "both"):
        for _ in range(3):
            produced(peer, topic, new_batch(b"a", b"b", key=b"k"))
    peer.wait_for_coordinator("records")
    part = delete_records.DeleteRecordsPartition
    seen: list[Seen] = []
    for topic, partition in [
        ("records", part(0, 0)),
        ("records", part(0, 3)),
        ("records", part(0, 1)),
        ("records", part(0, 7)),
        ("records", part(0, -1)),
        ("records", part(0, -1)),
        ("records", part(0, -2)),
        ("records", part(1, -1)),
        ("records", part(2, 0)),
        ("records", part(-1, 0)),
        ("kept", part(0, 1)),
        ("both", part(0, 1)),
        ("nowhere", part(0, 0)),
        ("", part(0, 0)),
        ("__consumer_offsets", part(0, 0)),
    ]:
        topics = [delete_records.DeleteRecordsTopic(topic, [partition])]
        seen.append(peer.see(delete_records.DeleteRecordsRequest(topics, 10_000), 2))
        if topic == "records":
            first = list_offsets.ListOffsetsTopic("records", [list_offsets.ListOffsetsPartition(0, timestamp=-2)])
            seen.append(peer.see(list_offsets.ListOffsetsRequest(-1, topics=[first]), 9))
    at = [fetch.FetchPartition(0, fetch_offset=offset, partition_max_bytes=999) for offset in (0, 2, 3, 5, 6)]
    produced(peer, "records", new_batch(b"after"))
    return seen, [fetched(peer, one, "records") for one in at]


@case
def partitions_are_added_in_odd_ways(peer: Peer) -> Seen:
    """Only tried, twice in a request, too many, of an internal topic."""
    peer.make_topic("more")
    peer.wait_for_coordinator("more")
    topic, hand = create_partitions.CreatePartitionsTopic, create_partitions.CreatePartitionsAssignment
    seen: list[Seen] = []
    for topics, dry in [
        ([topic("more", 3, None)], True),
        ([topic("more", 0, None)], True),
        ([topic("more", 3, None), topic("more", 4, None)], False),
        ([topic("more", 2, []), topic("nowhere", 2, None)], False),
        ([topic("more", 2, [hand([])])], False),
        ([topic("more", 2, [hand([1, 1])])], False),
        ([topic("more", 2, [hand([-1])])], False),
        ([topic("more", 2, [hand([1, 2])])], False),
        ([topic("more", 20_000, None)], True),
        ([topic("more", 2**31 - 1, None)], True),
        ([topic("", 3, None)], False),
        ([topic("__consumer_offsets", 2, None)], False),
        ([topic("more", 4, None)], False),
        ([], False),
    ]:
        answer = peer.see(create_partitions.CreatePartitionsRequest(topics, 10_000, dry), 3)
        seen.append(by_name(answer["results"]))
    return seen, len(described(peer, ["more"])["topics"][0]["partitions"])


def described(peer: Peer, names: list[str], limit: int = 2000, cursor: tuple[str, int] | None = None) -> Seen:
    """A page of DescribeTopicPartitions, without what only a cluster of several brokers has."""
    topics = [describe_topic_partitions.TopicRequest(name) for name in names]
    start = None if cursor is None else describe_topic_partitions.Cursor(*cursor)
    return peer.see(describe_topic_partitions.DescribeTopicPartitionsRequest(topics, limit, start), 0)


@case
def pages_of_partitions(peer: Peer) -> Seen:
    """KIP-966: limits, cursors into, between and behind topics, names that are none."""
    for name, count in (("page-a", 3), ("page-b", 2), ("page-c", 4)):
        peer.make_topic(name, count)
    names = ["page-c", "page-a", "page-b"]
    return [
        described(peer, names),
        described(peer, names, 1),
        described(peer, names, 3),
        described(peer, names, 4),
        described(peer, names, 9),
        described(peer, names, 0),
        described(peer, names, -1),
        described(peer, names, 2, ("page-a", 1)),
        described(peer, names, 2, ("page-a", 2)),
        described(peer, names, 2, ("page-a", 3)),
        described(peer, names, 2, ("page-a", 99)),
        described(peer, names, 2, ("page-aa", 0)),
        described(peer, names, 2, ("page-aa", 1)),
        described(peer, names, 2, ("page-z", 0)),
        described(peer, names, 2, ("", 0)),
        described(peer, names, 2, ("page-a", -1)),
        described(peer, ["page-a", "page-a"]),
        described(peer, ["nowhere", "page-b"]),
        described(peer, ["nowhere", "page-b"], 1),
        described(peer, ["a b", "..", "x" * 250]),
    ]


@case
def page_of_a_topic_without_a_name(peer: Peer) -> Seen:
    """Among others."""
    peer.make_topic("page-named")
    return [one["error_code"] for one in by_name(described(peer, ["page-named", ""])["topics"])]


@case
def topics_of_the_cluster_itself(peer: Peer) -> Seen:
    """Internal topics cannot be made by hand, nor can what is hidden."""
    peer.wait_for_coordinator("internal")
    seen: list[Seen] = []
    for name in ("__consumer_offsets", "__cluster_metadata", "__transaction_state", "__share_group_state"):
        dry = create_topics.CreateTopicsRequest([create_topics.CreatableTopic(name, 1, 1)], 10_000, True)
        answer = peer.see(dry, 5)
        seen.append((name, [one["error_code"] for one in answer["topics"]]))
    # Kafka lets anybody delete __consumer_offsets, and with it every group; that is not tried here.
    gone = delete_topics.DeleteTopicsRequest(topic_names=["__cluster_metadata"], timeout_ms=5000)
    return seen, peer.see(gone, 5)


@case
def topics_are_deleted_in_odd_ways(peer: Peer) -> Seen:
    """By id, by name and id at once, twice, by the older request; the name is free at once afterwards."""
    first, second = peer.make_topic("gone-by-id"), peer.make_topic("gone-by-name")
    state = delete_topics.DeleteTopicState
    older = delete_topics.DeleteTopicsRequest(topic_names=["nowhere", "", "nowhere"], timeout_ms=10_000)
    answers = [
        peer.see(delete_topics.DeleteTopicsRequest(topics=states, timeout_ms=10_000), 6)
        for states in (
            [state("gone-by-id", first)],
            [state(None, first), state("gone-by-id")],
            [state(None, second), state(None, second)],
            [state(None, first)],
            [state(None, first)],
            [state("gone-by-name"), state("nowhere")],
            [state(None, UUID(int=0))],
            [],
        )
    ]
    return [by_name(answer["responses"]) for answer in (*answers, peer.see(older, 5))]


@case
def a_topic_that_is_made_again_is_another(peer: Peer) -> Seen:
    """Its log is empty and its id is new; the old id is unknown."""
    first = peer.make_topic("again")
    produced(peer, "again", new_batch(b"a"))
    peer.see(delete_topics.DeleteTopicsRequest(topics=[delete_topics.DeleteTopicState("again")], timeout_ms=9999), 6)
    peer.wait_until_gone("again")
    second = peer.make_topic("again")
    part = fetch.FetchPartition(0, partition_max_bytes=999)
    return first != second, [
        peer.see(fetch.FetchRequest(topics=[fetch.FetchTopic(topic_id=one, partitions=[part])]), 17)
        for one in (first, second)
    ]


@case
def groups_that_cannot_be_listed_described_or_deleted(peer: Peer) -> Seen:
    """Filters of nonsense, names of nothing, one group twice."""
    peer.wait_for_coordinator("admin")
    topics = [offset_delete.OffsetDeleteRequestTopic("t", [offset_delete.OffsetDeleteRequestPartition(0)])]
    return [
        peer.see(list_groups.ListGroupsRequest(["nonsense"], []), 5),
        peer.see(list_groups.ListGroupsRequest([], ["nonsense"]), 5),
        peer.see(list_groups.ListGroupsRequest(["Dead"], ["classic"]), 5),
        peer.see(list_groups.ListGroupsRequest(["dEaD"], ["CLASSIC"]), 5),
        peer.see(delete_groups.DeleteGroupsRequest(["nobody", "nobody"]), 2),
        peer.see(delete_groups.DeleteGroupsRequest([]), 2),
        peer.see(describe_groups.DescribeGroupsRequest(["nobody", "nobody"]), 6),
        peer.see(describe_groups.DescribeGroupsRequest(["nobody"], True), 5),
        peer.see(describe_groups.DescribeGroupsRequest([]), 5),
        peer.see(offset_delete.OffsetDeleteRequest("", topics), 0),
        peer.see(offset_delete.OffsetDeleteRequest("nobody", topics), 0),
    ]


@case
def descriptions_of_the_cluster(peer: Peer) -> Seen:
    """Endpoints of brokers, controllers and nothing."""
    request = describe_cluster.DescribeClusterRequest
    return [
        peer.see(request(), 0),
        peer.see(request(True), 0),
        peer.see(request(True, 1), 1),
        peer.see(request(False, 2), 1)["error_code"],
        peer.see(request(False, 0), 1)["error_code"],
        peer.see(request(False, 9), 1)["error_code"],
        peer.see(request(False, 1, True), 2),
    ]


@case
def configs_of_nothing_are_described(peer: Peer) -> Seen:
    """No keys, keys that are not there, resources of other kinds, one twice."""
    peer.make_topic("keys")
    asked = describe_configs.DescribeConfigsResource
    return [
        peer.see(describe_configs.DescribeConfigsRequest(resources), 4)
        for resources in (
            [asked(TOPIC, "keys", ["retention.ms", "no.such"])],
            [asked(TOPIC, "keys", ["retention.ms", "retention.ms"])],
            [asked(TOPIC, "keys", ["retention.ms"]), asked(TOPIC, "keys", ["retention.ms"])],
            [asked(TOPIC, "a b", None)],
            [asked(TOPIC, "nowhere", []), asked(TOPIC, "..", [])],
            [asked(BROKER, "no-number", None)],
            [asked(BROKER, "-1", None)],
            [asked(1, "x", None)],
            [asked(77, "x", None)],
        )
    ]
