"""One small conversation in every version of every API that consumers and producers use."""

from __future__ import annotations

from streamlog.wire.apis import API_TABLE
from streamlog.wire.message import Request
from streamlog.wire.messages import (
    create_topics,
    delete_groups,
    delete_topics,
    describe_configs,
    describe_groups,
    fetch,
    find_coordinator,
    list_groups,
    metadata,
    offset_commit,
    offset_fetch,
    produce,
)
from tests.broker.batches import new_batch, produce_request
from tests.interop_kafka.cases import case
from tests.interop_kafka.peers import Peer, Seen, by_name


def versions_of(request: type[Request]) -> range:
    """Those that are stable."""
    api = API_TABLE[request.api_key]
    return range(api.min_version, api.stable_max_version + 1)


@case
def produce_and_fetch_in_every_version(peer: Peer) -> Seen:
    """By name and by id; old fetches see what new producers wrote and the other way round."""
    topic_id = peer.make_topic("versions")
    seen: list[Seen] = []
    for version in versions_of(produce.ProduceRequest):
        request = produce_request("versions", new_batch(b"v%d" % version))
        request.topic_data[0].topic_id = topic_id
        seen.append((version, peer.see(request, version)))
    for version in versions_of(fetch.FetchRequest):
        part = fetch.FetchPartition(0, fetch_offset=1, partition_max_bytes=5000)
        topic = fetch.FetchTopic("versions", topic_id, [part])
        seen.append((version, peer.see(fetch.FetchRequest(topics=[topic]), version)))
    return seen


@case
def metadata_in_every_version(peer: Peer) -> Seen:
    """With the operations that are allowed, where they can be asked for."""
    peer.make_topic("metadata-versions", 2)
    seen: list[Seen] = []
    for version in versions_of(metadata.MetadataRequest):
        for operations in (False, True) if version >= 8 else (False,):
            request = metadata.MetadataRequest(
                [metadata.MetadataRequestTopic(name="metadata-versions")],
                include_cluster_authorized_operations=operations and version <= 10,
                include_topic_authorized_operations=operations,
            )
            answer = peer.see(request, version)
            seen.append((version, operations, answer))
    return seen


@case
def committed_offsets_in_every_version(peer: Peer) -> Seen:
    """Each version commits, and each reads what the last one committed; leader epochs from 6 and 5 on, ids from 10."""
    topic_id = peer.make_topic("commit-versions")
    peer.wait_for_coordinator("commit-versions")
    read = offset_fetch.OffsetFetchRequestGroup(
        "commit-versions",
        topics=[offset_fetch.OffsetFetchRequestTopics("commit-versions", topic_id, [0, 1])],
    )
    seen: list[Seen] = []
    for version in versions_of(offset_commit.OffsetCommitRequest):
        part = offset_commit.OffsetCommitRequestPartition(0, 100 + version, 0, f"m{version}")
        topic = offset_commit.OffsetCommitRequestTopic("commit-versions", topic_id, [part])
        seen.append(peer.see(offset_commit.OffsetCommitRequest("commit-versions", topics=[topic]), version))
        seen.append(peer.see(offset_fetch.OffsetFetchRequest(groups=[read]), 9))
    for version in versions_of(offset_fetch.OffsetFetchRequest):
        if version < 8:
            topics = [offset_fetch.OffsetFetchRequestTopic("commit-versions", [0, 1])]
            request = offset_fetch.OffsetFetchRequest("commit-versions", topics)
        else:
            request = offset_fetch.OffsetFetchRequest(groups=[read])
        seen.append((version, peer.see(request, version)))
        everything = offset_fetch.OffsetFetchRequest("commit-versions", None)
        if version >= 8:
            everything = offset_fetch.OffsetFetchRequest(
                groups=[offset_fetch.OffsetFetchRequestGroup("commit-versions", topics=None)]
            )
        if version >= 2:
            seen.append((version, peer.see(everything, version)))
    return seen


