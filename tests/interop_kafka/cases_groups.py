"""Classic consumer groups and their offsets; producer ids."""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.messages import (
    delete_groups,
    describe_groups,
    find_coordinator,
    heartbeat,
    init_producer_id,
    join_group,
    leave_group,
    offset_commit,
    offset_delete,
    offset_fetch,
    sync_group,
)
from tests.interop_kafka.cases import case
from tests.interop_kafka.peers import Peer, Seen, comparable


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
    peer.wait_for_coordinator("g")
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
    peer.wait_for_coordinator("simple")
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
    peer.wait_for_coordinator("life")
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
    peer.wait_for_producer_ids()
    for one in (request(None, 1000), request(None, 1000, 5, -1), request(None, 1000, 999_999, 3), request(None, -1)):
        seen.append(comparable(peer.ask(one, 4, init_producer_id.InitProducerIdResponse)))
    return seen
