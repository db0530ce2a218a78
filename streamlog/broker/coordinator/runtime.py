"""The shard runtime: the driver of every state that is a fold over an internal topic.

One shard per led partition. A request is handled, its records are appended and applied, with no await in between:
that gap-free stretch is the only lock. The state is then ahead of what is committed, so no reply leaves before
everything the shard had appended when it decided is committed; a reply may thus rely on whatever the shard has seen.

    loading   the log is being folded; requests get COORDINATOR_LOAD_IN_PROGRESS
    active    requests are decided at once, replies wait for the log
    closed    leadership moved, or an append failed: whoever waits is told, and what was not written is forgotten

A failed append leaves the shard's state wrong, and there is no undoing: the shard is dropped and folded anew
(simple and correct; snapshots can come when loading hurts). Replies that wait longer than COMMIT_TIMEOUT_MS are
refused, while the records stay: like a produce request that timed out, they may or may not be committed later.

The runtime knows nothing about groups. A second user brings a shard, a codec and a name.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from streamlog.broker.coordinator.shard import Applied, Caller, Decision, Now, Refuse, Reply, Shard, Token
from streamlog.broker.coordinator.shard_log import RecordCodec, ShardLog, encode_batches, fold_batches
from streamlog.env import Clock, Hooks, NoHooks, Scope
from streamlog.wire.error_codes import ErrorCode, KafkaError

log = logging.getLogger(__name__)

RequestT = TypeVar("RequestT")
RecordT = TypeVar("RecordT")

COMMIT_TIMEOUT_MS = 5_000
"""How long replies wait for their records (Kafka's offsets.commit.timeout.ms): below the 30 s that clients wait, so
that they learn of the trouble from us."""

LOAD_PAUSE_MS = 1
"""Other tasks get at least this much between two chunks of a log that is folded."""

RELOAD_PAUSE_MS = 500
"""Between dropping a shard and folding it anew: a log that refuses every append must not cost a fold per request."""

APPEND_ERRORS = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.REQUEST_TIMED_OUT: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER: ErrorCode.NOT_COORDINATOR,
    ErrorCode.FENCED_LEADER_EPOCH: ErrorCode.NOT_COORDINATOR,
    ErrorCode.KAFKA_STORAGE_ERROR: ErrorCode.NOT_COORDINATOR,
    ErrorCode.MESSAGE_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
    ErrorCode.RECORD_LIST_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
}
"""What a client of a coordinator should hear when the coordinator's own log refuses: clients do not know that there
is a log behind it, and retry by finding the coordinator again."""


LEADERSHIP_LOST = (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH)
"""Somebody else coordinates now. After any other failure the log is folded anew here: a full disk passes."""


class Phase(Enum):
    LOADING = "loading"
    ACTIVE = "active"
    CLOSED = "closed"


@dataclass(slots=True)
class Live(Generic[RequestT, RecordT]):
    """One partition that this broker coordinates."""

    partition: int
    shard: Shard[RequestT, RecordT]
    log: ShardLog
    phase: Phase = Phase.LOADING
    waiting: dict[Token, asyncio.Future[object]] = field(default_factory=dict)
    """Requests without an answer, parked ones and those whose reply waits for the log."""
    uncommitted: deque[tuple[int, int, list[Reply | Refuse]]] = field(default_factory=deque)
    """(end offset, when to give up, replies) of decisions that wait for the log, in order."""
    loader: asyncio.Task[None] | None = None
    committer: asyncio.Task[None] | None = None
    """Works on `uncommitted`; None when there is nothing."""
    timer: asyncio.TimerHandle | None = None
    timer_at_ms: int = 0
    """When `timer` fires; it may be too early for the shard's earliest deadline, never too late."""


class ShardRuntime(Generic[RequestT, RecordT]):
    """All shards of one internal topic on this broker."""

    def __init__(
        self,
        name: str,
        make_shard: Callable[[int], Shard[RequestT, RecordT]],
        codec: RecordCodec[RecordT],
        clock: Clock,
        scope: Scope,
        *,
        commit_timeout_ms: int = COMMIT_TIMEOUT_MS,
        reload_pause_ms: int = RELOAD_PAUSE_MS,
        hooks: Hooks | None = None,
    ) -> None:
        """`name` is the topic's, for the log. `make_shard` gives an empty shard for a partition.

        The runtime's tasks belong to `scope`, and end in `close`; nothing they do is expected to raise.
        """
        self._name = name
        self._make_shard = make_shard
        self._codec = codec
        self._clock = clock
        self._scope = scope
        self._commit_timeout_ms = commit_timeout_ms
        self._reload_pause_ms = reload_pause_ms
        self._hooks = hooks or NoHooks()
        self._shards: dict[int, Live[RequestT, RecordT]] = {}
        self._tokens = 0
        self._is_closed = False

    # Leadership.

    def load(self, partition: int, shard_log: ShardLog) -> None:
        """This broker leads `partition`: fold its log, then serve it. Replaces a shard loaded before."""
        self._start(partition, shard_log, 0)

    def unload(self, partition: int, error: ErrorCode = ErrorCode.NOT_COORDINATOR) -> None:
        """This broker leads `partition` no more. Everybody who waits gets `error`."""
        live = self._shards.pop(partition, None)
        if live is not None:
            self._close_shard(live, error)

    def partitions(self) -> list[int]:
        """The partitions that are loaded and served, ordered."""
        return sorted(number for number, live in self._shards.items() if live.phase is Phase.ACTIVE)

    def is_loading(self) -> bool:
        return any(live.phase is Phase.LOADING for live in self._shards.values())

    async def close(self) -> None:
        """Stop. Everybody who waits gets COORDINATOR_NOT_AVAILABLE."""
        self._is_closed = True
        shards = list(self._shards.values())
        self._shards.clear()
        for live in shards:
            self._close_shard(live, ErrorCode.COORDINATOR_NOT_AVAILABLE)
        tasks = [task for live in shards for task in (live.loader, live.committer) if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    # Requests.

    def ask(
        self, partition: int, request: RequestT, *, api_version: int, client_id: str = "", client_host: str = ""
    ) -> asyncio.Future[object]:
        """Put a request to the shard of `partition`. The future is often done already.

        Cancelling it means nobody waits any more; what the request did stays done.
        Raises (in the future): KafkaError with NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS,
        COORDINATOR_NOT_AVAILABLE, or what the shard refuses with.
        """
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        live = self._shards.get(partition)
        if live is None or live.log.is_cut_off:
            # Cut off, the shard stays: it may turn out that nobody has taken its place.
            future.set_exception(KafkaError(ErrorCode.NOT_COORDINATOR))
            return future
        if live.phase is not Phase.ACTIVE:
            is_loading = live.phase is Phase.LOADING
            code = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if is_loading else ErrorCode.COORDINATOR_NOT_AVAILABLE
            future.set_exception(KafkaError(code))
            return future
        self._tokens += 1
        caller = Caller(Token(self._tokens), api_version, client_id, client_host)
        live.waiting[caller.token] = future
        now = self._now()
        self._step(live, now, lambda: live.shard.handle(request, caller, now))
        return future

    def apply_marker(self, partition: int, producer_id: int, committed: bool) -> None:
        """A transaction marker was appended to `partition`'s log by whoever writes markers."""
        live = self._shards.get(partition)
        if live is not None and live.phase is Phase.ACTIVE:
            live.shard.apply_marker(producer_id, committed)

    # Deciding.

    def _step(self, live: Live[RequestT, RecordT], now: Now, decide: Callable[[], Decision[RecordT]]) -> None:
        """Decide, append, apply, and queue the replies. No await: see the module's first paragraph."""
        try:
            decision = decide()
            for line in decision.notes:
                log.info("%s-%d %s", self._name, live.partition, line)
            self._append(live, decision.records, now)
        except KafkaError as error:
            self._fail(live, error)
        except Exception as error:
            # A mistake of ours. The shard may be half changed; the log is what can be trusted.
            log.exception("%s-%d failed", self._name, live.partition)
            self._fail(live, KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, str(error)))
        else:
            if decision.replies:
                self._queue(live, decision.replies, now)
            self._watch_deadline(live, now)

    def _append(self, live: Live[RequestT, RecordT], records: list[RecordT], now: Now) -> None:
        done = 0
        for batch, count in encode_batches(records, self._codec, now.wall_ms):
            offset = live.log.end_offset
            live.log.append(batch, now.wall_ms)
            for record in records[done : done + count]:
                live.shard.apply(Applied(record, offset))
                offset += 1
            done += count

    def _queue(self, live: Live[RequestT, RecordT], replies: list[Reply | Refuse], now: Now) -> None:
        end_offset = live.log.end_offset
        if not live.uncommitted and live.log.committed_offset >= end_offset:
            self._deliver(live, replies)
            return
        live.uncommitted.append((end_offset, now.mono_ms + self._commit_timeout_ms, replies))
        if live.committer is None:
            live.committer = self._scope.spawn(f"commit-{live.partition}", self._commit(live))

    async def _commit(self, live: Live[RequestT, RecordT]) -> None:
        """Deliver queued replies as the log catches up."""
        try:
            while live.uncommitted:
                end_offset, give_up_ms, replies = live.uncommitted[0]
                try:
                    async with asyncio.timeout(max(give_up_ms - self._clock.mono_ms(), 0) / 1000):
                        await live.log.wait_committed(end_offset)
                except TimeoutError:
                    refusal = KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, "the log did not commit in time")
                    log.warning("%s-%d end_offset=%d not committed in time", self._name, live.partition, end_offset)
                    replies = [Refuse(reply.token, refusal.code, refusal.message) for reply in replies]
                live.uncommitted.popleft()
                self._deliver(live, replies)
        except KafkaError as error:
            self._fail(live, error)
        finally:
            live.committer = None

    def _deliver(self, live: Live[RequestT, RecordT], replies: list[Reply | Refuse]) -> None:
        for reply in replies:
            future = live.waiting.pop(reply.token, None)
            if future is None or future.done():
                continue  # the client went away
            if isinstance(reply, Reply):
                future.set_result(reply.response)
            else:
                future.set_exception(KafkaError(reply.error, reply.message or ""))

    # Deadlines.

    def _watch_deadline(self, live: Live[RequestT, RecordT], now: Now) -> None:
        """Have the timer fire no later than the shard's earliest deadline."""
        due_ms = live.shard.next_deadline_ms()
        if due_ms is None or (live.timer is not None and live.timer_at_ms <= due_ms):
            return
        if live.timer is not None:
            live.timer.cancel()
        delay_s = max(due_ms - now.mono_ms, 0) / 1000
        live.timer_at_ms = due_ms
        live.timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer, live)

    def _on_timer(self, live: Live[RequestT, RecordT]) -> None:
        live.timer = None
        now = self._now()
        due_ms = live.shard.next_deadline_ms()
        if due_ms is not None and due_ms <= now.mono_ms:
            self._step(live, now, lambda: live.shard.on_deadline(now))
        else:
            self._watch_deadline(live, now)

    # Loading and the end.

    def _start(self, partition: int, shard_log: ShardLog, delay_ms: int) -> None:
        assert not self._is_closed, f"{self._name} is closed"
        self.unload(partition)
        live = Live(partition, self._make_shard(partition), shard_log)
        self._shards[partition] = live
        live.loader = self._scope.spawn(f"load-{partition}", self._load(live, delay_ms))

    async def _load(self, live: Live[RequestT, RecordT], delay_ms: int) -> None:
        if delay_ms:
            await asyncio.sleep(delay_ms / 1000)
        started_ms = self._clock.mono_ms()
        try:
            async for data in live.log.read():
                fold_batches(data, self._codec, live.shard)
                await asyncio.sleep(LOAD_PAUSE_MS / 1000)
        except Exception:
            # Damage, or a disk that went away. Serving what was read so far would forget commits; serve nothing.
            live.phase = Phase.CLOSED
            log.exception("%s-%d could not be loaded", self._name, live.partition)
            return
        now = self._now()
        live.phase = Phase.ACTIVE
        end_offset = live.log.end_offset
        if end_offset:
            self._hooks.sometimes("coordinator shard loaded from a log")
        level = logging.INFO if end_offset else logging.DEBUG  # fifty empty partitions are not worth fifty lines
        log.log(level, "%s-%d loaded end=%d ms=%d", self._name, live.partition, end_offset, now.mono_ms - started_ms)
        self._step(live, now, lambda: live.shard.on_loaded(now))

    def _fail(self, live: Live[RequestT, RecordT], error: KafkaError) -> None:
        """The shard is ahead of its log for good. Drop it, and fold the log again if it is still ours."""
        if live.phase is Phase.CLOSED:
            return
        self._hooks.sometimes("coordinator shard dropped")
        code = APPEND_ERRORS.get(error.code, error.code)
        log.warning("%s-%d dropped: %s", self._name, live.partition, error)
        self.unload(live.partition, code)
        if error.code not in LEADERSHIP_LOST and not self._is_closed:
            self._start(live.partition, live.log, self._reload_pause_ms)

    def _close_shard(self, live: Live[RequestT, RecordT], error: ErrorCode) -> None:
        live.phase = Phase.CLOSED
        if live.timer is not None:
            live.timer.cancel()
            live.timer = None
        live.uncommitted.clear()
        waiting = list(live.waiting.values())
        live.waiting.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(KafkaError(error))
        for task in (live.loader, live.committer):
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    def _now(self) -> Now:
        return Now(self._clock.mono_ms(), self._clock.wall_ms())
