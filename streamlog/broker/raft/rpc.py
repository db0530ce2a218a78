"""Kafka's requests and responses to the quorum's values and back.

One partition, `__cluster_metadata-0`, is all these ever speak about; what speaks about another is refused. Whoever
belongs to another cluster is, too. Versions without endpoints (before KIP-853) are read and answered: the addresses are
then those of the voters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar
from uuid import UUID

from streamlog.broker.raft import messages as raft
from streamlog.broker.raft.messages import Answer, Endpoint, Endpoints, Position, ReplicaKey, VersionRange
from streamlog.errors import RemoteProtocolError
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.message import Request, Response
from streamlog.wire.messages import add_raft_voter as add
from streamlog.wire.messages import api_versions as versions
from streamlog.wire.messages import begin_quorum_epoch as begin
from streamlog.wire.messages import begin_quorum_epoch_response as begin_response
from streamlog.wire.messages import end_quorum_epoch as end
from streamlog.wire.messages import end_quorum_epoch_response as end_response
from streamlog.wire.messages import fetch, vote, vote_response
from streamlog.wire.messages import fetch_snapshot as snapshot
from streamlog.wire.messages import fetch_snapshot_response as snapshot_response
from streamlog.wire.messages import remove_raft_voter as remove
from streamlog.wire.messages import update_raft_voter as update
from streamlog.wire.schema import ZERO_UUID
from streamlog.wire.uuids import METADATA_TOPIC_ID

TOPIC: Final = "__cluster_metadata"
PARTITION: Final = 0
NOBODY: Final = -1
KRAFT_VERSION: Final = "kraft.version"


class OtherCluster(Exception):
    """The request is of another cluster."""


T = TypeVar("T")


class _Topics(Protocol[T]):
    @property
    def partitions(self) -> list[T]: ...


def _only(topics: Sequence[_Topics[T]]) -> T:
    """The one partition that a message is about."""
    if len(topics) != 1 or len(topics[0].partitions) != 1:
        raise RemoteProtocolError("a message of the quorum is about one partition")
    return topics[0].partitions[0]


def _check(name: str | None, partition: int) -> None:
    if name not in (TOPIC, None) or partition != PARTITION:
        raise RemoteProtocolError(f"{name}-{partition} is not the quorum's partition")


def _key(node_id: int, directory_id: UUID = ZERO_UUID) -> ReplicaKey:
    return ReplicaKey(node_id, directory_id)


class _Listener(Protocol):
    name: str
    host: str
    port: int


def _endpoints(found: Sequence[_Listener]) -> Endpoints:
    return tuple(Endpoint(at.name, at.host, at.port) for at in found)


# -- requests that come in ------------------------------------------------------------------------------------


def decode_request(request: Request, cluster_id: str) -> raft.Request:
    """What is asked. Raises OtherCluster, or RemoteProtocolError when it is not about the metadata log."""
    asked_cluster = getattr(request, "cluster_id", None)
    if asked_cluster not in (None, "", cluster_id):
        raise OtherCluster
    match request:
        case vote.VoteRequest():
            asked = _only(request.topics)
            _check(request.topics[0].topic_name, asked.partition_index)
            voter = None if request.voter_id < 0 else _key(request.voter_id, asked.voter_directory_id)
            return raft.VoteRequest(
                voter,
                asked.replica_epoch,
                _key(asked.replica_id, asked.replica_directory_id),
                Position(asked.last_offset_epoch, asked.last_offset),
                asked.pre_vote,
            )
        case begin.BeginQuorumEpochRequest():
            begun = _only(request.topics)
            _check(request.topics[0].topic_name, begun.partition_index)
            voter = None if request.voter_id < 0 else _key(request.voter_id, begun.voter_directory_id)
            return raft.BeginQuorumEpochRequest(
                voter, begun.leader_epoch, begun.leader_id, _endpoints(request.leader_endpoints)
            )
        case end.EndQuorumEpochRequest():
            ended = _only(request.topics)
            _check(request.topics[0].topic_name, ended.partition_index)
            candidates = [_key(key.candidate_id, key.candidate_directory_id) for key in ended.preferred_candidates]
            return raft.EndQuorumEpochRequest(
                ended.leader_epoch,
                ended.leader_id,
                tuple(candidates or map(_key, ended.preferred_successors)),
                _endpoints(request.leader_endpoints),
            )
        case fetch.FetchRequest():
            return _decode_fetch(request)
        case snapshot.FetchSnapshotRequest():
            wanted = _only(request.topics)
            _check(request.topics[0].name, wanted.partition)
            return raft.FetchSnapshotRequest(
                _key(request.replica_id, wanted.replica_directory_id),
                wanted.current_leader_epoch,
                raft.SnapshotId(wanted.snapshot_id.end_offset, wanted.snapshot_id.epoch),
                wanted.position,
                request.max_bytes,
            )
        case add.AddRaftVoterRequest():
            return raft.AddVoterRequest(
                _key(request.voter_id, request.voter_directory_id),
                _endpoints(request.listeners),
                request.timeout_ms,
                request.ack_when_committed,
            )
        case remove.RemoveRaftVoterRequest():
            return raft.RemoveVoterRequest(_key(request.voter_id, request.voter_directory_id))
        case update.UpdateRaftVoterRequest():
            feature = request.kraft_version_feature
            return raft.UpdateVoterRequest(
                request.current_leader_epoch,
                _key(request.voter_id, request.voter_directory_id),
                _endpoints(request.listeners),
                VersionRange(feature.min_supported_version, feature.max_supported_version),
            )
        case _:
            raise RemoteProtocolError(f"{type(request).__name__} is none of the quorum's")


def _decode_fetch(request: fetch.FetchRequest) -> raft.FetchRequest:
    asked = _only(request.topics)
    topic = request.topics[0]
    if topic.topic_id != METADATA_TOPIC_ID:
        _check(topic.topic or None, asked.partition)
    replica_id = request.replica_id if request.replica_state is None else request.replica_state.replica_id
    return raft.FetchRequest(
        _key(replica_id, asked.replica_directory_id),
        asked.current_leader_epoch,
        asked.fetch_offset,
        asked.last_fetched_epoch,
        request.max_wait_ms,
        min(request.max_bytes, asked.partition_max_bytes or request.max_bytes),
        asked.high_watermark,
    )


def refuse(request: Request, error: ErrorCode) -> Response:
    """The response to a request that is not looked at."""
    match request:
        case vote.VoteRequest():
            return vote_response.VoteResponse(error_code=error)
        case begin.BeginQuorumEpochRequest():
            return begin_response.BeginQuorumEpochResponse(error_code=error)
        case end.EndQuorumEpochRequest():
            return end_response.EndQuorumEpochResponse(error_code=error)
        case fetch.FetchRequest():
            return fetch.FetchResponse(error_code=error)
        case snapshot.FetchSnapshotRequest():
            return snapshot_response.FetchSnapshotResponse(error_code=error)
        case add.AddRaftVoterRequest():
            return add.AddRaftVoterResponse(error_code=error)
        case remove.RemoveRaftVoterRequest():
            return remove.RemoveRaftVoterResponse(error_code=error)
        case _:
            return update.UpdateRaftVoterResponse(error_code=error)


# -- responses that go out ------------------------------------------------------------------------------------

N = TypeVar("N")


def _leader(answer: Answer, node: Callable[..., N]) -> list[N]:
    """The leader's address, as responses since KIP-853 carry it."""
    if answer.leader_id is None or not answer.leader_endpoints:
        return []
    at = answer.leader_endpoints[0]
    return [node(node_id=answer.leader_id, host=at.host, port=at.port)]


