"""The group coordinator of one broker: from a group's name to the shard that knows it.

`__consumer_offsets` has a fixed number of partitions; whoever leads a group's partition coordinates the group. The
topic is created when somebody first looks for a coordinator.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar
from uuid import UUID

from streamlog.broker.coordinator.group import record_codec
from streamlog.broker.coordinator.group.group_shard import GroupShard
from streamlog.broker.coordinator.group.limits import GroupLimits
from streamlog.broker.coordinator.group.records import GroupRecord
from streamlog.broker.coordinator.group.requests import ForgetNewcomer, ForgetTopics, GroupRequest
from streamlog.broker.coordinator.partitioning import partition_for
from streamlog.broker.coordinator.runtime import ShardRuntime
from streamlog.broker.coordinator.shard_log import ShardLog
from streamlog.env import Env, Scope
from streamlog.wire.error_codes import ErrorCode, KafkaError

log = logging.getLogger(__name__)

A = TypeVar("A")

TOPIC = "__consumer_offsets"

CREATE_TIMEOUT_S = 5.0
"""How long FindCoordinator waits for the topic to be created before it tells the client to come again."""


class GroupTopic(Protocol):
    """`__consumer_offsets` as the coordinator needs it."""

    def partition_count(self) -> int | None:
        """None while the topic does not exist."""
        ...

    async def create(self) -> None:
        """Create the topic, and return when this broker knows of it.

        A topic that exists is fine. Raises: KafkaError.
        """
        ...

    def led(self) -> Mapping[int, ShardLog]:
        """The partitions that this broker leads now, as far as they have been created."""
        ...

    def lead(self, partition: int) -> ShardLog | None:
        """One partition, created now if its turn has not come yet; None where another broker leads it."""
        ...


class Asker(Protocol):
    """What is known of the client behind a request."""

    @property
    def version(self) -> int: ...

    @property
    def client_id(self) -> str: ...

    @property
    def client_host(self) -> str: ...


class RecordBytes:
    """The runtime's face of `record_codec`."""

    encode = staticmethod(record_codec.encode)
    decode = staticmethod(record_codec.decode)