@case
def offsets_of_topics_by_id_that_are_not(peer: Peer) -> Seen:
    """Version 10 names topics by id: one that is not, one that is zero."""
    peer.wait_for_coordinator("commit-by-id")
    seen: list[Seen] = []
    for topic_id in (metadata.MetadataRequestTopic().topic_id, type(metadata.MetadataRequestTopic().topic_id)(int=9)):
        part = offset_commit.OffsetCommitRequestPartition(0, 5)
        topics = [offset_commit.OffsetCommitRequestTopic("", topic_id, [part])]
        seen.append(peer.see(offset_commit.OffsetCommitRequest("commit-by-id", topics=topics), 10))
        asked = [offset_fetch.OffsetFetchRequestTopics("", topic_id, [0])]
        group = offset_fetch.OffsetFetchRequestGroup("commit-by-id", topics=asked)
        seen.append(peer.see(offset_fetch.OffsetFetchRequest(groups=[group]), 10))
    return seen


@case
def coordinators_in_every_version(peer: Peer) -> Seen:
    """One key in the older versions, several from 4 on; kinds that are none."""
    peer.wait_for_coordinator("find")
    seen: list[Seen] = []
    for version in versions_of(find_coordinator.FindCoordinatorRequest):
        keys = find_coordinator.FindCoordinatorRequest(coordinator_keys=["find", "find", ""])
        if version < 4:
            keys = find_coordinator.FindCoordinatorRequest("find")
        seen.append((version, peer.see(keys, version)))
    for kind in (3, -1):
        seen.append((kind, peer.see(find_coordinator.FindCoordinatorRequest("find", kind), 3)))
        several = find_coordinator.FindCoordinatorRequest(key_type=kind, coordinator_keys=["find"])
        seen.append((kind, peer.see(several, 4)))
    return seen


@case
def groups_in_every_version(peer: Peer) -> Seen:
    """Listed, described and deleted; only this case's groups are looked at."""
    peer.make_topic("group-versions")
    peer.wait_for_coordinator("group-versions")
    part = offset_commit.OffsetCommitRequestPartition(0, 5)
    topics = [offset_commit.OffsetCommitRequestTopic("group-versions", partitions=[part])]
    seen: list[Seen] = []
    for version in versions_of(delete_groups.DeleteGroupsRequest):
        group = f"group-versions-{version}"
        seen.append(peer.see(offset_commit.OffsetCommitRequest(group, topics=topics), 8))
        for number in versions_of(list_groups.ListGroupsRequest):
            listed = peer.see(list_groups.ListGroupsRequest(), number)
            seen.append((number, [one for one in listed["groups"] if one["group_id"] == group]))
        for number in versions_of(describe_groups.DescribeGroupsRequest):
            seen.append((number, peer.see(describe_groups.DescribeGroupsRequest([group], number >= 3), number)))
        seen.append(peer.see(delete_groups.DeleteGroupsRequest([group]), version))
    return seen


@case
def topics_in_every_version(peer: Peer) -> Seen:
    """Created and deleted; what a creation says about configs (KIP-525) and ids."""
    seen: list[Seen] = []
    for version in versions_of(create_topics.CreateTopicsRequest):
        topic = create_topics.CreatableTopic(
            f"topic-versions-{version}", 2, 1, [], [create_topics.CreatableTopicConfig("retention.ms", "7654321")]
        )
        answer = peer.see(create_topics.CreateTopicsRequest([topic], 20_000), version)
        for one in answer["topics"]:
            found = {config["name"]: config for config in one.pop("configs") or []}
            one["retention"] = found.get("retention.ms")
        seen.append((version, answer))
    for version in versions_of(delete_topics.DeleteTopicsRequest):
        name = f"topic-versions-{version + 1}"
        if version < 6:
            request = delete_topics.DeleteTopicsRequest(topic_names=[name, "nowhere"], timeout_ms=10_000)
        else:
            state = delete_topics.DeleteTopicState
            request = delete_topics.DeleteTopicsRequest(topics=[state(name), state("nowhere")], timeout_ms=10_000)
        seen.append((version, by_name(peer.see(request, version)["responses"])))
    return seen


@case
def configs_in_every_version(peer: Peer) -> Seen:
    """Sources, synonyms, types and documentation where a version has them."""
    peer.make_topic("config-versions", retention_ms="1234567")
    asked = describe_configs.DescribeConfigsResource(2, "config-versions", ["retention.ms", "cleanup.policy"])
    seen: list[Seen] = []
    for version in versions_of(describe_configs.DescribeConfigsRequest):
        answer = peer.see(describe_configs.DescribeConfigsRequest([asked]), version)
        for one in answer["results"][0]["configs"]:
            del one["documentation"]
        seen.append((version, answer))
    return seen