def _id(node_id: int | None) -> int:
    return NOBODY if node_id is None else node_id


def encode_response(response: raft.Response, request: Request) -> Response:
    """The response, in the shape that the request asks for."""
    match response:
        case raft.VoteResponse(answer, granted):
            voted = vote_response.PartitionData(
                error_code=answer.error,
                leader_id=_id(answer.leader_id),
                leader_epoch=answer.epoch,
                vote_granted=granted,
            )
            return vote_response.VoteResponse(
                topics=[vote_response.TopicData(topic_name=TOPIC, partitions=[voted])],
                node_endpoints=_leader(answer, vote_response.NodeEndpoint),
            )
        case raft.BeginQuorumEpochResponse(answer):
            begun = begin_response.PartitionData(
                error_code=answer.error, leader_id=_id(answer.leader_id), leader_epoch=answer.epoch
            )
            return begin_response.BeginQuorumEpochResponse(
                topics=[begin_response.TopicData(topic_name=TOPIC, partitions=[begun])],
                node_endpoints=_leader(answer, begin_response.NodeEndpoint),
            )
        case raft.EndQuorumEpochResponse(answer):
            ended = end_response.PartitionData(
                error_code=answer.error, leader_id=_id(answer.leader_id), leader_epoch=answer.epoch
            )
            return end_response.EndQuorumEpochResponse(
                topics=[end_response.TopicData(topic_name=TOPIC, partitions=[ended])],
                node_endpoints=_leader(answer, end_response.NodeEndpoint),
            )
        case raft.FetchResponse():
            return _encode_fetch(response)
        case raft.FetchSnapshotResponse(answer, snapshot_id, size_bytes, position, data):
            piece = snapshot_response.PartitionSnapshot(
                index=PARTITION,
                error_code=answer.error,
                snapshot_id=snapshot_response.SnapshotId(end_offset=snapshot_id.end_offset, epoch=snapshot_id.epoch),
                current_leader=snapshot_response.LeaderIdAndEpoch(
                    leader_id=_id(answer.leader_id), leader_epoch=answer.epoch
                ),
                size=size_bytes,
                position=position,
                unaligned_records=data,
            )
            return snapshot_response.FetchSnapshotResponse(
                topics=[snapshot_response.TopicSnapshot(name=TOPIC, partitions=[piece])],
                node_endpoints=_leader(answer, snapshot_response.NodeEndpoint),
            )
        case raft.VoterChangeResponse(answer, message):
            return _encode_change(answer, message, request)
        case raft.VersionsResponse():
            raise AssertionError("ApiVersions has a handler of its own")