class GroupCoordinator:
    """Groups and offsets of the partitions that this broker leads."""

    def __init__(self, env: Env, limits: GroupLimits, topic: GroupTopic, scope: Scope) -> None:
        self._topic = topic
        self._led: dict[int, object] = {}
        """The leadership under which each partition was loaded."""
        self._scope = scope
        self._is_closed = False
        self._creation: asyncio.Task[None] | None = None
        """Creates the topic, while somebody is waiting for that."""
        self._runtime: ShardRuntime[GroupRequest, GroupRecord] = ShardRuntime(
            TOPIC, lambda _: GroupShard(limits, env.entropy.uuid4), RecordBytes(), env.clock, scope, hooks=env.hooks
        )

    # Leadership.

    def follow(self) -> None:
        """The cluster has changed: load what this broker leads since, and drop what it leads no more."""
        led = self._topic.led()
        for partition in sorted(self._led.keys() - led.keys()):
            del self._led[partition]
            self._runtime.unload(partition)
        for partition, log in led.items():
            if self._led.get(partition) != log.leadership:
                self._led[partition] = log.leadership
                self._runtime.load(partition, log)

    def _lead(self, partition: int) -> None:
        """Whoever asks for a partition of a new topic has it created and loaded at once; the others take turns."""
        if partition not in self._led and not self._is_closed:
            log = self._topic.lead(partition)
            if log is not None:
                self._led[partition] = log.leadership
                self._runtime.load(partition, log)

    async def close(self) -> None:
        """Answer everybody who waits; keep nothing."""
        self._is_closed = True
        await self._runtime.close()

    # Finding.

    async def find_partition(self, group_id: str) -> int:
        """The partition that coordinates `group_id`, creating the topic if nobody has yet.

        Raises: KafkaError with COORDINATOR_NOT_AVAILABLE when it could not be created in time.
        """
        count = self._topic.partition_count()
        if count is None:
            count = await self._create_topic()
        partition = partition_for(group_id, count)
        self._lead(partition)
        return partition

    async def _create_topic(self) -> int:
        """The new topic's partition count. All who ask at the same time wait for one creation, which is nobody's:
        the client that asked first may be gone before it is done.
        """
        if self._creation is None:
            self._creation = self._scope.spawn(f"create {TOPIC}", self._create())
        done, _ = await asyncio.wait([self._creation], timeout=CREATE_TIMEOUT_S)
        count = self._topic.partition_count()
        if count is None:
            problem = "could not be created" if done else "takes long to create"
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"{TOPIC} {problem}")
        return count

    async def _create(self) -> None:
        try:
            await self._topic.create()
        except KafkaError as error:
            log.warning("topic=%s not created: %s", TOPIC, error)
        finally:
            self._creation = None

    # Requests.

    def ask(self, group_id: str, request: GroupRequest, asker: Asker) -> asyncio.Future[object]:
        """Put a request to the shard of `group_id`; see `ShardRuntime.ask` for the errors in the future."""
        count = self._topic.partition_count()
        partition = -1 if count is None else partition_for(group_id, count)
        if count is not None:
            self._lead(partition)
        return self._ask_partition(partition, request, asker)

    def ask_all(self, request: GroupRequest, asker: Asker) -> list[asyncio.Future[object]]:
        """Put a request to every shard of this broker. Raises: KafkaError while one of them is loading."""
        if self._runtime.is_loading():
            raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
        return [self._ask_partition(partition, request, asker) for partition in self._runtime.partitions()]

    def forget_topics(self, topics: Mapping[str, UUID]) -> None:
        """Topics were deleted: no group has a position in them any more. Does not wait.

        A shard that is loading just now keeps them; readers tell by the topic's id that they mean nothing.
        """
        for partition in self._runtime.partitions():
            future = self._runtime.ask(partition, ForgetTopics(topics), api_version=0)
            future.add_done_callback(_ignore)

    def forget_newcomer(self, group_id: str, member_id: str, asker: Asker) -> None:
        """The client that was given `member_id` is gone. Does not wait."""
        self.ask(group_id, ForgetNewcomer(group_id, member_id), asker).add_done_callback(_ignore)

    def _ask_partition(self, partition: int, request: GroupRequest, asker: Asker) -> asyncio.Future[object]:
        return self._runtime.ask(
            partition,
            request,
            api_version=asker.version,
            client_id=asker.client_id,
            client_host=f"/{asker.client_host}",  # as Java prints an address, and tools expect it
        )


def answer(future: asyncio.Future[object], kind: type[A], refuse: Callable[[ErrorCode], A]) -> A | Awaitable[A]:
    """The response that a shard will give, at once when it is there already.

    `refuse` makes the response out of an error of the coordinator itself.
    """
    if future.done():
        return _result(future, kind, refuse)
    return wait_for(future, kind, refuse)


async def wait_for(future: asyncio.Future[object], kind: type[A], refuse: Callable[[ErrorCode], A]) -> A:
    """The same, awaited. Cancellation means that nobody waits for the response any more; what was decided stays."""
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        future.cancel()
        raise
    return _result(future, kind, refuse)


def _result(future: asyncio.Future[object], kind: type[A], refuse: Callable[[ErrorCode], A]) -> A:
    error = future.exception()
    if isinstance(error, KafkaError):
        return refuse(error.code)
    result = future.result()
    assert isinstance(result, kind), f"a shard answered {type(result).__name__} where {kind.__name__} was asked for"
    return result


def _ignore(future: asyncio.Future[object]) -> None:
    """Take note of an error that nobody can act on: the next coordinator sees the deletion too."""
    if not future.cancelled():
        future.exception()
