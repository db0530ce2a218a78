"""Every group API in every version it is served in, over a socket to a broker in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio

from streamlog.broker.config import load_config
from streamlog.broker.node import Node, start_node
from streamlog.env import real_env
from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.frames import decode_response, encode_request
from streamlog.wire.message import Request, Response
from streamlog.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest, CreateTopicsResponse
from streamlog.wire.messages.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from streamlog.wire.messages.describe_groups import DescribeGroupsRequest, DescribeGroupsResponse
from streamlog.wire.messages.find_coordinator import Coordinator, FindCoordinatorRequest, FindCoordinatorResponse
from streamlog.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from streamlog.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from streamlog.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse, MemberIdentity
from streamlog.wire.messages.list_groups import ListGroupsRequest, ListGroupsResponse
from streamlog.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from streamlog.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
)
from streamlog.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
)
from streamlog.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse
from streamlog.wire.schema import ZERO_UUID

R = TypeVar("R", bound=Response)

TOPIC = "orders"
GROUP = "g"
UNKNOWN = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def versions(key: ApiKey) -> range:
    return range(API_TABLE[key].min_version, API_TABLE[key].stable_max_version + 1)


class Peer:
    """One connection that asks in any version."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._asked = 0

    async def ask(self, request: Request, kind: type[R], version: int) -> R:
        self._asked += 1
        self._writer.write(encode_request(request, version, self._asked, "tester"))
        size = int.from_bytes(await self._reader.readexactly(4), "big")
        correlation_id, response = decode_response(kind, version, await self._reader.readexactly(size))
        assert correlation_id == self._asked
        return response

    def close(self) -> None:
        self._writer.close()


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    settings = {
        "listeners": "PLAINTEXT://127.0.0.1:0",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.num.partitions": "2",
    }
    config, _ = load_config(settings)
    running = await start_node(real_env(), config, str(tmp_path / "data"))
    yield running
    await running.close()


@pytest_asyncio.fixture
async def peer(node: Node) -> AsyncIterator[Peer]:
    """With the topic there, and its coordinator found."""
    one = Peer(*await asyncio.open_connection("127.0.0.1", node.listening[0].port))
    topic = CreatableTopic(name=TOPIC, num_partitions=2, replication_factor=1)
    created = await one.ask(CreateTopicsRequest(topics=[topic], timeout_ms=5000), CreateTopicsResponse, 7)
    assert created.topics[0].error_code == ErrorCode.NONE
    await find(one, 4, GROUP)
    yield one
    one.close()


async def find(peer: Peer, version: int, key: str, key_type: int = 0) -> Coordinator:
    if version >= 4:
        batch = FindCoordinatorRequest(key_type=key_type, coordinator_keys=[key])
        (found,) = (await peer.ask(batch, FindCoordinatorResponse, version)).coordinators
        assert found.key == key
        return found
    one = FindCoordinatorRequest(key=key, key_type=key_type)
    response = await peer.ask(one, FindCoordinatorResponse, version)
    return Coordinator(
        node_id=response.node_id,
        host=response.host,
        port=response.port,
        error_code=response.error_code,
        error_message=response.error_message,
    )


def topic_id(node: Node) -> object:
    return node.broker.image.topics[TOPIC].id


@pytest.mark.parametrize("version", versions(ApiKey.FIND_COORDINATOR))
async def test_find_coordinator(node: Node, version: int) -> None:
    """The first to ask has the topic created; other kinds of coordinators are not there."""
    peer = Peer(*await asyncio.open_connection("127.0.0.1", node.listening[0].port))
    found = await find(peer, version, GROUP)
    assert found.error_code == ErrorCode.NONE
    assert (found.node_id, found.host, found.port) == (1, "127.0.0.1", node.listening[0].port)
    assert len(node.broker.image.topics["__consumer_offsets"].partitions) == 2
    if version >= 1:
        refused = await find(peer, version, "t", key_type=1)
        assert refused.error_code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        assert refused.error_message is not None
        assert "transaction" in refused.error_message
        refused = await find(peer, version, "t", key_type=2)
        assert refused.error_code == ErrorCode.INVALID_REQUEST
    peer.close()


