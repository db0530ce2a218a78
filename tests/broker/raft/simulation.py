"""Whole quorums in one process, from one seed: messages are late, lost, repeated and out of order, replicas crash in
the middle of their effects and lose what was not synced, disks are replaced, voters come and go.

After every event the invariants of Raft are checked (`Watch`). When the faults stop, the quorum has to work again.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, assert_never
from uuid import UUID

import msgspec

from streamlog.broker.raft.core import Election, RaftCore
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
from streamlog.broker.raft.messages import (
    AddVoterRequest,
    Endpoint,
    RemoveVoterRequest,
    ReplicaKey,
    Request,
    Response,
    SnapshotId,
    VoterChangeResponse,
    VoteRequest,
    VoteResponse,
)
from streamlog.broker.raft.replica import RaftConfig
from streamlog.broker.raft.states import Leader
from streamlog.broker.raft.voters import VoterNode, VoterSet
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.internal.voters import VotersRecord
from tests.broker.raft.memory_log import Entry, MemoryLog, StoredSnapshot

LISTENER = "CONTROLLER"
CLIENT = -9
"""Who asks for changes of the voters."""


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, as probabilities per message or per second of simulated time and node."""

    drop: float = 0.05
    repeat: float = 0.05
    late: float = 0.05
    crash: float = 0.08
    cut_effects: float = 0.5
    partition: float = 0.05
    wipe: float = 0.0
    snapshot: float = 0.3
    change_voters: float = 0.2
    gone: float = 0.5
    slow_disk: float = 0.1
    crash_after_vote: float = 0.02
    restart_ms_max: int = 4000
    election_timeout_ms: int = 1000
    fetch_timeout_ms: int = 2000


@dataclass
class Node:
    key: ReplicaKey
    log: MemoryLog
    election: Election | None = None
    core: RaftCore | None = None  # None while it is down
    incarnation: int = 0
    fold: str = ""  # hash of everything applied
    applied: int = 0
    high_watermark: int = 0
    flushing: int = 0
    epoch_promised: int = 0  # the highest epoch that it has told anybody
    auto_join: bool = False

    @property
    def is_up(self) -> bool:
        return self.core is not None


class Asked(NamedTuple):
    """A request that is being answered."""

    sender: Node
    incarnation: int
    """Of the sender: a later one does not wait for the answer."""
    peer_id: int
    number: int
    request: Request
    target: Node


@dataclass(order=True)
class Event:
    at_ms: int
    number: int
    run: Callable[[], None] = field(compare=False)


