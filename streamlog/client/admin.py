"""Admin: topics, configs, groups and offsets, one method per thing an operator does.

Every method retries what passes (no controller yet, a coordinator that moves) until its timeout. Methods about
several things at once raise `SomeFailed`, which names each thing that failed; the others are done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from streamlog.client.cluster import GROUP_COORDINATOR, Cluster, topic_error
from streamlog.client.config import ConnectionSettings
from streamlog.client.failures import LOST_COORDINATOR, one_line
from streamlog.client.group_offsets import commit_offsets, fetch_offsets
from streamlog.client.membership import NO_GENERATION
from streamlog.client.metadata import Broker, Metadata, TopicInfo
from streamlog.client.offsets import OffsetAnswer, list_offsets
from streamlog.client.subscription import PROTOCOL_TYPE, decode_assignment, decode_subscription
from streamlog.client.values import (
    GroupMetadata,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    TopicPartition,
    partitions_by_topic,
)
from streamlog.env import Env
from streamlog.errors import RemoteProtocolError, UserError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.message import Request, Response
from streamlog.wire.messages import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DescribeClusterRequest,
    DescribeClusterResponse,
    DescribeConfigsRequest,
    DescribeConfigsResponse,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
    ListGroupsRequest,
    ListGroupsResponse,
    MetadataRequest,
    MetadataResponse,
    OffsetDeleteRequest,
    OffsetDeleteResponse,
)
from streamlog.wire.messages.create_partitions import CreatePartitionsTopic
from streamlog.wire.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
)
from streamlog.wire.messages.delete_records import DeleteRecordsPartition, DeleteRecordsTopic
from streamlog.wire.messages.delete_topics import DeleteTopicState
from streamlog.wire.messages.describe_configs import DescribeConfigsResource
from streamlog.wire.messages.describe_groups import DescribedGroup
from streamlog.wire.messages.incremental_alter_configs import AlterableConfig, AlterConfigsResource
from streamlog.wire.messages.metadata import MetadataRequestTopic
from streamlog.wire.messages.offset_delete import OffsetDeleteRequestPartition, OffsetDeleteRequestTopic

R = TypeVar("R", bound=Response)
T = TypeVar("T")

TOPIC_RESOURCE = 2
BROKER_RESOURCE = 4
GROUP_RESOURCE = 32

SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3

BROKER_DEFAULT = -1
"""For counts: whatever the broker's own configuration says."""

HIGH_WATERMARK = -1
"""For delete_records: everything that can be read now."""


class SomeFailed(KafkaError):
    """Several things were asked for and some were refused. `code` is the first one's."""

    def __init__(self, errors: Mapping[str, KafkaError]) -> None:
        first = next(iter(errors.values()))
        parts = [f"{name}: {one_line(error)}" for name, error in errors.items()]
        super().__init__(first.code, "; ".join(parts))
        self.errors = dict(errors)
        """By the name of the thing that failed."""


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to create. Counts of -1 take the broker's defaults; `replicas` places each partition by hand instead."""

    name: str
    partitions: int = BROKER_DEFAULT
    replication_factor: int = BROKER_DEFAULT
    configs: Mapping[str, str] = field(default_factory=dict)
    replicas: Mapping[int, Sequence[int]] | None = None


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One setting. `source`: 1 topic, 2 dynamic broker, 3 dynamic default, 4 static broker, 5 default, 8 group."""

    name: str
    value: str | None
    source: int
    read_only: bool
    is_sensitive: bool

    @property
    def is_default(self) -> bool:
        return self.source == 5


@dataclass(frozen=True, slots=True)
class GroupListing:
    group_id: str
    protocol_type: str
    state: str
    type: str


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member. `topics` and `partitions` are empty when its protocol is not the consumers'."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    topics: tuple[str, ...]
    partitions: tuple[TopicPartition, ...]
    userdata: bytes | None
    """What the member's assignor told the leader."""


@dataclass(frozen=True, slots=True)
class GroupDescription:
    group_id: str
    state: str
    protocol_type: str
    assignor: str
    members: tuple[GroupMember, ...]


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    cluster_id: str
    controller_id: int
    brokers: tuple[Broker, ...]


