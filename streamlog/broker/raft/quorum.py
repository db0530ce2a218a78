"""The driver of the metadata quorum: its files, its connections, its clock, and who is told what is committed.

`__cluster_metadata-0/` holds a partition's log in Kafka's format, `quorum-state` (epoch, leader, vote), and snapshots.
On the leader, records go in with `append`, which gives the offset of the last of them at once; `commit` waits until
that offset is committed, and by then `on_committed` has been called. Followers and observers call `on_committed` as
they learn of it.

The core decides; here its effects are performed, one after the other, in the order of its events, also when performing
one of them causes the next event. A sync or an election state that fails is the end of this node: what it has
promised is not certain any more (KIP-595 has no other answer).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NoReturn, assert_never

import msgspec

from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.log.waiters import OffsetWaiters
from streamlog.broker.metadata.topic_names import CLUSTER_METADATA
from streamlog.broker.raft.core import Election, QuorumDescription, RaftCore
from streamlog.broker.raft.effects import (
    Alarm,
    Effect,
    Flush,
    HighWatermarkMoved,
    LeaderChanged,
    PersistElection,
    Reply,
    Send,
    SnapshotLoaded,
)
from streamlog.broker.raft.links import Links
from streamlog.broker.raft.messages import (
    Endpoint,
    Endpoints,
    ReplicaKey,
    Request,
    Response,
    SnapshotId,
    VersionRange,
)
from streamlog.broker.raft.metadata_log import CommittedRecord, MetadataLog
from streamlog.broker.raft.peers import NEVER_MS
from streamlog.broker.raft.replica import NO_VOTERS, RaftConfig
from streamlog.broker.raft.snapshot import Snapshot, encode_snapshot
from streamlog.broker.raft.states import Resigned
from streamlog.broker.raft.voters import VoterNode, VoterSet
from streamlog.env import Env, Scope
from streamlog.errors import EnvironmentFailure, RemoteProtocolError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.internal.quorum_state import QuorumState, decode_quorum_state, encode_quorum_state
from streamlog.wire.internal.quorum_state import Voter as QuorumStateVoter
from streamlog.wire.schema import ZERO_UUID
from streamlog.wire.uuids import METADATA_TOPIC_ID

log = logging.getLogger(__name__)

DIRECTORY_NAME: Final = f"{CLUSTER_METADATA}-0"
QUORUM_STATE_FILE: Final = "quorum-state"

LOG_CONFIG: Final = LogConfig(
    retention_ms=-1, retention_bytes=-1, max_message_bytes=8 * 1024 * 1024, segment_bytes=64 * 1024 * 1024
)
"""Nothing is deleted by age: only a snapshot makes records superfluous. 8 MiB is Kafka's limit for a batch."""

NOBODY: Final = -1

FETCH_WAIT_MS_MAX: Final = 500
"""Kafka's wait of a follower's fetch at a leader that has nothing new."""

STOP_MS_MAX: Final = 1000
"""How long a leader that stops waits for another. A quorum that has none by then finds one by itself."""


class QuorumSettings(msgspec.Struct, frozen=True):
    """Who we are and whom we may ask. A node that is told about nobody is a quorum of one."""

    node_id: int
    listener: str = "CONTROLLER"
    """Name of the listener by which replicas reach each other: the first of controller.listener.names."""
    endpoints: tuple[tuple[str, str, int], ...] = ()
    """Our own listeners for that, as others reach them: name, host, port."""
    static_voters: VoterSet = NO_VOTERS
    """controller.quorum.voters."""
    bootstrap: tuple[tuple[str, int], ...] = ()
    """controller.quorum.bootstrap.servers."""
    is_controller: bool = True
    auto_join: bool = False
    election_timeout_ms: int = 1000
    election_backoff_ms_max: int = 1000
    fetch_timeout_ms: int = 2000
    request_timeout_ms: int = 2000
    retry_backoff_ms: int = 20
    fetch_bytes_max: int = 1024 * 1024
    """controller.quorum.fetch.max.bytes."""
    snapshot_bytes_max: int = 1024 * 1024
    """controller.quorum.fetch.snapshot.max.bytes."""