class Watch:
    """The invariants. Everything it knows, it has seen; the replicas do not know that it is there."""

    def __init__(self) -> None:
        self.leaders: dict[int, ReplicaKey] = {}  # by epoch
        self.votes: dict[tuple[ReplicaKey, int], ReplicaKey] = {}  # by (voter, epoch)
        self.records: dict[tuple[int, int], tuple[Entry, int]] = {}  # (offset, epoch) -> the record, epoch before
        self.committed: list[Entry] = []
        self.committed_in: list[int] = []  # epoch of the leader that committed it
        self.folds: dict[int, str] = {0: ""}  # end offset -> hash of everything below
        self.seen: Counter[str] = Counter()

    def on_leader(self, node: Node, epoch: int) -> None:
        """Election safety; leader completeness."""
        before = self.leaders.setdefault(epoch, node.key)
        if before != node.key:
            raise Broken(f"epoch {epoch} is led by {before} and {node.key}")
        log = node.log
        # Votes can be late: the leader of a later epoch, which this one knows nothing of, may have committed more.
        before_it = bisect_left(self.committed_in, epoch)
        if log.end_offset < before_it:
            raise Broken(f"leader {node.key} of epoch {epoch} ends at {log.end_offset}, committed: {before_it}")
        for offset in range(log.start_offset, before_it):
            if log.entries[offset - log.start_offset] != self.committed[offset]:
                raise Broken(f"leader {node.key} of epoch {epoch} lacks the committed record at {offset}")
        self.seen["leader"] += 1

    def on_vote(self, voter: ReplicaKey, epoch: int, candidate: ReplicaKey) -> None:
        """One vote for each epoch, across crashes."""
        before = self.votes.setdefault((voter, epoch), candidate)
        if before != candidate:
            raise Broken(f"{voter} voted for {before} and {candidate} in epoch {epoch}")

    def on_append(self, node: Node, start_offset: int) -> None:
        """Log matching."""
        log = node.log
        for offset in range(max(start_offset, log.start_offset), log.end_offset):
            entry = log.entries[offset - log.start_offset]
            before = log.epoch_at(offset - 1) if offset > log.start_offset else log.base.epoch
            known = self.records.setdefault((offset, entry.epoch), (entry, before))
            if known != (entry, before):
                raise Broken(f"two records of epoch {entry.epoch} at {offset}, or behind different ones")
            if entry.epoch < before:
                raise Broken(f"epoch {entry.epoch} follows {before} at {offset} of {node.key}")

    def on_log(self, node: Node, core: RaftCore) -> None:
        """Who votes is what the log says, and nothing else."""
        records = [at.record for at in node.log.voter_records(0) if isinstance(at.record, VotersRecord)]
        voters = VoterSet.from_record(records[-1]) if records else VoterSet()
        if core.voters != voters:
            raise Broken(f"{node.key} counts {core.voters}, and its log says {voters}")

    def on_cut(self, node: Node, offset: int) -> None:
        """What is committed, and known to be here, stays."""
        self.seen["cut"] += 1
        if offset < node.high_watermark:
            raise Broken(f"{node.key} cuts at {offset} what it knew to be committed up to {node.high_watermark}")

    def on_commit(self, node: Node, high_watermark: int) -> None:
        """State machine safety; the high watermark never falls."""
        if high_watermark < node.high_watermark:
            raise Broken(f"the high watermark of {node.key} falls from {node.high_watermark} to {high_watermark}")
        if high_watermark > node.log.end_offset:
            raise Broken(f"{node.key} knows committed records that it does not have")
        node.high_watermark = high_watermark
        log = node.log
        for offset in range(node.applied, high_watermark):
            entry = log.entries[offset - log.start_offset]
            if offset == len(self.committed):
                self.committed.append(entry)
                self.committed_in.append(0 if node.core is None else node.core.epoch)
            if self.committed[offset] != entry:
                raise Broken(f"{node.key} commits another record at {offset}")
            node.fold = hashlib.sha1(node.fold.encode() + repr(entry).encode(), usedforsecurity=False).hexdigest()
            if self.folds.setdefault(offset + 1, node.fold) != node.fold:
                raise Broken(f"{node.key} has another state at {offset + 1}")
        node.applied = high_watermark

    def on_leader_commit(self, node: Node, nodes: dict[int, Node], high_watermark: int) -> None:
        """Committed means: on the disks of a majority, and something of this epoch with it."""
        core = node.core
        assert core is not None, "who commits is up"
        assert isinstance(core.state, Leader), "the leader was asked"
        epoch = node.log.epoch_at(high_watermark - 1)
        if epoch != core.epoch:
            raise Broken(f"{node.key} commits up to {high_watermark} with nothing of epoch {core.epoch}")
        holders = 0
        for voter in core.voters:
            log = nodes[voter.key.id].log
            has = high_watermark <= log.start_offset or (
                high_watermark <= log.flushed_offset and log.epoch_at(high_watermark - 1) == epoch
            )
            holders += has
        if holders < core.voters.majority:
            raise Broken(f"{node.key} commits up to {high_watermark}, which {holders} of {len(core.voters)} have")

    def on_voters(self, before: VoterSet, after: VoterSet, is_committed: bool) -> None:
        """No two disjoint majorities."""
        old, new = {node.key for node in before}, {node.key for node in after}
        if len(old - new) + len(new - old) > 1:
            raise Broken(f"{before} becomes {after} in one step")
        if old != new:
            self.seen["voters changed"] += 1
            if not is_committed:
                raise Broken(f"{before} becomes {after} before {before} is committed")