class Admin:
    """See the module's essay. All of one admin belong to one event loop."""

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        env: Env,
        client_id: str = "streamlog-admin",
        timeout_ms: int = 60_000,
        connection: ConnectionSettings | None = None,
    ) -> None:
        self._cluster = Cluster(bootstrap, env, connection or ConnectionSettings(client_id=client_id))
        self._timeout_ms = timeout_ms

    async def open(self) -> None:
        """Reach the cluster. Raises BrokerUnreachable naming the addresses when nobody answers in time."""
        try:
            await self._cluster.open(self._timeout_ms)
        except BaseException:
            await self._cluster.close()
            raise

    async def close(self) -> None:
        await self._cluster.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- the cluster

    async def describe_cluster(self) -> ClusterDescription:
        answer = await self._any("describing the cluster", DescribeClusterRequest(), DescribeClusterResponse)
        _check(answer.error_code, answer.error_message, "describing the cluster")
        await self._cluster.refresh(timeout_ms=self._timeout_ms)
        brokers = tuple(self._cluster.metadata.brokers[one] for one in sorted(self._cluster.metadata.brokers))
        return ClusterDescription(answer.cluster_id, answer.controller_id, brokers)

    # -- topics

    async def create_topics(self, topics: Iterable[NewTopic], *, validate_only: bool = False) -> None:
        """Create topics. Raises SomeFailed; TOPIC_ALREADY_EXISTS for one that is there."""
        wanted = {one.name: one for one in topics}

        async def attempt(names: Sequence[str]) -> dict[str, KafkaError | None]:
            request = CreateTopicsRequest(
                topics=[_creatable(wanted[name]) for name in names],
                timeout_ms=self._timeout_ms,
                validate_only=validate_only,
            )
            answer = await self._controller(request, CreateTopicsResponse)
            return {one.name: _error(one.error_code, one.error_message) for one in answer.topics}

        await self._each("creating topics", wanted, attempt)
        await self._seen(wanted if not validate_only else ())

    async def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics with everything in them. Raises SomeFailed."""

        async def attempt(left: Sequence[str]) -> dict[str, KafkaError | None]:
            request = DeleteTopicsRequest(
                topics=[DeleteTopicState(name=name) for name in left], timeout_ms=self._timeout_ms
            )
            answer = await self._controller(request, DeleteTopicsResponse)
            return {one.name or "": _error(one.error_code, one.error_message) for one in answer.responses}

        await self._each("deleting topics", names, attempt)

    async def create_partitions(self, counts: Mapping[str, int], *, validate_only: bool = False) -> None:
        """Grow topics to these partition counts. Raises SomeFailed."""

        async def attempt(left: Sequence[str]) -> dict[str, KafkaError | None]:
            request = CreatePartitionsRequest(
                topics=[CreatePartitionsTopic(name=name, count=counts[name], assignments=None) for name in left],
                timeout_ms=self._timeout_ms,
                validate_only=validate_only,
            )
            answer = await self._controller(request, CreatePartitionsResponse)
            return {one.name: _error(one.error_code, one.error_message) for one in answer.results}

        await self._each("creating partitions", counts, attempt)

    async def list_topics(self, *, internal: bool = False) -> list[str]:
        """All topics this client may see, sorted."""
        metadata = await self._metadata(None)
        return sorted(name for name, one in metadata.topics.items() if internal or not one.is_internal)

    async def describe_topics(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        """Ids, partitions, leaders, replicas. Raises SomeFailed, UNKNOWN_TOPIC_OR_PARTITION for what is not there."""
        wanted = list(dict.fromkeys(names))
        metadata = await self._metadata(wanted)
        errors = {name: topic_error(name, metadata.errors[name]) for name in wanted if name not in metadata.topics}
        refused = {name: error for name, error in errors.items() if isinstance(error, KafkaError)}
        if refused:
            raise SomeFailed(refused)
        for error in errors.values():
            raise error
        return {name: metadata.topics[name] for name in wanted}

    async def _metadata(self, names: Sequence[str] | None) -> Metadata:
        topics = None if names is None else [MetadataRequestTopic(name=name) for name in names]
        request = MetadataRequest(topics=topics, allow_auto_topic_creation=False)
        answer = await self._any("asking for metadata", request, MetadataResponse)
        metadata = Metadata()
        metadata.apply(answer, names or ())
        return metadata

    async def _seen(self, names: Iterable[str]) -> None:
        """Wait until the brokers know of new topics: a client that uses one right away should find it."""

        async def attempt() -> None:
            metadata = await self._metadata(list(names))
            missing = [name for name in names if not _led(metadata, name)]
            if missing:
                raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"topic '{missing[0]}' has no leader yet")

        if names:
            await self._cluster.retrying("waiting for new topics", attempt, timeout_ms=self._timeout_ms)

    # -- records

    async def delete_records(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Delete records before these offsets (-1: all there are). Returns the new first offsets. Raises SomeFailed."""
        found: dict[TopicPartition, int] = {}
        await self._known(offsets)

        async def attempt(left: Sequence[TopicPartition]) -> dict[TopicPartition, KafkaError | None]:
            answers: dict[TopicPartition, KafkaError | None] = {}
            for leader, mine in self._by_leader(left).items():
                request = DeleteRecordsRequest(
                    topics=[
                        DeleteRecordsTopic(
                            name=topic,
                            partitions=[
                                DeleteRecordsPartition(
                                    partition_index=number, offset=offsets[TopicPartition(topic, number)]
                                )
                                for number in numbers
                            ],
                        )
                        for topic, numbers in partitions_by_topic(mine).items()
                    ],
                    timeout_ms=self._timeout_ms,
                )
                answer = await self._cluster.request(leader, request, DeleteRecordsResponse)
                for topic in answer.topics:
                    for one in topic.partitions:
                        partition = TopicPartition(topic.name, one.partition_index)
                        found[partition] = one.low_watermark
                        answers[partition] = _error(one.error_code, None)
            return answers

        await self._each("deleting records", offsets, attempt)
        return found

    async def list_offsets(
        self, timestamps: Mapping[TopicPartition, int], *, read_committed: bool = False
    ) -> dict[TopicPartition, OffsetAndTimestamp]:
        """First offset at or after a time in ms; -2 the earliest, -1 the end, -3 that of the largest timestamp.

        An offset of -1: there is none.
        """
        found: dict[TopicPartition, OffsetAndTimestamp] = {}
        await self._known(timestamps)

        async def attempt(left: Sequence[TopicPartition]) -> dict[TopicPartition, KafkaError | None]:
            answers: dict[TopicPartition, KafkaError | None] = {}
            asked = {one: timestamps[one] for one in left}
            for partition, answer in (await list_offsets(self._cluster, asked, read_committed=read_committed)).items():
                if isinstance(answer, OffsetAnswer):
                    found[partition] = OffsetAndTimestamp(answer.offset, answer.timestamp_ms, answer.leader_epoch)
                    answers[partition] = None
                elif isinstance(answer, KafkaError):
                    answers[partition] = answer
                else:
                    answers[partition] = KafkaError(ErrorCode.NETWORK_EXCEPTION, one_line(answer))
            return answers

        await self._each("listing offsets", timestamps, attempt)
        return found

    async def _known(self, partitions: Iterable[TopicPartition]) -> None:
        """Know the leaders of these partitions. Raises KafkaError when a topic or partition does not exist."""
        for one in partitions:
            count = await self._cluster.partition_count(one.topic, timeout_ms=self._timeout_ms)
            if not 0 <= one.partition < count:
                why = f"topic '{one.topic}' has {count} partitions, there is no partition {one.partition}"
                raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, why)

    def _by_leader(self, partitions: Sequence[TopicPartition]) -> dict[int, list[TopicPartition]]:
        found: dict[int, list[TopicPartition]] = {}
        for one in partitions:
            leader = self._cluster.metadata.leader(one.topic, one.partition)
            if leader is None:
                raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"{one} has no leader right now")
            found.setdefault(leader, []).append(one)
        return found

    # -- configs

    async def describe_configs(
        self, resource: str, *, kind: int = TOPIC_RESOURCE, names: Sequence[str] | None = None
    ) -> dict[str, ConfigEntry]:
        """Settings of a topic, a broker (`kind=BROKER_RESOURCE`, the id as text) or a group."""
        request = DescribeConfigsRequest(
            resources=[
                DescribeConfigsResource(
                    resource_type=kind,
                    resource_name=resource,
                    configuration_keys=None if names is None else list(names),
                )
            ]
        )

        async def attempt() -> dict[str, ConfigEntry]:
            answer = await self._ask_resource(kind, resource, request, DescribeConfigsResponse)
            if not answer.results:
                raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "the broker's answer does not mention the resource")
            result = answer.results[0]
            _check(result.error_code, result.error_message, f"settings of '{resource}'")
            return {
                one.name: ConfigEntry(one.name, one.value, one.config_source, one.read_only, one.is_sensitive)
                for one in result.configs
            }

        return await self._cluster.retrying("describing configs", attempt, timeout_ms=self._timeout_ms)

    async def incremental_alter_configs(
        self,
        resource: str,
        *,
        set: Mapping[str, str] | None = None,  # noqa: A002  # Kafka's names of the operations
        delete: Iterable[str] = (),
        append: Mapping[str, str] | None = None,
        subtract: Mapping[str, str] | None = None,
        kind: int = TOPIC_RESOURCE,
        validate_only: bool = False,
    ) -> None:
        """Change some settings and leave the others; `delete` goes back to the default."""
        changes = [AlterableConfig(name=name, config_operation=SET, value=value) for name, value in (set or {}).items()]
        changes += [AlterableConfig(name=name, config_operation=DELETE, value=None) for name in delete]
        for operation, values in ((APPEND, append), (SUBTRACT, subtract)):
            changes += [
                AlterableConfig(name=name, config_operation=operation, value=value)
                for name, value in (values or {}).items()
            ]
        request = IncrementalAlterConfigsRequest(
            resources=[AlterConfigsResource(resource_type=kind, resource_name=resource, configs=changes)],
            validate_only=validate_only,
        )

        async def attempt() -> None:
            answer = await self._ask_resource(kind, resource, request, IncrementalAlterConfigsResponse)
            for one in answer.responses:
                _check(one.error_code, one.error_message, f"settings of '{resource}'")

        await self._cluster.retrying("altering configs", attempt, timeout_ms=self._timeout_ms)

    async def _ask_resource(self, kind: int, resource: str, request: Request, response: type[R]) -> R:
        """A broker's own settings are known to that broker alone."""
        if kind == BROKER_RESOURCE and resource:
            if not resource.isdigit():
                raise UserError(f"'{resource}' is not a broker id")
            return await self._cluster.request(int(resource), request, response)
        return await self._cluster.request_any(request, response)

    # -- groups

    async def list_groups(self, *, states: Sequence[str] = (), types: Sequence[str] = ()) -> list[GroupListing]:
        """The groups of all brokers, sorted by id."""
        found: dict[str, GroupListing] = {}

        async def attempt(node_id: int) -> ListGroupsResponse:
            connection = await self._cluster.connection(node_id)
            request = ListGroupsRequest(states_filter=list(states), types_filter=list(types))
            answer = await connection.request(request, ListGroupsResponse)
            _check(answer.error_code, None, "listing groups")
            return answer

        await self._cluster.refresh(timeout_ms=self._timeout_ms)
        for node_id in sorted(self._cluster.metadata.brokers):
            ask = _bound(attempt, node_id)
            answer = await self._cluster.retrying("listing groups", ask, timeout_ms=self._timeout_ms)
            for one in answer.groups:
                found[one.group_id] = GroupListing(one.group_id, one.protocol_type, one.group_state, one.group_type)
        return [found[name] for name in sorted(found)]

    async def describe_groups(self, group_ids: Iterable[str]) -> dict[str, GroupDescription]:
        """Members and what they have. A group that does not exist has the state Dead. Raises SomeFailed."""
        found: dict[str, GroupDescription] = {}

        async def attempt(left: Sequence[str]) -> dict[str, KafkaError | None]:
            answers: dict[str, KafkaError | None] = {}
            for group_id in left:
                request = DescribeGroupsRequest(groups=[group_id])
                answer = await self._coordinator(group_id, request, DescribeGroupsResponse)
                for one in answer.groups:
                    answers[one.group_id] = self._group_error(one.group_id, one.error_code, one.error_message)
                    if one.error_code == ErrorCode.GROUP_ID_NOT_FOUND:
                        answers[one.group_id] = None
                    found[one.group_id] = _described(one)
            return answers

        await self._each("describing groups", group_ids, attempt)
        return found

    async def delete_groups(self, group_ids: Iterable[str]) -> None:
        """Delete groups without members, and their offsets. Raises SomeFailed."""

        async def attempt(left: Sequence[str]) -> dict[str, KafkaError | None]:
            answers: dict[str, KafkaError | None] = {}
            for group_id in left:
                request = DeleteGroupsRequest(groups_names=[group_id])
                answer = await self._coordinator(group_id, request, DeleteGroupsResponse)
                for one in answer.results:
                    answers[one.group_id] = self._group_error(one.group_id, one.error_code, None)
            return answers

        await self._each("deleting groups", group_ids, attempt)

    async def list_group_offsets(self, group_id: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """Everything a group has committed."""

        async def attempt() -> dict[TopicPartition, OffsetAndMetadata]:
            found = await fetch_offsets(self._cluster, group_id, None, {}, stable=False)
            return {one: found[one] for one in sorted(found)}

        return await self._cluster.retrying("listing group offsets", attempt, timeout_ms=self._timeout_ms)

    async def alter_group_offsets(self, group_id: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit offsets for a group that has no members now. Raises SomeFailed."""

        async def attempt(left: Sequence[TopicPartition]) -> dict[TopicPartition, KafkaError | None]:
            nobody = GroupMetadata(group_id, NO_GENERATION, "", None)
            codes = await commit_offsets(self._cluster, nobody, {one: offsets[one] for one in left}, {})
            return {one: _error(code, f"group '{group_id}'") for one, code in codes.items()}

        await self._each("altering group offsets", offsets, attempt)

    async def delete_group_offsets(self, group_id: str, partitions: Iterable[TopicPartition]) -> None:
        """Forget committed offsets of topics that no member subscribes to. Raises SomeFailed."""

        async def attempt(left: Sequence[TopicPartition]) -> dict[TopicPartition, KafkaError | None]:
            request = OffsetDeleteRequest(
                group_id=group_id,
                topics=[
                    OffsetDeleteRequestTopic(
                        name=topic, partitions=[OffsetDeleteRequestPartition(partition_index=one) for one in numbers]
                    )
                    for topic, numbers in partitions_by_topic(left).items()
                ],
            )
            answer = await self._coordinator(group_id, request, OffsetDeleteResponse)
            self._raise_group_error(group_id, answer.error_code)
            return {
                TopicPartition(topic.name, one.partition_index): _error(one.error_code, None)
                for topic in answer.topics
                for one in topic.partitions
            }

        await self._each("deleting group offsets", partitions, attempt)

    # -- how to ask

    async def _any(self, what: str, request: Request, response: type[R]) -> R:
        return await self._cluster.retrying(
            what, lambda: self._cluster.request_any(request, response), timeout_ms=self._timeout_ms
        )

    async def _controller(self, request: Request, response: type[R]) -> R:
        """Ask the controller if it is known; any broker passes such requests on to it."""
        node_id = self._cluster.metadata.controller_id
        if node_id in self._cluster.metadata.brokers:
            timeout_ms = self._timeout_ms + self._cluster.settings.request_timeout_ms
            return await self._cluster.request(node_id, request, response, timeout_ms=timeout_ms)
        return await self._cluster.request_any(request, response)

    async def _coordinator(self, group_id: str, request: Request, response: type[R]) -> R:
        node_id = await self._cluster.coordinator(GROUP_COORDINATOR, group_id)
        return await self._cluster.request(node_id, request, response)

    def _group_error(self, group_id: str, error_code: int, message: str | None) -> KafkaError | None:
        error = _error(error_code, message or f"group '{group_id}'")
        if error is not None and error.code in LOST_COORDINATOR:
            self._cluster.forget_coordinator(GROUP_COORDINATOR, group_id)
        return error

    def _raise_group_error(self, group_id: str, error_code: int) -> None:
        error = self._group_error(group_id, error_code, None)
        if error is not None:
            raise error

    async def _each(
        self,
        what: str,
        things: Iterable[T],
        attempt: Callable[[Sequence[T]], Awaitable[Mapping[T, KafkaError | None]]],
    ) -> None:
        """Ask about all things, and again about those whose errors pass. Raises SomeFailed about the rest."""
        left = list(dict.fromkeys(things))
        failed: dict[str, KafkaError] = {}

        async def attempt_left() -> None:
            if not left:
                return
            answers = await attempt(list(left))
            passing: KafkaError | None = None
            for thing in list(left):
                error = answers.get(thing, KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "not in the broker's answer"))
                if error is not None and error.retriable and error.code not in _TELLING:
                    passing = error
                    failed[str(thing)] = error
                    continue
                left.remove(thing)
                failed.pop(str(thing), None)
                if error is not None:
                    failed[str(thing)] = error
            if passing is not None:
                raise passing

        try:
            await self._cluster.retrying(what, attempt_left, timeout_ms=self._timeout_ms)
        except KafkaError as refusal:
            if refusal not in failed.values():
                raise
        if failed:
            raise SomeFailed(failed)


_TELLING = frozenset({ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID})
"""Retriable for who reads and writes; an operator who names a topic wants to hear that it is not there."""


def _bound(attempt: Callable[[int], Awaitable[R]], node_id: int) -> Callable[[], Awaitable[R]]:
    return lambda: attempt(node_id)


def _error(error_code: int, message: str | None) -> KafkaError | None:
    return KafkaError(ErrorCode.of(error_code), message or "") if error_code else None


def _check(error_code: int, message: str | None, what: str) -> None:
    if error_code:
        raise KafkaError(ErrorCode.of(error_code), f"{what}: {message}" if message else what)


def _creatable(topic: NewTopic) -> CreatableTopic:
    by_hand = topic.replicas is not None
    return CreatableTopic(
        name=topic.name,
        num_partitions=BROKER_DEFAULT if by_hand else topic.partitions,
        replication_factor=BROKER_DEFAULT if by_hand else topic.replication_factor,
        assignments=[
            CreatableReplicaAssignment(partition_index=number, broker_ids=list(brokers))
            for number, brokers in sorted((topic.replicas or {}).items())
        ],
        configs=[CreatableTopicConfig(name=name, value=value) for name, value in sorted(topic.configs.items())],
    )


def _led(metadata: Metadata, topic: str) -> bool:
    info = metadata.topics.get(topic)
    return info is not None and bool(info.partitions) and all(one.leader >= 0 for one in info.partitions)


def _described(group: DescribedGroup) -> GroupDescription:
    members = []
    for one in group.members:
        topics: tuple[str, ...] = ()
        partitions: tuple[TopicPartition, ...] = ()
        userdata: bytes | None = None
        if group.protocol_type == PROTOCOL_TYPE:
            try:
                if one.member_metadata:
                    subscription = decode_subscription(one.member_metadata)
                    topics, userdata = subscription.topics, subscription.userdata
                partitions = decode_assignment(one.member_assignment).partitions
            except RemoteProtocolError:
                topics, partitions = (), ()  # another client's protocol under the consumers' name
        members.append(
            GroupMember(
                one.member_id, one.group_instance_id, one.client_id, one.client_host, topics, partitions, userdata
            )
        )
    return GroupDescription(group.group_id, group.group_state, group.protocol_type, group.protocol_data, tuple(members))