def _encode_fetch(response: raft.FetchResponse) -> fetch.FetchResponse:
    answer, diverging, snapshot_id = response.answer, response.diverging, response.snapshot_id
    data = fetch.PartitionData(
        partition_index=PARTITION,
        error_code=answer.error,
        high_watermark=response.high_watermark,
        log_start_offset=response.log_start_offset,
        diverging_epoch=None
        if diverging is None
        else fetch.EpochEndOffset(epoch=diverging.epoch, end_offset=diverging.end_offset),
        current_leader=fetch.LeaderIdAndEpoch(leader_id=_id(answer.leader_id), leader_epoch=answer.epoch),
        snapshot_id=None
        if snapshot_id is None
        else fetch.SnapshotId(end_offset=snapshot_id.end_offset, epoch=snapshot_id.epoch),
        aborted_transactions=None,
        records=response.records,
    )
    return fetch.FetchResponse(
        responses=[fetch.FetchableTopicResponse(topic=TOPIC, topic_id=METADATA_TOPIC_ID, partitions=[data])],
        node_endpoints=_leader(answer, fetch.NodeEndpoint),
    )


def _encode_change(answer: Answer, message: str, request: Request) -> Response:
    match request:
        case add.AddRaftVoterRequest():
            return add.AddRaftVoterResponse(error_code=answer.error, error_message=message or None)
        case remove.RemoveRaftVoterRequest():
            return remove.RemoveRaftVoterResponse(error_code=answer.error, error_message=message or None)
        case _:
            at = answer.leader_endpoints[0] if answer.leader_endpoints else Endpoint("", "", 0)
            leader = update.CurrentLeader(
                leader_id=_id(answer.leader_id), leader_epoch=answer.epoch, host=at.host, port=at.port
            )
            return update.UpdateRaftVoterResponse(error_code=answer.error, current_leader=leader)


# -- requests that go out -------------------------------------------------------------------------------------