class Simulation:
    """A quorum of `voters` nodes, and `observers` more that fetch and may be made voters."""

    def __init__(self, seed: int, voters: int = 3, observers: int = 1, faults: Faults | None = None) -> None:
        self.random = random.Random(seed)
        self.faults = faults or Faults()
        self.now_ms = 1_000
        self.watch = Watch()
        self.trace: list[str] = []
        self._queue: list[Event] = []
        self._numbers = 0
        self._tokens: dict[int, Asked] = {}
        self._blocked: set[frozenset[int]] = set()
        self._is_faulty = True
        self._values = 0
        self._wipes = 0
        self.answers: list[Response] = []
        """To the client."""
        keys = [ReplicaKey(number, UUID(int=1000 + number)) for number in range(1, voters + observers + 1)]
        self.first_voters = VoterSet(VoterNode(key, endpoints(key.id)) for key in keys[:voters])
        formatted = StoredSnapshot(b"", 1, self.first_voters.to_record().encode(0))
        self.nodes = {
            key.id: Node(key, MemoryLog(formatted if number < voters else None)) for number, key in enumerate(keys)
        }
        for node in self.nodes.values():
            self.start(node)

    # -- time -------------------------------------------------------------------------------------------------

    def at(self, delay_ms: int, run: Callable[[], None]) -> None:
        self._numbers += 1
        heapq.heappush(self._queue, Event(self.now_ms + delay_ms, self._numbers, run))

    def run(self, duration_ms: int, until: Callable[[], bool] | None = None) -> bool:
        """Until the time is over, or `until` holds. Says whether it does."""
        end_ms = self.now_ms + duration_ms
        while self._queue and self._queue[0].at_ms <= end_ms:
            event = heapq.heappop(self._queue)
            self.now_ms = max(self.now_ms, event.at_ms)
            event.run()
            if until is not None and until():
                return True
        self.now_ms = end_ms
        return until is not None and until()

    # -- nodes ------------------------------------------------------------------------------------------------

    def config(self, node: Node) -> RaftConfig:
        return RaftConfig(
            key=node.key,
            listener=LISTENER,
            endpoints=endpoints(node.key.id),
            bootstrap=tuple((f"n{number}", 1) for number in sorted(self.nodes)),
            auto_join=node.auto_join,
            fetch_bytes_max=64,
            election_timeout_ms=self.faults.election_timeout_ms,
            election_backoff_ms_max=self.faults.election_timeout_ms,
            fetch_timeout_ms=self.faults.fetch_timeout_ms,
            fetch_wait_ms_max=self.faults.fetch_timeout_ms // 4,
        )

    def start(self, node: Node) -> None:
        node.incarnation += 1
        snapshot_id = node.log.latest_snapshot()
        node.applied = node.high_watermark = node.flushing = 0
        node.fold = ""
        if snapshot_id is not None:
            node.applied = node.high_watermark = snapshot_id.end_offset
            node.fold = msgspec.msgpack.decode(node.log.snapshots[snapshot_id], type=StoredSnapshot).fold.decode()
        node.core = RaftCore(self.config(node), node.log, node.election, self.random.randrange)
        if node.election is not None and node.election.epoch < 0:
            raise Broken("an epoch below 0")
        core = node.core
        self.handle(node, lambda core: core.on_start(self.now_ms))
        if core.epoch < node.epoch_promised:
            raise Broken(f"{node.key} forgot epoch {node.epoch_promised}, and is at {core.epoch}")

    def crash(self, node: Node) -> None:
        if node.core is None:
            return
        node.core = None
        log = node.log
        log.crash(self.random.randint(log.flushed_offset, max(log.flushed_offset, log.end_offset)))
        self.watch.seen["crash"] += 1
        for token, asked in list(self._tokens.items()):
            if asked.target is node:
                del self._tokens[token]
                if self.random.random() < self.faults.gone:
                    self._fail(asked.sender, asked.incarnation, asked.peer_id, asked.number)

    def wipe(self, node: Node) -> None:
        """A new disk: the replica is another one."""
        node.core = None
        self._wipes += 1
        node.key = ReplicaKey(node.key.id, UUID(int=1000 + node.key.id + 100 * self._wipes))
        node.log, node.election, node.epoch_promised, node.auto_join = MemoryLog(), None, 0, True
        self.watch.seen["wipe"] += 1

    def handle(self, node: Node, event: Callable[[RaftCore], list[Effect]]) -> None:
        """Give the core an event, check what it did to its log, and perform its effects."""
        core = node.core
        if core is None:
            return
        log = node.log
        start_before, end_before, cuts_before, voters_before = (
            log.start_offset,
            log.end_offset,
            len(log.cuts),
            core.voters,
        )
        was_leader = core.is_leader
        leader_hw = core.state.high_watermark if isinstance(core.state, Leader) else None
        voters_offset = core._replica.history.voters_offset
        effects = event(core)
        if log.end_offset != end_before or len(log.cuts) != cuts_before or log.start_offset != start_before:
            self.watch.on_log(node, core)
        for cut in log.cuts[cuts_before:]:
            self.watch.on_cut(node, cut)
        self.watch.on_append(node, min([end_before, *log.cuts[cuts_before:]]))
        if core.is_leader and was_leader and core.voters != voters_before:
            is_committed = leader_hw is not None and voters_offset is not None and voters_offset < leader_hw
            self.watch.on_voters(voters_before, core.voters, is_committed)
        if isinstance(core.state, Leader) and not core.is_voter and node.core is core:
            removed_at = core._replica.history.voters_offset
            if removed_at is not None and removed_at < (core.state.high_watermark or 0):
                raise Broken(f"{node.key} leads, and was voted out")
        if not was_leader and core.is_leader:
            self.watch.on_leader(node, core.epoch)
        self._perform(node, effects)
        if node.core is core:
            incarnation = node.incarnation
            deadline_ms = core.next_deadline_ms
            if deadline_ms < 10**15:
                wait_ms = max(0, deadline_ms - self.now_ms)
                self.at(wait_ms, lambda: self._on_deadline(node, incarnation, deadline_ms))

    def _on_deadline(self, node: Node, incarnation: int, deadline_ms: int) -> None:
        core = node.core
        if core is not None and node.incarnation == incarnation and core.next_deadline_ms == deadline_ms:
            self.handle(node, lambda core: core.on_deadline(self.now_ms))

    def _perform(self, node: Node, effects: list[Effect]) -> None:
        cut = len(effects)
        chance = self.faults.crash * self.faults.cut_effects / 20
        if self._is_faulty and effects and self.random.random() < chance:
            cut = self.random.randrange(len(effects))
        for effect in effects[:cut]:
            self._perform_one(node, effect)
        if cut < len(effects):
            self.watch.seen["crash within effects"] += 1
            self.crash(node)

    def _perform_one(self, node: Node, effect: Effect) -> None:
        core = node.core
        assert core is not None, "effects are of a core that is up"
        match effect:
            case PersistElection(epoch, leader_id, voted_for):
                if node.election is not None and epoch < node.election.epoch:
                    raise Broken(f"{node.key} persists epoch {epoch} after {node.election.epoch}")
                node.election = Election(epoch, leader_id, voted_for)
            case Send(peer, number, request):
                epoch = getattr(request, "epoch", 0)
                node.epoch_promised = max(node.epoch_promised, epoch)
                if isinstance(request, VoteRequest) and not request.pre_vote:
                    self.watch.on_vote(node.key, request.epoch, request.candidate)
                self._send(node, peer.id, peer.host, number, request)
            case Reply(token, response):
                self._reply(node, token, response)
            case Flush():
                self._flush(node)
            case HighWatermarkMoved(high_watermark):
                if core.is_leader and self._wipes == 0:
                    self.watch.on_leader_commit(node, self.nodes, high_watermark)
                self.watch.on_commit(node, high_watermark)
            case SnapshotLoaded(snapshot_id):
                self.watch.seen["snapshot loaded"] += 1
                stored = msgspec.msgpack.decode(node.log.snapshots[snapshot_id], type=StoredSnapshot)
                node.applied, node.fold = snapshot_id.end_offset, stored.fold.decode()
            case LeaderChanged(epoch, leader_id, _):
                self.trace.append(f"{self.now_ms} {node.key.id} epoch={epoch} leader={leader_id}")
            case Alarm(text):
                raise Broken(f"{node.key} at {self.now_ms}: {text}")
            case _:
                assert_never(effect)

    def _flush(self, node: Node) -> None:
        incarnation, log = node.incarnation, node.log
        end_offset, cuts = log.end_offset, len(log.cuts)

        def done() -> None:
            if node.incarnation != incarnation or not node.is_up:
                return
            # A cut in the meantime leaves only what was not touched by it.
            kept = min([end_offset, *log.cuts[cuts:]])
            log.flushed_offset = max(log.flushed_offset, min(kept, log.end_offset))
            self.handle(node, lambda core: core.on_flushed(self.now_ms))

        is_slow = self._is_faulty and self.random.random() < self.faults.slow_disk
        self.at(self.random.randint(100, 3000) if is_slow else self.random.randint(0, 5), done)

    # -- network ----------------------------------------------------------------------------------------------

    def _send(self, sender: Node, peer_id: int, host: str, number: int, request: Request) -> None:
        target = self.nodes[int(host[1:])]
        incarnation = sender.incarnation

        def deliver() -> None:
            if not target.is_up:
                if self.random.random() < self.faults.gone:
                    self._fail(sender, incarnation, peer_id, number)
                return
            token = self._new_token()
            self._tokens[token] = Asked(sender, incarnation, peer_id, number, request, target)
            self.handle(target, lambda core: core.on_request(token, request, self.now_ms))

        self._transmit(sender.key.id, target.key.id, deliver)

    def _fail(self, sender: Node, incarnation: int, peer_id: int, number: int) -> None:
        if sender.incarnation == incarnation:
            self.at(
                1,
                lambda: self.handle(sender, lambda core: core.on_failure(peer_id, number, self.now_ms, is_gone=True)),
            )

    def _reply(self, node: Node, token: int, response: Response) -> None:
        asker = self._tokens.pop(token, None)
        answer = getattr(response, "answer", None)
        if answer is not None:
            node.epoch_promised = max(node.epoch_promised, answer.epoch)
        if asker is None:
            self.answers.append(response)
            return
        sender, incarnation, peer_id, number, request, _ = asker
        if isinstance(response, VoteResponse) and isinstance(request, VoteRequest) and response.granted:
            if request.voter not in (None, node.key):
                raise Broken(f"{node.key} votes in the name of {request.voter}")
            if not request.pre_vote:
                self.watch.on_vote(node.key, request.epoch, request.candidate)
                if self._is_faulty and self.random.random() < self.faults.crash_after_vote:
                    self.at(0, lambda: self.crash(node))
                    self.at(self.random.randint(1, 5), lambda: self._restart(node))

        def deliver() -> None:
            if sender.incarnation == incarnation:
                self.handle(sender, lambda core: core.on_response(peer_id, number, response, self.now_ms))

        self._transmit(node.key.id, sender.key.id, deliver)

    def _transmit(self, source: int, target: int, deliver: Callable[[], None]) -> None:
        if frozenset((source, target)) in self._blocked:
            return
        faults = self.faults if self._is_faulty else Faults(drop=0, repeat=0, late=0)
        copies = 1
        chance = self.random.random()
        if chance < faults.drop:
            copies = 0
        elif chance < faults.drop + faults.repeat:
            copies = 2
        for _ in range(copies):
            late = self.random.random() < faults.late
            self.at(
                self.random.choice((100, 1000, 5000)) * self.random.randint(1, 100) // 100
                if late
                else self.random.randint(1, 20),
                deliver,
            )

    def _new_token(self) -> int:
        self._numbers += 1
        return self._numbers

    # -- what happens to it -----------------------------------------------------------------------------------

    def leaders(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.core is not None and node.core.is_leader]

    def append(self, node: Node) -> None:
        """The state machine of a leader writes something."""
        core = node.core
        if core is None or not core.is_leader:
            return
        self._values += 1
        node.log.append_data(core.epoch, b"v%d" % self._values)
        self.handle(node, lambda core: core.on_appended(self.now_ms))

    def snapshot(self, node: Node) -> None:
        core = node.core
        if core is None or node.applied <= node.log.start_offset or node.applied > node.log.flushed_offset:
            return
        voters, kraft_version = core.voters_at(node.applied - 1)
        stored = StoredSnapshot(
            node.fold.encode(), kraft_version, None if voters is None else voters.to_record().encode(0)
        )
        snapshot_id: SnapshotId = node.log.store_snapshot(node.applied, stored)
        self.watch.seen["snapshot"] += 1
        self.handle(node, lambda core: core.on_snapshot(snapshot_id, self.now_ms))

    def ask(self, node: Node, request: Request) -> None:
        """As a client would; the answer goes to `answers`."""
        token = self._new_token()
        self.handle(node, lambda core: core.on_request(token, request, self.now_ms))

    def change_voters(self, node: Node) -> None:
        """Add somebody who does not vote, or remove somebody who does."""
        core = node.core
        if core is None:
            return
        outside = [other for other in self.nodes.values() if not core.voters.has(other.key)]
        if outside and (len(core.voters) <= 2 or self.random.random() < 0.6):
            other = self.random.choice(outside)
            self.ask(node, AddVoterRequest(other.key, endpoints(other.key.id), 3000, self.random.random() < 0.5))
        elif len(core.voters) > 2:
            self.ask(node, RemoveVoterRequest(self.random.choice(core.voters.nodes).key))

    def misfortune(self) -> None:
        """One step of what may go wrong, and of what is meant to happen."""
        draw = self.random.random
        for node in list(self.nodes.values()):
            if draw() < self.faults.crash / 10 and node.is_up:
                self.crash(node)
                self.at(self.random.randint(1, self.faults.restart_ms_max), partial(self._restart, node))
            if draw() < self.faults.wipe / 10 and node.is_up and self._may_be_wiped(node):
                self.wipe(node)
                self.at(self.random.randint(1, 2000), partial(self._restart, node))
            if draw() < self.faults.snapshot / 10:
                self.snapshot(node)
            if draw() < 0.5:
                self.append(node)
        if draw() < self.faults.partition:
            ids = sorted(self.nodes)
            pairs = [frozenset((a, b)) for a in ids for b in ids if a < b]
            blocked = {pair for pair in pairs if draw() < 0.4}
            self._blocked = blocked
            self.at(self.random.randint(500, 6000), lambda: self._blocked.difference_update(blocked))
        if draw() < self.faults.change_voters / 10:
            for leader in self.leaders():
                self.change_voters(leader)

    def _may_be_wiped(self, node: Node) -> bool:
        """A disk may be lost while everybody else is fine: Raft survives a minority."""
        leaders = self.leaders()
        return (
            len(leaders) == 1
            and leaders[0] is not node
            and all(other.is_up and other.high_watermark >= len(self.watch.committed) for other in self.nodes.values())
            and len(leaders[0].core.voters if leaders[0].core else ()) >= 3
            and all(
                any(voter.key == other.key for other in self.nodes.values())
                for voter in (leaders[0].core.voters if leaders[0].core else ())
            )
        )

    def _restart(self, node: Node) -> None:
        if not node.is_up:
            self.start(node)

    def live_badly(self, duration_ms: int) -> None:
        end_ms = self.now_ms + duration_ms
        while self.now_ms < end_ms:
            self.run(100)
            self.misfortune()

    def recover(self, within_ms: int) -> None:
        """No more faults: within some time everybody follows one leader, and something new is committed."""
        self._is_faulty = False
        self._blocked.clear()
        self.faults = replace(self.faults, gone=1.0)
        for node in self.nodes.values():
            self._restart(node)
        if not self.run(within_ms, self._is_settled):
            raise Broken("the quorum does not recover: " + "; ".join(self.trace[-12:]) + self._dump())
        committed = len(self.watch.committed)
        self.append(self.leaders()[0])
        if not self.run(within_ms, lambda: all(node.high_watermark > committed for node in self.nodes.values())):
            raise Broken("nothing new is committed" + self._dump())

    def _is_settled(self) -> bool:
        leaders = self.leaders()
        if len(leaders) != 1:
            return False
        core = leaders[0].core
        assert core is not None, "leaders are up"
        return (
            isinstance(core.state, Leader)
            and core.is_voter
            and core.state.high_watermark is not None
            and all(node.core is not None and node.core.leader_id == core.key.id for node in self.nodes.values())
        )

    def _dump(self) -> str:
        return "".join(
            f"\n  {node.key.id}: {(node.core.state, node.core.epoch, node.core.voters) if node.core else None} "
            f"log=[{node.log.start_offset},{node.log.end_offset}) hw={node.high_watermark}"
            for node in self.nodes.values()
        )