class Quorum:
    """Opened, then started; then it leads, follows or observes until the node stops."""

    def __init__(
        self,
        env: Env,
        directory: str,
        flusher: Flusher,
        scope: Scope,
        metadata_log: MetadataLog,
        core: RaftCore,
        settings: QuorumSettings,
        cluster_id: str,
    ) -> None:
        self._env = env
        self._directory = directory
        self._flusher = flusher
        self._scope = scope
        self.log = metadata_log
        self.core = core
        self._settings = settings
        self.cluster_id = cluster_id
        self.committed_end_offset = 0
        """Exclusive: everything below is committed, and `on_committed` has been told."""
        self.on_committed: Callable[[int], None] = lambda end_offset: None
        """Called with the new end offset, in order, before any `commit` that waited for it returns."""
        self.on_leader: Callable[[LeaderChanged], None] = lambda change: None
        """Called when somebody else leads, or nobody, or we do."""
        self.on_snapshot: Callable[[SnapshotId], None] = lambda snapshot_id: None
        """Called when a snapshot has replaced the log: fold it instead of what was there, and go on behind it."""
        self.on_leader_moved: list[Callable[[], None]] = []
        """Called after that, by whoever talks to the leader."""
        self.heard_ms: dict[int, int] = {}
        """Leaders that this node has followed, and the monotonic time of the last answer of each."""
        self._waiters = OffsetWaiters(0)  # for committed_end_offset
        self._leader_waiters: list[asyncio.Future[None]] = []
        self._effects: deque[Effect] = deque()
        self._is_performing = False
        self._is_flushing = False  # a task syncs what is appended
        self._is_over = False  # closed, or failed
        self._asked: dict[int, asyncio.Future[Response]] = {}  # by token
        self._tokens = 0
        self._links: Links | None = None  # made when somebody is to be asked
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_ms = NEVER_MS

    @classmethod
    def open(
        cls,
        env: Env,
        logs: LogDirectory,
        flusher: Flusher,
        scope: Scope,
        settings: QuorumSettings,
        now_ms: int,
    ) -> Quorum:
        """Open the metadata log of a data directory; a new directory of a quorum of one is formatted first.

        Raises EnvironmentFailure or PartitionOffline.
        """
        directory = f"{logs.path}/{DIRECTORY_NAME}"
        key = ReplicaKey(settings.node_id, logs.directory_id)
        is_alone = not settings.static_voters and not settings.bootstrap
        if is_alone and settings.is_controller and not env.storage.is_directory(directory):
            voters = VoterSet([VoterNode(key, _endpoints(settings))])
            format_metadata_log(env, directory, voters, now_ms)
        path = f"{directory}/{QUORUM_STATE_FILE}"
        election: Election | None = None
        if env.storage.exists(path):
            try:
                state, _ = decode_quorum_state(env.storage.read_bytes(path))
            except RemoteProtocolError as error:
                raise EnvironmentFailure(f"{path} is damaged: {error}") from error
            election = _election(state)
        partition = logs.open_partition(CLUSTER_METADATA, 0, METADATA_TOPIC_ID, LOG_CONFIG, now_ms)
        if election is None:
            # A vote is remembered in this directory, and not if a power cut takes its name.
            env.storage.sync_directory(logs.path)
        metadata_log = MetadataLog(env, directory, partition)
        core = RaftCore(_raft_config(settings, key), metadata_log, election, env.entropy.randrange)
        return cls(env, directory, flusher, scope, metadata_log, core, settings, logs.cluster_id)

    def load_snapshot(self) -> tuple[SnapshotId, Snapshot] | None:
        """The newest snapshot that is whole; None when there is none. The log goes on from its end."""
        return self.log.take_snapshot()

    def records(self, start_offset: int, end_offset: int) -> Iterator[CommittedRecord]:
        """Records of the log, control records left out. Committed as far as `committed_end_offset`."""
        return self.log.records(start_offset, end_offset)

    async def start(self) -> None:
        """Begin. A sole voter leads when this returns, and everything in its log is committed."""
        effects = self.core.on_start(self._now_ms())
        voters = self.core.voters
        others = any(node.endpoints for node in voters if node.key.id != self._settings.node_id)
        if not self.core.is_voter and not others and not self._settings.bootstrap:
            raise EnvironmentFailure(
                f"the metadata log belongs to the voters {list(voters.ids)}, and this is node "
                f"{self._settings.node_id} on a disk that is not among theirs; start it with the node.id and the "
                "data directory that were formatted together, or name controller.quorum.bootstrap.servers"
            )
        try:
            self._perform(effects)
        except OSError as error:
            raise EnvironmentFailure(f"the election state could not be written: {error}") from error
        if self.core.is_leader:
            await self.commit(self.log.end_offset - 1)

    # -- serving ----------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self.core.epoch

    @property
    def is_over(self) -> bool:
        """Closed, or its disk has failed: what the core says from then on reached nobody."""
        return self._is_over

    @property
    def is_leader(self) -> bool:
        return self.core.is_leader

    @property
    def leader_id(self) -> int | None:
        return self.core.leader_id

    @property
    def majority_heard_ms(self) -> int:
        """Monotonic. While this node leads: when a majority last fetched. Else now."""
        return self.core.majority_heard_ms(self._now_ms())

    @property
    def leader_address(self) -> tuple[str, int] | None:
        """Where the leader listens for controllers and brokers, if there is one and it is known."""
        return self.core.leader_address

    @property
    def next_offset(self) -> int:
        return self.log.end_offset

    @property
    def bytes_since_snapshot(self) -> int:
        return self.log.bytes_since_snapshot

    @bytes_since_snapshot.setter
    def bytes_since_snapshot(self, size_bytes: int) -> None:
        self.log.bytes_since_snapshot = size_bytes

    def append(self, values: Sequence[bytes], now_ms: int) -> int:
        """Append records as one batch, which is there wholly or not at all. Returns the last one's offset.

        Raises PartitionOffline when the disk refuses, NOT_CONTROLLER where this node does not lead; nothing has been
        appended then.
        """
        if not self.core.is_leader:
            raise KafkaError(ErrorCode.NOT_CONTROLLER, "another node leads the metadata quorum")
        last_offset = self.log.append_values(self.core.epoch, values, now_ms)
        self._run(self.core.on_appended)
        return last_offset

    async def commit(self, offset: int) -> None:
        """Return once `offset` is committed. Raises PartitionOffline when it cannot be known any more, and
        NOT_CONTROLLER when this node leads no longer: then the records may be committed by the next leader, or not.

        Cancelling changes nothing about the commit: that does not depend on anybody waiting for it.
        """
        await self._waiters.reached(offset + 1)

    def describe(self) -> QuorumDescription | None:
        """None unless this node leads."""
        return self.core.describe()

    async def ask(self, request: Request) -> Response:
        """The core's answer to another replica, or to a client that changes the voters."""
        self._tokens += 1
        token = self._tokens
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._asked[token] = future
        self._run(lambda now_ms: self.core.on_request(token, request, now_ms))
        try:
            return await future
        finally:
            self._asked.pop(token, None)

    async def learned(self, offset: int) -> None:
        """Return once `offset` is known to be committed, and `on_committed` has been told, whoever leads."""
        while True:
            try:
                return await self._waiters.reached(offset + 1)
            except KafkaError as error:
                if error.code is not ErrorCode.NOT_CONTROLLER:
                    raise

    async def leader_changed(self) -> None:
        """Return when it has changed who leads."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leader_waiters.append(future)
        await future

    async def stop(self) -> None:
        """Stop leading, and wait a moment for another to lead: nobody has to notice our absence then."""
        self._run(self.core.on_stop)
        try:
            async with asyncio.timeout(STOP_MS_MAX / 1000):
                while not self._is_over and isinstance(self.core.state, Resigned):
                    await self.leader_changed()
        except TimeoutError:
            log.info("quorum epoch=%d stopped without a successor", self.core.epoch)

    def close(self) -> None:
        """No more events; connections are closed. The tasks are the scope's to end."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._links is not None:
            self._links.close()
        self.log.close()

    # -- events and effects -----------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return self._env.clock.mono_ms()

    def _run(self, event: Callable[[int], list[Effect]]) -> None:
        """Tell the core, and do what it wants. What the disk refuses here ends the node."""
        if self._is_over:
            return
        try:
            self._perform(event(self._now_ms()))
        except (OSError, PartitionOffline) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        log.error("quorum epoch=%d failed: %s", self.core.epoch, error)
        self.close()
        self._waiters.fail(error)
        self._scope.spawn("quorum failed", _raise(error))

    def _perform(self, effects: list[Effect]) -> None:
        self._effects.extend(effects)
        if self._is_performing:
            return  # in the middle of an effect that caused this event: in their order, further down the stack
        self._is_performing = True
        try:
            while self._effects:
                self._perform_one(self._effects.popleft())
        finally:
            self._is_performing = False
            self._effects.clear()
        self._set_timer()

    def _perform_one(self, effect: Effect) -> None:
        match effect:
            case PersistElection():
                self._persist(effect)
            case Send():
                self._links_to_peers().send(effect)
            case Reply(token, response):
                future = self._asked.pop(token, None)
                if future is not None and not future.done():
                    future.set_result(response)
            case Flush():
                if not self._is_flushing:
                    self._is_flushing = True
                    self._scope.spawn("flush metadata", self._flush())
            case HighWatermarkMoved(high_watermark):
                self.log.partition.high_watermark = self.committed_end_offset = high_watermark
                self.on_committed(high_watermark)
                self._waiters.advance(high_watermark)
            case SnapshotLoaded(snapshot_id):
                self.on_snapshot(snapshot_id)
            case LeaderChanged():
                self._tell_leader(effect)
            case Alarm(text):
                log.error("quorum epoch=%d: %s", self.core.epoch, text)
            case _:
                assert_never(effect)

    def _persist(self, effect: PersistElection) -> None:
        version = 1 if self.core.kraft_version >= 1 else 0
        voted_for = effect.voted_for
        state = QuorumState(
            cluster_id="",
            leader_id=NOBODY if effect.leader_id is None else effect.leader_id,
            leader_epoch=effect.epoch,
            voted_id=NOBODY if voted_for is None else voted_for.id,
            voted_directory_id=ZERO_UUID if voted_for is None or version == 0 else voted_for.directory_id,
            current_voters=[QuorumStateVoter(voter_id=number) for number in self.core.voters.ids]
            if not version
            else [],
        )
        path = f"{self._directory}/{QUORUM_STATE_FILE}"
        self._env.storage.write_atomic(path, encode_quorum_state(state, version))

    def _tell_leader(self, change: LeaderChanged) -> None:
        role = type(self.core.state).__name__.lower()
        leader = "none" if change.leader_id is None else change.leader_id
        log.info("quorum epoch=%d role=%s leader=%s leo=%d", change.epoch, role, leader, self.log.end_offset)
        if change.start_offset is None:
            lost = KafkaError(ErrorCode.NOT_CONTROLLER, "another node leads the metadata quorum now")
            self._waiters.fail_above(self.committed_end_offset, lost)
        if change.leader_id not in (None, self._settings.node_id):
            self.heard_ms[change.leader_id] = self._now_ms()
        self.on_leader(change)
        for tell in self.on_leader_moved:
            tell()
        waiters, self._leader_waiters = self._leader_waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)

    async def _flush(self) -> None:
        """Sync until everything is; then end, until the next append. Its failure is the end of the node."""
        partition = self.log.partition
        try:
            while partition.flushed_offset < partition.log_end_offset and not self._is_over:
                try:
                    await self._flusher.flushed(partition, partition.log_end_offset)
                except PartitionOffline:
                    if partition.failure is not None:
                        raise
                    # What was to be synced was cut meanwhile.
                self._run(self.core.on_flushed)
        except PartitionOffline as error:
            self._waiters.fail(error)
            raise
        finally:
            self._is_flushing = False

    def _set_timer(self) -> None:
        at_ms = self.core.next_deadline_ms
        if at_ms == self._timer_at_ms and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_ms, self._timer = at_ms, None
        if at_ms < NEVER_MS and not self._is_over:
            wait_ms = max(0, at_ms - self._now_ms())
            self._timer = asyncio.get_running_loop().call_later(wait_ms / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._run(self.core.on_deadline)

    def _links_to_peers(self) -> Links:
        if self._links is None:
            self._links = Links(
                self._env,
                self._scope,
                cluster_id=self.cluster_id,
                node_id=self._settings.node_id,
                listener=self._settings.listener,
                request_timeout_ms=self._settings.request_timeout_ms,
                on_response=self._on_response,
                on_failure=self._on_failure,
            )
        return self._links

    def _on_response(self, send: Send, response: Response) -> None:
        if send.peer.id in self.heard_ms:
            self.heard_ms[send.peer.id] = self._now_ms()
        self._run(lambda now_ms: self.core.on_response(send.peer.id, send.number, response, now_ms))

    def _on_failure(self, send: Send, is_gone: bool) -> None:
        self._run(lambda now_ms: self.core.on_failure(send.peer.id, send.number, now_ms, is_gone=is_gone))

    # -- snapshots --------------------------------------------------------------------------------------------

    def write_snapshot(self, values: Sequence[bytes], end_offset: int) -> None:
        """Store the fold of everything below `end_offset`, which is committed, and let go of the log below it."""
        assert end_offset <= self.committed_end_offset, "a snapshot holds what is committed"
        snapshot_id = SnapshotId(end_offset, self.log.epoch_at(end_offset - 1))
        voters, kraft_version = self.core.voters_at(end_offset - 1)
        record = None if voters is None else voters.to_record()
        self.log.store_snapshot(snapshot_id, values, record, kraft_version)
        self._run(lambda now_ms: self.core.on_snapshot(snapshot_id, now_ms))


async def _raise(error: Exception) -> NoReturn:
    raise error


def _endpoints(settings: QuorumSettings) -> Endpoints:
    return tuple(Endpoint(*endpoint) for endpoint in settings.endpoints)


def _raft_config(settings: QuorumSettings, key: ReplicaKey) -> RaftConfig:
    return RaftConfig(
        key=key,
        listener=settings.listener,
        endpoints=_endpoints(settings),
        versions=VersionRange(0, 1),
        can_vote=settings.is_controller,
        static_voters=settings.static_voters,
        bootstrap=settings.bootstrap,
        auto_join=settings.auto_join,
        election_timeout_ms=settings.election_timeout_ms,
        election_backoff_ms_max=settings.election_backoff_ms_max,
        fetch_timeout_ms=settings.fetch_timeout_ms,
        request_timeout_ms=settings.request_timeout_ms,
        retry_backoff_ms=settings.retry_backoff_ms,
        # Several answers fit into what a follower is willing to wait: one that comes late is no reason to vote.
        # And an answer that says nothing new comes before the request is given up.
        fetch_wait_ms_max=min(FETCH_WAIT_MS_MAX, settings.fetch_timeout_ms // 4, settings.request_timeout_ms // 2),
        fetch_bytes_max=settings.fetch_bytes_max,
        snapshot_bytes_max=settings.snapshot_bytes_max,
    )


def _election(state: QuorumState) -> Election:
    voted_for = None if state.voted_id < 0 else ReplicaKey(state.voted_id, state.voted_directory_id)
    return Election(max(0, state.leader_epoch), None if state.leader_id < 0 else state.leader_id, voted_for)


def format_metadata_log(env: Env, directory: str, voters: VoterSet, now_ms: int) -> None:
    """Make the directory with the snapshot that names the first voters, as `kafka-storage format` does.

    The directory appears whole or not at all.
    """
    draft = f"{directory}.formatting"
    env.storage.make_directory(draft)
    data = encode_snapshot((), epoch=0, voters=voters.to_record(), last_timestamp_ms=now_ms, now_ms=now_ms)
    env.storage.write_atomic(f"{draft}/{SnapshotId(0, 0).file_name}", data)
    env.storage.rename(draft, directory)