def encode_request(request: raft.Request, cluster_id: str) -> Request:
    match request:
        case raft.VoteRequest(voter, epoch, candidate, log_end, pre_vote):
            asked = vote.PartitionData(
                partition_index=PARTITION,
                replica_epoch=epoch,
                replica_id=candidate.id,
                replica_directory_id=candidate.directory_id,
                voter_directory_id=ZERO_UUID if voter is None else voter.directory_id,
                last_offset_epoch=log_end.epoch,
                last_offset=log_end.end_offset,
                pre_vote=pre_vote,
            )
            return vote.VoteRequest(
                cluster_id=cluster_id,
                voter_id=NOBODY if voter is None else voter.id,
                topics=[vote.TopicData(topic_name=TOPIC, partitions=[asked])],
            )
        case raft.BeginQuorumEpochRequest(voter, epoch, leader_id, endpoints):
            begun = begin.PartitionData(
                partition_index=PARTITION,
                voter_directory_id=ZERO_UUID if voter is None else voter.directory_id,
                leader_id=leader_id,
                leader_epoch=epoch,
            )
            return begin.BeginQuorumEpochRequest(
                cluster_id=cluster_id,
                voter_id=NOBODY if voter is None else voter.id,
                topics=[begin.TopicData(topic_name=TOPIC, partitions=[begun])],
                leader_endpoints=[
                    begin.LeaderEndpoint(name=name, host=host, port=port) for name, host, port in endpoints
                ],
            )
        case raft.EndQuorumEpochRequest(epoch, leader_id, candidates, endpoints):
            ended = end.PartitionData(
                partition_index=PARTITION,
                leader_id=leader_id,
                leader_epoch=epoch,
                preferred_successors=[key.id for key in candidates],
                preferred_candidates=[
                    end.ReplicaInfo(candidate_id=key.id, candidate_directory_id=key.directory_id) for key in candidates
                ],
            )
            return end.EndQuorumEpochRequest(
                cluster_id=cluster_id,
                topics=[end.TopicData(topic_name=TOPIC, partitions=[ended])],
                leader_endpoints=[
                    end.LeaderEndpoint(name=name, host=host, port=port) for name, host, port in endpoints
                ],
            )
        case raft.FetchRequest():
            return _encode_fetch_request(request, cluster_id)
        case raft.FetchSnapshotRequest(replica, epoch, snapshot_id, position, bytes_max):
            wanted = snapshot.PartitionSnapshot(
                partition=PARTITION,
                current_leader_epoch=epoch,
                snapshot_id=snapshot.SnapshotId(end_offset=snapshot_id.end_offset, epoch=snapshot_id.epoch),
                position=position,
                replica_directory_id=replica.directory_id,
            )
            return snapshot.FetchSnapshotRequest(
                cluster_id=cluster_id,
                replica_id=replica.id,
                max_bytes=bytes_max,
                topics=[snapshot.TopicSnapshot(name=TOPIC, partitions=[wanted])],
            )
        case raft.AddVoterRequest(voter, endpoints, timeout_ms, ack_when_committed):
            return add.AddRaftVoterRequest(
                cluster_id=cluster_id,
                timeout_ms=timeout_ms,
                voter_id=voter.id,
                voter_directory_id=voter.directory_id,
                listeners=[add.Listener(name=name, host=host, port=port) for name, host, port in endpoints],
                ack_when_committed=ack_when_committed,
            )
        case raft.RemoveVoterRequest(voter):
            return remove.RemoveRaftVoterRequest(
                cluster_id=cluster_id, voter_id=voter.id, voter_directory_id=voter.directory_id
            )
        case raft.UpdateVoterRequest(epoch, voter, endpoints, known):
            return update.UpdateRaftVoterRequest(
                cluster_id=cluster_id,
                current_leader_epoch=epoch,
                voter_id=voter.id,
                voter_directory_id=voter.directory_id,
                listeners=[update.Listener(name=name, host=host, port=port) for name, host, port in endpoints],
                kraft_version_feature=update.KRaftVersionFeature(
                    min_supported_version=known.low, max_supported_version=known.high
                ),
            )
        case raft.VersionsRequest():
            return versions.ApiVersionsRequest(client_software_name="streamlog", client_software_version="0")


def _encode_fetch_request(request: raft.FetchRequest, cluster_id: str) -> fetch.FetchRequest:
    asked = fetch.FetchPartition(
        partition=PARTITION,
        current_leader_epoch=request.epoch,
        fetch_offset=request.offset,
        last_fetched_epoch=request.last_epoch,
        log_start_offset=-1,
        partition_max_bytes=request.bytes_max,
        replica_directory_id=request.replica.directory_id,
        high_watermark=request.high_watermark,
    )
    return fetch.FetchRequest(
        cluster_id=cluster_id,
        replica_state=fetch.ReplicaState(replica_id=request.replica.id, replica_epoch=-1),
        max_wait_ms=request.wait_ms_max,
        min_bytes=0,
        max_bytes=request.bytes_max,
        topics=[fetch.FetchTopic(topic=TOPIC, topic_id=METADATA_TOPIC_ID, partitions=[asked])],
    )


# -- responses that come in -----------------------------------------------------------------------------------


class _Node(Protocol):
    node_id: int
    host: str
    port: int


def _answer(error_code: int, epoch: int, leader_id: int, nodes: Sequence[_Node], listener: str) -> Answer:
    """`listener`: the name under which whoever asked looks for addresses."""
    found = [Endpoint(listener, node.host, node.port) for node in nodes if node.node_id == leader_id >= 0]
    return Answer(_error(error_code), epoch, None if leader_id < 0 else leader_id, tuple(found[:1]))