def endpoints(node_id: int) -> tuple[Endpoint, ...]:
    return (Endpoint(LISTENER, f"n{node_id}", 1),)


SWARM: tuple[Faults, ...] = (
    Faults(),
    Faults(drop=0.0, repeat=0.0, late=0.0, crash=0.5, cut_effects=1.0, partition=0.0),
    Faults(drop=0.2, repeat=0.2, late=0.2, crash=0.0, partition=0.2, change_voters=0.0),
    Faults(crash=0.3, partition=0.3, snapshot=1.0, change_voters=0.5),
    Faults(crash=0.05, partition=0.1, change_voters=2.0, snapshot=0.1),
    Faults(crash=0.3, restart_ms_max=60, election_timeout_ms=20, fetch_timeout_ms=100, crash_after_vote=0.4, late=0.1),
    Faults(
        crash=0.5, restart_ms_max=300, election_timeout_ms=60, fetch_timeout_ms=200, change_voters=4.0, partition=0.3
    ),
    Faults(late=0.5, crash=0.05, restart_ms_max=100, election_timeout_ms=30, fetch_timeout_ms=100, change_voters=0.0),
    Faults(crash=0.02, drop=0.01, late=0.01, partition=0.01, change_voters=8.0),
    Faults(crash=3.0, restart_ms_max=30, election_timeout_ms=30, fetch_timeout_ms=120, crash_after_vote=0.4, late=0.0),
    Faults(slow_disk=0.6, crash=0.4, partition=0.0, snapshot=0.0, change_voters=0.0),
    Faults(wipe=2.0, crash=0.05, drop=0.02, late=0.02, partition=0.02, change_voters=0.0),
)
"""Each seed draws one: rare things happen more often when others are left out."""


def run_seed(seed: int, duration_ms: int = 30_000) -> Simulation:
    """One simulated life. Raises Broken."""
    draw = random.Random(seed)
    simulation = Simulation(
        seed, voters=draw.choice((1, 2, 3, 3, 3, 4, 5)), observers=draw.randint(0, 2), faults=draw.choice(SWARM)
    )
    simulation.live_badly(duration_ms)
    simulation.recover(60_000)
    return simulation


def is_change_done(response: Response) -> bool:
    return isinstance(response, VoterChangeResponse) and response.answer.error is ErrorCode.NONE
