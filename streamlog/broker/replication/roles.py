"""What the metadata make of each partition here: leader, follower, or nothing; and who follows whom.

`assign` is called with every registration that is news, and is all there is to a change of leadership: it happens at
once, between two awaits. A new leader epoch always makes a new `LeaderState` or `FollowerState`, so nothing that was
learnt or asked in an older one can be taken for true. Within an epoch only the in-sync set and the replicas change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from streamlog.broker.log.flusher import Flusher
from streamlog.broker.metadata.image import NO_LEADER, MetadataImage, PartitionRegistration
from streamlog.broker.partition import Partition
from streamlog.broker.replication.fetcher import Fetcher
from streamlog.broker.replication.follower import FollowerState
from streamlog.broker.replication.isr_changes import AskController, IsrChangeQueue
from streamlog.broker.replication.leader import UNKNOWN_EPOCH, LeaderState
from streamlog.broker.replication.settings import ReplicationSettings
from streamlog.broker.replication.throttle import (
    FOLLOWER_RATE,
    FOLLOWER_REPLICAS,
    LEADER_RATE,
    LEADER_REPLICAS,
    Throttle,
    rate_of,
    throttled_partitions,
)
from streamlog.env import Env, Scope
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.message import Request, Response

log = logging.getLogger(__name__)

NONE_THROTTLED: Final[tuple[frozenset[int] | None, frozenset[int] | None]] = (frozenset(), frozenset())

SHRINK_MS: Final = 1_000
"""How often leaders look for members that lag."""


async def _nobody(request: Request) -> Response:
    raise KafkaError(ErrorCode.BROKER_NOT_AVAILABLE, "this node has no way to the controller yet")


class Replication:
    """The roles of all partitions of one broker, and the tasks that come with them."""

    def __init__(
        self,
        env: Env,
        node_id: int,
        scope: Scope,
        flusher: Flusher,
        settings: ReplicationSettings | None = None,
        *,
        save_log_starts: Callable[[], None],
    ) -> None:
        self._env = env
        self._node_id = node_id
        self._scope = scope
        self._flusher = flusher
        self._save_log_starts = save_log_starts
        self._settings = settings or ReplicationSettings()
        self.ask_controller: AskController = _nobody
        """Set when the node is put together."""
        self.controller_heard_ms: Callable[[], int] = env.clock.mono_ms
        """When the controller last answered a heartbeat. Set before the first `assign` on a node that sends any."""
        self._image = MetadataImage()
        self._fetchers: dict[int, Fetcher] = {}
        """By leader."""
        self._followed: dict[Partition, int] = {}
        """The leader whose fetcher has it."""
        self._led: dict[Partition, None] = {}
        """Those with followers."""
        self._ticks = False
        self._leading_throttle, self._following_throttle = Throttle(), Throttle()
        self._throttled: dict[str, tuple[frozenset[int] | None, frozenset[int] | None]] = {}
        """By topic, where there are any: partitions that are throttled while led, and while followed (None: all)."""
        self.isr_changes = IsrChangeQueue(node_id, scope, self._ask, self._own_broker_epoch)

    # -- what the metadata say --------------------------------------------------------------------------------

    def see(self, image: MetadataImage) -> None:
        """The cluster as it is committed. Before `assign`."""
        self._image = image

    def assign(self, partition: Partition, registration: PartitionRegistration) -> None:
        """Give the partition its role, if the registration is news to it."""
        if registration.leader == self._node_id:
            self._lead(partition, registration)
        else:
            self._follow(partition, registration)

    def release(self, partition: Partition) -> None:
        """It is closed: nobody fetches it any more."""
        self._led.pop(partition, None)
        self._leave(partition)

    @property
    def is_cut_off(self) -> bool:
        """Whether something that we lead by what we know is led by another broker by now, most likely."""
        if self._env.clock.mono_ms() - self.controller_heard_ms() <= self._settings.session_ms:
            return False  # the most frequent case by far
        return any(partition.is_cut_off for partition in self._led)

    def refresh(self) -> None:
        """Brokers have come or gone: what waited for a replica that is dead need not."""
        for partition in list(self._led):
            partition.advance()

    def _lead(self, partition: Partition, registration: PartitionRegistration) -> None:
        self._leave(partition)
        is_new = not partition.is_leader or partition.leader_epoch != registration.leader_epoch
        count = len(registration.replicas)
        if count == 1:
            self._led.pop(partition, None)
            if is_new or partition.replica_count != 1:
                partition.lead(registration.leader_epoch, None, 1)
            return
        state = None if is_new else partition.leader
        if state is None:
            state = LeaderState(
                self._node_id,
                registration.leader_epoch,
                partition.log.log_end_offset,
                self._is_eligible,
                lag_ms_max=self._settings.lag_ms_max,
                now_ms=self._env.clock.mono_ms(),
                silence_ms_max=self._settings.session_ms,
                controller_heard_ms=self.controller_heard_ms,
            )
            state.adopt(registration.replicas, registration.isr, registration.partition_epoch)
            partition.lead(registration.leader_epoch, state, count)
        elif state.adopt(registration.replicas, registration.isr, registration.partition_epoch):
            partition.lead(registration.leader_epoch, state, count)
        else:
            return
        self._led[partition] = None
        if not self._ticks:
            self._ticks = True
            self._scope.spawn("shrink in-sync sets", self._shrink())
        log.info(
            "partition=%r epoch=%d role=leader isr=%s hw=%d end=%d",
            partition,
            registration.leader_epoch,
            ",".join(map(str, registration.isr)),
            partition.log.high_watermark,
            partition.log.log_end_offset,
        )

    def _follow(self, partition: Partition, registration: PartitionRegistration) -> None:
        self._led.pop(partition, None)
        leader, epoch = registration.leader, registration.leader_epoch
        count = len(registration.replicas)
        following = partition.follower
        if (
            partition.leader_epoch == epoch
            and not partition.is_leader
            and (following.leader_id if following is not None else NO_LEADER) == leader
        ):
            partition.set_replica_count(count)
            return
        self._leave(partition)
        state = None
        if leader != NO_LEADER:
            state = FollowerState(leader, epoch, self._settings.fetch.backoff_ms)
        partition.follow(epoch, state, count)
        log.info(
            "partition=%r epoch=%d role=follower leader=%d hw=%d end=%d",
            partition,
            epoch,
            leader,
            partition.log.high_watermark,
            partition.log.log_end_offset,
        )
        if state is not None:
            self._followed[partition] = leader
            self._fetcher(leader).follow(partition)

    def _leave(self, partition: Partition) -> None:
        leader = self._followed.pop(partition, None)
        if leader is not None:
            self._fetchers[leader].leave(partition)

    def _fetcher(self, leader: int) -> Fetcher:
        fetcher = self._fetchers.get(leader)
        if fetcher is None:
            fetcher = self._fetchers[leader] = Fetcher(
                self._env,
                self._scope,
                self._flusher,
                self._settings.fetch,
                node_id=self._node_id,
                leader_id=leader,
                address=lambda: self._address(leader),
                own_broker_epoch=self._own_broker_epoch,
                may_fetch=self._may_fetch,
                on_bytes=self._on_fetched,
                save_log_starts=self._save_log_starts,
            )
        return fetcher

    # -- throttles --------------------------------------------------------------------------------------------

    def set_throttles(self, configs: Mapping[str, str]) -> None:
        """This broker's dynamic configs, or those of all brokers, have changed."""
        self._leading_throttle.bytes_per_second = rate_of(configs, LEADER_RATE)
        self._following_throttle.bytes_per_second = rate_of(configs, FOLLOWER_RATE)

    def set_throttled(self, topic: str, configs: Mapping[str, str]) -> None:
        """A topic's configs, as far as they are set."""
        leading = throttled_partitions(configs, LEADER_REPLICAS, self._node_id)
        following = throttled_partitions(configs, FOLLOWER_REPLICAS, self._node_id)
        if leading == following == frozenset():
            self._throttled.pop(topic, None)
        else:
            self._throttled[topic] = leading, following

    def may_send(self, partition: Partition, replica_id: int, now_ms: int) -> bool:
        """Whether the leader may send records to this replica now."""
        leading = self._throttled.get(partition.topic, NONE_THROTTLED)[0]
        if leading is not None and partition.index not in leading:
            return True
        if partition.leader is None or replica_id in partition.leader.isr:
            return True
        return not self._leading_throttle.is_exceeded(now_ms)

    def on_sent(self, partition: Partition, replica_id: int, size_bytes: int, now_ms: int) -> None:
        """Count what was sent to a replica that is throttled."""
        leading = self._throttled.get(partition.topic, NONE_THROTTLED)[0]
        if leading is not None and partition.index not in leading:
            return
        if partition.leader is not None and replica_id not in partition.leader.isr:
            self._leading_throttle.count(size_bytes, now_ms)

    def _may_fetch(self, partition: Partition) -> bool:
        if not self._is_throttled_follower(partition):
            return True
        return not self._following_throttle.is_exceeded(self._env.clock.mono_ms())

    def _on_fetched(self, partition: Partition, size_bytes: int) -> None:
        if self._is_throttled_follower(partition):
            self._following_throttle.count(size_bytes, self._env.clock.mono_ms())

    def _is_throttled_follower(self, partition: Partition) -> bool:
        following = self._throttled.get(partition.topic, NONE_THROTTLED)[1]
        if following is not None and partition.index not in following:
            return False
        registration = self._image.partition(partition.topic, partition.index)
        return registration is not None and self._node_id not in registration.isr

    # -- what leaders and fetchers ask ------------------------------------------------------------------------

    async def _ask(self, request: Request) -> Response:
        return await self.ask_controller(request)

    def _own_broker_epoch(self) -> int:
        own = self._image.brokers.get(self._node_id)
        return UNKNOWN_EPOCH if own is None else own.epoch

    def _is_eligible(self, broker_id: int, broker_epoch: int) -> bool:
        broker = self._image.brokers.get(broker_id)
        return broker is not None and broker.is_active and broker_epoch in (UNKNOWN_EPOCH, broker.epoch)

    def _address(self, broker_id: int) -> tuple[str, int] | None:
        broker = self._image.brokers.get(broker_id)
        if broker is None:
            return None
        listener = self._settings.listener
        endpoint = broker.endpoint(listener) if listener else next(iter(broker.endpoints), None)
        return None if endpoint is None else (endpoint.host, endpoint.port)

    async def _shrink(self) -> None:
        try:
            while self._led:
                await asyncio.sleep(SHRINK_MS / 1000)
                now_ms = self._env.clock.mono_ms()
                for partition in list(self._led):
                    partition.shrink_isr(now_ms)
        finally:
            self._ticks = False