def _error(code: int) -> ErrorCode:
    try:
        return ErrorCode(code)
    except ValueError:
        return ErrorCode.UNKNOWN_SERVER_ERROR


def _refused(error_code: int) -> Answer:
    """An error of the whole response: it says nothing about epochs."""
    return Answer(_error(error_code), NOBODY, None, ())


def unsupported() -> Answer:
    """The peer does not know the request at all, or not this version of it."""
    return _refused(ErrorCode.UNSUPPORTED_VERSION)


def decode_response(response: Response, listener: str) -> raft.Response:
    """What was answered. Raises RemoteProtocolError when it is not about the metadata log."""
    match response:
        case vote_response.VoteResponse():
            if response.error_code:
                return raft.VoteResponse(_refused(response.error_code), granted=False)
            voted = _only(response.topics)
            answer = _answer(voted.error_code, voted.leader_epoch, voted.leader_id, response.node_endpoints, listener)
            return raft.VoteResponse(answer, voted.vote_granted)
        case begin_response.BeginQuorumEpochResponse():
            if response.error_code:
                return raft.BeginQuorumEpochResponse(_refused(response.error_code))
            begun = _only(response.topics)
            return raft.BeginQuorumEpochResponse(
                _answer(begun.error_code, begun.leader_epoch, begun.leader_id, response.node_endpoints, listener)
            )
        case end_response.EndQuorumEpochResponse():
            if response.error_code:
                return raft.EndQuorumEpochResponse(_refused(response.error_code))
            ended = _only(response.topics)
            return raft.EndQuorumEpochResponse(
                _answer(ended.error_code, ended.leader_epoch, ended.leader_id, response.node_endpoints, listener)
            )
        case fetch.FetchResponse():
            return _decode_fetch_response(response, listener)
        case snapshot_response.FetchSnapshotResponse():
            if response.error_code:
                return raft.FetchSnapshotResponse(_refused(response.error_code), raft.SnapshotId(0, 0))
            piece = _only(response.topics)
            leader = piece.current_leader or snapshot_response.LeaderIdAndEpoch(leader_id=NOBODY, leader_epoch=NOBODY)
            return raft.FetchSnapshotResponse(
                _answer(piece.error_code, leader.leader_epoch, leader.leader_id, response.node_endpoints, listener),
                raft.SnapshotId(piece.snapshot_id.end_offset, piece.snapshot_id.epoch),
                piece.size,
                piece.position,
                piece.unaligned_records,
            )
        case add.AddRaftVoterResponse() | remove.RemoveRaftVoterResponse():
            return raft.VoterChangeResponse(_refused(response.error_code), response.error_message or "")
        case update.UpdateRaftVoterResponse():
            at = response.current_leader or update.CurrentLeader()
            endpoints = (Endpoint(listener, at.host, at.port),) if at.host else ()
            leader_id = None if at.leader_id < 0 else at.leader_id
            return raft.VoterChangeResponse(Answer(_error(response.error_code), at.leader_epoch, leader_id, endpoints))
        case versions.ApiVersionsResponse():
            known = [feature for feature in response.supported_features if feature.name == KRAFT_VERSION]
            found = VersionRange(known[0].min_version, known[0].max_version) if known else None
            return raft.VersionsResponse(_error(response.error_code), found)
        case _:
            raise RemoteProtocolError(f"{type(response).__name__} is none of the quorum's")


def _decode_fetch_response(response: fetch.FetchResponse, listener: str) -> raft.FetchResponse:
    if response.error_code:
        return raft.FetchResponse(_refused(response.error_code))
    data = _only(response.responses)
    leader = data.current_leader or fetch.LeaderIdAndEpoch()
    diverging, snapshot_id = data.diverging_epoch, data.snapshot_id
    return raft.FetchResponse(
        _answer(data.error_code, leader.leader_epoch, leader.leader_id, response.node_endpoints, listener),
        data.high_watermark,
        data.log_start_offset,
        b"" if data.records is None else data.records,
        None if diverging is None or diverging.epoch < 0 else Position(diverging.epoch, diverging.end_offset),
        None
        if snapshot_id is None or (snapshot_id.end_offset < 0 and snapshot_id.epoch < 0)
        else raft.SnapshotId(snapshot_id.end_offset, snapshot_id.epoch),
    )