async def test_the_first_group_does_not_wait_for_all_offsets_partitions(tmp_path: Path) -> None:
    """Its own is created and loaded before FindCoordinator answers, the others in turns; they are there when asked."""
    config, _ = load_config({"listeners": "PLAINTEXT://127.0.0.1:0", "group.initial.rebalance.delay.ms": "0"})
    node = await start_node(real_env(), config, str(tmp_path / "data"))
    peer = Peer(*await asyncio.open_connection("127.0.0.1", node.listening[0].port))
    partitions = node.broker.partitions
    creating = asyncio.create_task(find(peer, 4, GROUP))
    while not partitions.opened("__consumer_offsets"):
        await asyncio.sleep(0)
    assert len(partitions.opened("__consumer_offsets")) < 50
    assert (await creating).error_code == ErrorCode.NONE
    await join(peer, 9)
    for number in range(200):  # in all of them, created by now or not
        request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=f"other-{number}")])
        response = await peer.ask(request, OffsetFetchResponse, 8)
        assert response.groups[0].error_code in (ErrorCode.NONE, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
    peer.close()
    await node.close()


async def join(peer: Peer, version: int) -> JoinGroupResponse:
    protocol = JoinGroupRequestProtocol(name="range", metadata=b"m")
    request = JoinGroupRequest(
        group_id=GROUP, session_timeout_ms=6000, protocol_type="consumer", protocols=[protocol], member_id=""
    )
    if version >= 1:
        request.rebalance_timeout_ms = 6000
    response = await peer.ask(request, JoinGroupResponse, version)
    if response.error_code == ErrorCode.MEMBER_ID_REQUIRED:
        request.member_id = response.member_id
        response = await peer.ask(request, JoinGroupResponse, version)
    assert response.error_code == ErrorCode.NONE
    assert response.leader == response.member_id
    assert response.members[0].metadata == b"m"
    assert response.protocol_name == "range"
    return response


@pytest.mark.parametrize("version", versions(ApiKey.JOIN_GROUP))
async def test_a_member_in_every_version(peer: Peer, version: int) -> None:
    """JoinGroup, SyncGroup, Heartbeat and LeaveGroup, each at the same step of its versions."""
    joined = await join(peer, version)
    sync = SyncGroupRequest(
        group_id=GROUP,
        generation_id=joined.generation_id,
        member_id=joined.member_id,
        assignments=[SyncGroupRequestAssignment(member_id=joined.member_id, assignment=b"a")],
    )
    at = min(version, max(versions(ApiKey.SYNC_GROUP)))
    if at >= 5:
        sync.protocol_type, sync.protocol_name = "consumer", "range"
    synced = await peer.ask(sync, SyncGroupResponse, at)
    assert (synced.error_code, synced.assignment) == (ErrorCode.NONE, b"a")
    beat = HeartbeatRequest(group_id=GROUP, generation_id=joined.generation_id, member_id=joined.member_id)
    at = min(version, max(versions(ApiKey.HEARTBEAT)))
    assert (await peer.ask(beat, HeartbeatResponse, at)).error_code == ErrorCode.NONE
    leave = LeaveGroupRequest(group_id=GROUP)
    at = min(version, max(versions(ApiKey.LEAVE_GROUP)))
    if at >= 3:
        leave.members = [MemberIdentity(member_id=joined.member_id)]
    else:
        leave.member_id = joined.member_id
    left = await peer.ask(leave, LeaveGroupResponse, at)
    assert left.error_code == ErrorCode.NONE
    assert [member.error_code for member in left.members] == ([ErrorCode.NONE] if at >= 3 else [])
    assert (await peer.ask(beat, HeartbeatResponse, 4)).error_code == ErrorCode.UNKNOWN_MEMBER_ID


@pytest.mark.parametrize("was_parked", [False, True])
async def test_a_newcomer_whose_connection_ends_is_not_waited_for(node: Node, peer: Peer, was_parked: bool) -> None:
    """With its id alone, or with its first JoinGroup under way: the others go on, long before its session ends."""
    session_ms = 60_000
    request = JoinGroupRequest(
        group_id=GROUP,
        session_timeout_ms=session_ms,
        rebalance_timeout_ms=session_ms,
        protocol_type="consumer",
        protocols=[JoinGroupRequestProtocol(name="range", metadata=b"m")],
    )
    joined = await join(peer, 9)
    ghost = Peer(*await asyncio.open_connection("127.0.0.1", node.listening[0].port))
    given = await ghost.ask(request, JoinGroupResponse, 9)
    assert given.error_code == ErrorCode.MEMBER_ID_REQUIRED
    waiting: asyncio.Task[JoinGroupResponse] | None = None
    if was_parked:
        request.member_id = given.member_id
        waiting = asyncio.create_task(ghost.ask(request, JoinGroupResponse, 9))
        members = 0
        while members < 2:
            described = await peer.ask(DescribeGroupsRequest(groups=[GROUP]), DescribeGroupsResponse, 5)
            members = len(described.groups[0].members)
    ghost.close()
    if waiting is not None:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await waiting
    request.member_id = joined.member_id
    request.protocols = [JoinGroupRequestProtocol(name="range", metadata=b"n")]  # so that a new generation is needed
    async with asyncio.timeout(10):
        again = await peer.ask(request, JoinGroupResponse, 9)
    assert again.error_code == ErrorCode.NONE
    assert again.generation_id == joined.generation_id + 1
    assert [member.member_id for member in again.members] == [joined.member_id]


@pytest.mark.parametrize("version", versions(ApiKey.JOIN_GROUP))
async def test_an_empty_group_id_is_no_group(peer: Peer, version: int) -> None:
    """INVALID_GROUP_ID from all that need one."""
    code = ErrorCode.INVALID_GROUP_ID
    assert (await peer.ask(JoinGroupRequest(), JoinGroupResponse, version)).error_code == code
    assert (await peer.ask(SyncGroupRequest(), SyncGroupResponse, min(version, 5))).error_code == code
    assert (await peer.ask(HeartbeatRequest(), HeartbeatResponse, min(version, 4))).error_code == code
    assert (await peer.ask(LeaveGroupRequest(), LeaveGroupResponse, min(version, 5))).error_code == code
    assert (await peer.ask(OffsetDeleteRequest(), OffsetDeleteResponse, 0)).error_code == code


async def commit(peer: Peer, node: Node, version: int, offset: int = 42) -> None:
    """Partition 1 exists, 7 does not; neither does another topic."""

    def topic(name: str, *partitions: int) -> OffsetCommitRequestTopic:
        listed = [
            OffsetCommitRequestPartition(partition_index=index, committed_offset=offset, committed_metadata="m")
            for index in partitions
        ]
        found = node.broker.image.topics.get(name)
        return OffsetCommitRequestTopic(name=name, topic_id=found.id if found else ZERO_UUID, partitions=listed)

    request = OffsetCommitRequest(group_id=GROUP, topics=[topic("nowhere", 0), topic(TOPIC, 7, 1)])
    response = await peer.ask(request, OffsetCommitResponse, version)
    codes = [[partition.error_code for partition in topic.partitions] for topic in response.topics]
    unknown = ErrorCode.UNKNOWN_TOPIC_ID if version >= 10 else UNKNOWN
    assert codes == [[unknown], [UNKNOWN, ErrorCode.NONE]]
    if version >= 10:
        assert response.topics[1].topic_id == topic_id(node)
    else:
        assert [topic.name for topic in response.topics] == ["nowhere", TOPIC]


async def fetch(peer: Peer, node: Node, version: int, partitions: list[int] | None) -> dict[int, int]:
    """Of the topic, or of all topics."""
    if version < 8:
        old = None if partitions is None else [OffsetFetchRequestTopic(name=TOPIC, partition_indexes=partitions)]
        one = OffsetFetchRequest(group_id=GROUP, topics=old)
        response = await peer.ask(one, OffsetFetchResponse, version)
        assert response.error_code == ErrorCode.NONE
        return {p.partition_index: p.committed_offset for topic in response.topics for p in topic.partitions}
    found = node.broker.image.topics[TOPIC]
    asked = [OffsetFetchRequestTopics(name=TOPIC, topic_id=found.id, partition_indexes=partitions or [])]
    group = OffsetFetchRequestGroup(group_id=GROUP, topics=None if partitions is None else asked)
    (answered,) = (await peer.ask(OffsetFetchRequest(groups=[group]), OffsetFetchResponse, version)).groups
    assert answered.error_code == ErrorCode.NONE
    if version >= 10:
        assert [topic.topic_id for topic in answered.topics] == [found.id]
    else:
        assert [topic.name for topic in answered.topics] == [TOPIC]
    return {p.partition_index: p.committed_offset for topic in answered.topics for p in topic.partitions}


@pytest.mark.parametrize("version", versions(ApiKey.OFFSET_COMMIT))
async def test_offsets_in_every_version(peer: Peer, node: Node, version: int) -> None:
    """Committed in one version, fetched in all."""
    await commit(peer, node, version)
    for at in versions(ApiKey.OFFSET_FETCH):
        assert await fetch(peer, node, at, [0, 1]) == {0: -1, 1: 42}
        if at >= 2:
            assert await fetch(peer, node, at, None) == {1: 42}


async def test_several_groups_are_fetched_at_once(peer: Peer, node: Node) -> None:
    """KIP-709; and a topic id that nobody knows is that topic's problem only."""
    await commit(peer, node, 9)
    asked = [
        OffsetFetchRequestTopics(topic_id=node.broker.image.topics[TOPIC].id, partition_indexes=[1]),
        OffsetFetchRequestTopics(topic_id=real_env().entropy.uuid4(), partition_indexes=[0]),
    ]
    groups = [OffsetFetchRequestGroup(group_id=name, topics=asked) for name in (GROUP, "another")]
    response = await peer.ask(OffsetFetchRequest(groups=groups), OffsetFetchResponse, 10)
    assert [group.group_id for group in response.groups] == [GROUP, "another"]
    first, second = (
        [(p.committed_offset, p.error_code) for topic in group.topics for p in topic.partitions]
        for group in response.groups
    )
    assert first == [(42, ErrorCode.NONE), (-1, ErrorCode.UNKNOWN_TOPIC_ID)]
    assert second == [(-1, ErrorCode.NONE), (-1, ErrorCode.UNKNOWN_TOPIC_ID)]


async def test_describe_list_and_delete_in_every_version(peer: Peer, node: Node) -> None:
    """Of a group that has nothing but positions."""
    for version in versions(ApiKey.DELETE_GROUPS):
        await commit(peer, node, 9)
        for at in versions(ApiKey.DESCRIBE_GROUPS):
            ask = DescribeGroupsRequest(groups=[GROUP, "nobody", ""], include_authorized_operations=at >= 3)
            response = await peer.ask(ask, DescribeGroupsResponse, at)
            assert [group.group_state for group in response.groups] == ["Empty", "Dead", "Dead"]
            last = ErrorCode.GROUP_ID_NOT_FOUND if at >= 6 else ErrorCode.NONE
            codes = [ErrorCode.NONE, last, last]
            assert [group.error_code for group in response.groups] == codes
        for at in versions(ApiKey.LIST_GROUPS):
            states = ["EMPTY"] if at >= 4 else []
            listed = await peer.ask(ListGroupsRequest(states_filter=states), ListGroupsResponse, at)
            assert [group.group_id for group in listed.groups] == [GROUP]
        listed = await peer.ask(ListGroupsRequest(types_filter=["consumer"]), ListGroupsResponse, 5)
        assert listed.groups == []
        names = DeleteGroupsRequest(groups_names=[GROUP, "nobody", GROUP])
        deleted = await peer.ask(names, DeleteGroupsResponse, version)
        assert [(one.group_id, one.error_code) for one in deleted.results] == [
            (GROUP, ErrorCode.NONE),
            ("nobody", ErrorCode.GROUP_ID_NOT_FOUND),
        ]
        assert await fetch(peer, node, 9, [1]) == {1: -1}


async def test_offset_delete(peer: Peer, node: Node) -> None:
    """What does not exist is said so, one by one."""
    await commit(peer, node, 9)
    topics = [
        OffsetDeleteRequestTopic(
            name=name, partitions=[OffsetDeleteRequestPartition(partition_index=i) for i in indexes]
        )
        for name, indexes in (("nowhere", [0]), (TOPIC, [1, 7]))
    ]
    response = await peer.ask(OffsetDeleteRequest(group_id=GROUP, topics=topics), OffsetDeleteResponse, 0)
    codes = [[partition.error_code for partition in topic.partitions] for topic in response.topics]
    assert codes == [[UNKNOWN], [ErrorCode.NONE, UNKNOWN]]
    assert await fetch(peer, node, 9, [1]) == {1: -1}


async def test_without_the_topic_nobody_coordinates(node: Node) -> None:
    """A client that skips FindCoordinator is sent to it."""
    peer = Peer(*await asyncio.open_connection("127.0.0.1", node.listening[0].port))
    beat = HeartbeatRequest(group_id=GROUP, generation_id=1, member_id="m")
    assert (await peer.ask(beat, HeartbeatResponse, 4)).error_code == ErrorCode.NOT_COORDINATOR
    group = OffsetFetchRequestGroup(group_id=GROUP, topics=None)
    response = await peer.ask(OffsetFetchRequest(groups=[group]), OffsetFetchResponse, 9)
    assert response.groups[0].error_code == ErrorCode.NOT_COORDINATOR
    topic = OffsetFetchRequestTopic(name=TOPIC, partition_indexes=[0])
    old = await peer.ask(OffsetFetchRequest(group_id=GROUP, topics=[topic]), OffsetFetchResponse, 1)
    assert old.topics[0].partitions[0].error_code == ErrorCode.NOT_COORDINATOR
    assert (await peer.ask(ListGroupsRequest(), ListGroupsResponse, 5)).groups == []
    peer.close()


async def test_a_client_that_goes_away_while_parked_harms_nobody(peer: Peer, node: Node) -> None:
    """Its JoinGroup is forgotten, and the group goes on with the others."""
    joined = await join(peer, 9)
    gone = Peer(*await asyncio.open_connection("127.0.0.1", node.listening[0].port))
    protocol = JoinGroupRequestProtocol(name="range", metadata=b"m")
    request = JoinGroupRequest(
        group_id=GROUP,
        session_timeout_ms=6000,
        rebalance_timeout_ms=100,
        protocol_type="consumer",
        protocols=[protocol],
        group_instance_id="gone",
    )
    waiting = asyncio.get_running_loop().create_task(gone.ask(request, JoinGroupResponse, 9))
    await asyncio.sleep(0.05)
    gone.close()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await waiting
    again = request
    again.group_instance_id, again.member_id = None, joined.member_id
    rejoined = await peer.ask(again, JoinGroupResponse, 9)
    assert rejoined.error_code == ErrorCode.NONE
    assert rejoined.generation_id == joined.generation_id + 1
    assert len(rejoined.members) == 2
