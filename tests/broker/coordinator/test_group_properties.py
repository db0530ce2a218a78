"""Whatever members do, in whatever order: the invariants 54 to 60 of consumer groups hold.

Two machines. `AnySequence` throws requests at a shard, sensible or not, and checks that folding its log, compacted or
not, gives its state. `WellBehaved` runs members that follow the protocol, with crashes, pauses, lost answers and
failovers, and checks what an application relies on: one owner per partition and generation, no commit from an old
generation, and a stable group soon after the faults stop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from streamlog.broker.coordinator.group.group_shard import GroupShard
from streamlog.broker.coordinator.group.limits import GroupLimits
from streamlog.broker.coordinator.group.records import GroupStored, OffsetCommitted
from streamlog.broker.coordinator.group.state import GroupState
from streamlog.broker.coordinator.shard import Token
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from streamlog.wire.messages.join_group import JoinGroupResponse
from streamlog.wire.messages.sync_group import SyncGroupResponse
from tests.broker.coordinator.bench import GROUP, REBALANCE_MS, SESSION_MS, TOPIC, Bench, replay, subscription

GROUPS = st.sampled_from(["g", "h"])
INSTANCES = st.sampled_from([None, None, "one", "two"])
PROTOCOLS = st.sampled_from(
    [
        {"range": subscription(TOPIC)},
        {"range": subscription(TOPIC), "sticky": subscription(TOPIC)},
        {"sticky": subscription("other"), "range": subscription("other")},
        {"odd": b""},
    ]
)
PARTITIONS = 4


def durable(shard: GroupShard) -> tuple[object, ...]:
    """Everything that the log is responsible for."""
    table = shard.table
    return table.stored, table.offsets.committed, table.offsets.pending


def check_fold(bench: Bench) -> None:
    """Folding the log, compacted or not, gives the live state."""
    for compacted in (False, True):
        folded = replay(bench.log, bench.limits, bench.draw_uuid, compacted=compacted)
        assert durable(folded) == durable(bench.shard)
        folded.on_loaded(bench.now)
        folded.table.check()
        assert set(folded.table.groups) <= set(bench.shard.table.groups)
        for group_id, group in folded.table.groups.items():
            live = bench.shard.table.groups[group_id]
            if live.is_in(GroupState.STABLE, GroupState.EMPTY):
                assert group.state is live.state
                assert group.generation_id == live.generation_id
                assert set(group.members) == set(live.members)


class AnySequence(RuleBasedStateMachine):
    """Requests with ids and generations drawn from what was ever seen, or from nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(
            GroupLimits(
                group_initial_rebalance_delay_ms=3_000,
                group_max_size=3,
                offsets_retention_ms=120_000,
                offsets_retention_check_interval_ms=40_000,
            )
        )
        self.ids = ["", "stranger"]

    @rule(group=GROUPS, pick=st.integers(0), instance=INSTANCES, protocols=PROTOCOLS, version=st.integers(0, 9))
    def join(self, group: str, pick: int, instance: str | None, protocols: dict[str, bytes], version: int) -> None:
        member_id = self.ids[pick % len(self.ids)]
        if version < 5:
            instance = None
        token = self.bench.join(
            member_id, group_id=group, instance=instance, protocols=protocols, api_version=version, rebalance_ms=20_000
        )
        response = self.bench.replies.get(token)
        if isinstance(response, JoinGroupResponse):
            response.encode(version)
        for live in self.bench.shard.table.groups.values():
            for known in (*live.members, *live.pending_member_ids):
                if known not in self.ids:
                    self.ids.append(known)

    @rule(group=GROUPS, pick=st.integers(0), back=st.integers(0, 1), instance=INSTANCES, leads=st.booleans())
    def sync(self, group: str, pick: int, back: int, instance: str | None, leads: bool) -> None:
        live = self.bench.shard.table.groups.get(group)
        member_id = self.ids[pick % len(self.ids)]
        if live is not None and leads:
            member_id = live.leader_id or member_id
        generation = (live.generation_id if live is not None else 0) - back
        protocol = live.protocol_name if live is not None else None
        given = {one: one.encode() for one in live.members} if live is not None else {}
        self.bench.sync(
            member_id, generation, given, group_id=group, instance=instance, protocol_name=protocol or "range"
        )

    @rule(group=GROUPS, pick=st.integers(0), back=st.integers(0, 1))
    def heartbeat(self, group: str, pick: int, back: int) -> None:
        live = self.bench.shard.table.groups.get(group)
        generation = (live.generation_id if live is not None else 0) - back
        self.bench.heartbeat(self.ids[pick % len(self.ids)], generation, group_id=group)

    @rule(group=GROUPS, pick=st.integers(0))
    def leave(self, group: str, pick: int) -> None:
        self.bench.leave(self.ids[pick % len(self.ids)], group_id=group)

    @rule(group=GROUPS, pick=st.integers(0), back=st.integers(0, 1), outside=st.booleans(), partition=st.integers(0, 2))
    def commit(self, group: str, pick: int, back: int, outside: bool, partition: int) -> None:
        live = self.bench.shard.table.groups.get(group)
        generation = (live.generation_id if live is not None else 0) - back
        self.bench.commit(
            self.bench.mono_ms,
            group_id=group,
            member_id="" if outside else self.ids[pick % len(self.ids)],
            generation_id=-1 if outside else generation,
            partition=partition,
        )

    @rule(group=GROUPS, partition=st.integers(0, 2))
    def delete_offset(self, group: str, partition: int) -> None:
        self.bench.delete_offset(group_id=group, partition=partition)

    @rule(group=GROUPS)
    def delete_group(self, group: str) -> None:
        self.bench.delete_group(group)

    @rule(group=GROUPS)
    def look(self, group: str) -> None:
        self.bench.describe(group)
        self.bench.fetch_all(group)

    @rule(duration_ms=st.sampled_from([0, 1_000, 3_000, SESSION_MS, 20_000, 70_000]))
    def wait(self, duration_ms: int) -> None:
        self.bench.wait(duration_ms)

    @rule(compacted=st.booleans())
    def fail_over(self, compacted: bool) -> None:
        self.bench.restart(compacted=compacted)

    @invariant()
    def folding_the_log_gives_the_live_state(self) -> None:
        check_fold(self.bench)

    @invariant()
    def generations_only_grow(self) -> None:
        last: dict[str, int] = {}
        for applied in self.bench.log:
            record = applied.record
            if isinstance(record, GroupStored):
                assert record.generation_id >= last.get(record.group_id, 0) or record.generation_id == 0
                last[record.group_id] = record.generation_id

    @invariant()
    def nobody_is_parked_for_ever(self) -> None:
        """Every parked request has a deadline that will answer it."""
        table = self.bench.shard.table
        for group in table.groups.values():
            if group.awaiting_join or group.awaiting_sync:
                assert table.deadlines.next_ms() is not None
                assert group.state in (GroupState.PREPARING_REBALANCE, GroupState.COMPLETING_REBALANCE)


@dataclass
class Client:
    """A member that follows the protocol. Its view may be old; its network may lose answers."""

    name: str
    instance: str | None
    member_id: str = ""
    generation: int = -1
    owned: tuple[int, ...] = ()
    token: Token | None = None
    """The JoinGroup or SyncGroup it waits for."""
    must_join: bool = True
    joined: JoinGroupResponse | None = None
    is_paused: bool = False
    committed: list[tuple[int, int]] = field(default_factory=list)


class WellBehaved(RuleBasedStateMachine):
    """Up to four consumers of four partitions, eager protocol, with a hostile environment."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(GroupLimits(group_initial_rebalance_delay_ms=0))
        self.clients = [
            Client("a", None),
            Client("b", None),
            Client("c", "static-c"),
            Client("d", "static-d"),
        ]
        self.position = 0

    # What one client does next, when it is its turn.

    def step(self, client: Client) -> None:
        if client.is_paused:
            return
        if client.token is not None:
            self.receive(client)
        elif client.must_join:
            client.token = self.bench.join(client.member_id, instance=client.instance)
            client.joined = None
        elif client.joined is not None:
            given = {}
            if client.joined.leader == client.joined.member_id and not client.joined.skip_assignment:
                members = sorted(member.member_id for member in client.joined.members)
                shares: dict[str, list[int]] = {member: [] for member in members}
                for partition in range(PARTITIONS):
                    shares[members[partition % len(members)]].append(partition)
                given = {member: bytes(share) for member, share in shares.items()}
            client.token = self.bench.sync(client.member_id, client.generation, given, instance=client.instance)
        else:
            self.beat(client)

    def receive(self, client: Client) -> None:
        assert client.token is not None
        response = self.bench.replies.get(client.token)
        if response is None:
            return
        client.token = None
        if isinstance(response, JoinGroupResponse):
            self.on_join(client, response)
        else:
            assert isinstance(response, SyncGroupResponse)
            if response.error_code == ErrorCode.NONE:
                client.owned, client.joined = tuple(response.assignment), None
            else:
                self.rejoin(client, ErrorCode(response.error_code))

    def on_join(self, client: Client, response: JoinGroupResponse) -> None:
        if response.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            client.member_id = response.member_id
        elif response.error_code == ErrorCode.NONE:
            client.member_id, client.generation = response.member_id, response.generation_id
            client.must_join, client.joined = False, response
            client.owned = ()
        else:
            self.rejoin(client, ErrorCode(response.error_code))

    def rejoin(self, client: Client, code: ErrorCode) -> None:
        client.must_join, client.joined, client.owned = True, None, ()
        if code in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
            client.member_id = ""

    def beat(self, client: Client) -> None:
        request = HeartbeatRequest(
            group_id=GROUP,
            generation_id=client.generation,
            member_id=client.member_id,
            group_instance_id=client.instance,
        )
        code = ErrorCode(self.bench.reply(self.bench.ask(request, 4), HeartbeatResponse).error_code)
        if code is not ErrorCode.NONE:
            self.rejoin(client, code)

    # What happens.

    @rule(order=st.permutations(range(4)), rounds=st.integers(1, 4))
    def everybody_acts(self, order: list[int], rounds: int) -> None:
        for _ in range(rounds):
            for number in order:
                self.step(self.clients[number])

    @rule(number=st.integers(0, 3))
    def one_acts(self, number: int) -> None:
        self.step(self.clients[number])

    @rule(number=st.integers(0, 3))
    def restart_process(self, number: int) -> None:
        """kill -9: it forgets everything but its instance id."""
        old = self.clients[number]
        self.clients[number] = Client(old.name, old.instance)

    @rule(number=st.integers(0, 3), paused=st.booleans())
    def pause(self, number: int, paused: bool) -> None:
        """SIGSTOP and SIGCONT: a paused client believes what it believed."""
        self.clients[number].is_paused = paused

    @rule(number=st.integers(0, 3))
    def lose_the_answer(self, number: int) -> None:
        """The connection broke; the client asks again."""
        client = self.clients[number]
        if client.token is not None:
            client.token = None

    @rule(number=st.integers(0, 3))
    def leave(self, number: int) -> None:
        client = self.clients[number]
        if client.member_id and not client.is_paused and client.instance is None:
            self.bench.leave(client.member_id)
            self.clients[number] = Client(client.name, client.instance)

    @rule(number=st.integers(0, 3))
    def commit(self, number: int) -> None:
        """Also by a client that was paused and believes in an old generation."""
        client = self.clients[number]
        if not client.owned:
            return
        group = self.bench.shard.table.groups[GROUP]
        before = len(self.bench.log)
        self.position += 1
        code = self.bench.commit(
            self.position,
            member_id=client.member_id,
            generation_id=client.generation,
            instance=client.instance,
            partition=client.owned[0],
        )
        if client.generation != group.generation_id or client.member_id not in group.members:
            assert code is not ErrorCode.NONE, "a commit of an old generation was accepted"
        applied = [a.record for a in self.bench.log[before:]]
        if code is ErrorCode.NONE:
            (record,) = applied
            assert isinstance(record, OffsetCommitted)
            assert self.bench.fetch(partition=client.owned[0]) == self.position
        else:
            assert applied == [], "a refused commit was written"

    @rule(duration_ms=st.sampled_from([0, 1_000, SESSION_MS // 2, SESSION_MS, REBALANCE_MS]))
    def wait(self, duration_ms: int) -> None:
        self.bench.wait(duration_ms)

    @rule(compacted=st.booleans())
    def fail_over(self, compacted: bool) -> None:
        self.bench.restart(compacted=compacted)
        for client in self.clients:
            if client.token is not None and client.token not in self.bench.replies:
                client.token = None  # the old coordinator's connections are gone

    @rule()
    def heal(self) -> None:
        """The faults stop: the group is stable in bounded time, everything is owned, nobody is left over."""
        for client in self.clients:
            client.is_paused = False
        for _ in range(200):
            for client in self.clients:
                self.step(client)
            self.bench.wait(1_000)
            if self.is_converged():
                break
        assert self.is_converged(), "the group did not converge"

    def is_converged(self) -> bool:
        group = self.bench.shard.table.groups.get(GROUP)
        if group is None or group.state is not GroupState.STABLE:
            return False
        settled = all(
            client.generation == group.generation_id and not client.must_join and client.joined is None
            for client in self.clients
        )
        owned = sorted(partition for client in self.clients for partition in client.owned)
        return (
            settled
            and owned == list(range(PARTITIONS))
            and set(group.members) == {client.member_id for client in self.clients}
        )

    @invariant()
    def folding_the_log_gives_the_live_state(self) -> None:
        check_fold(self.bench)

    @invariant()
    def a_partition_has_one_owner_per_generation(self) -> None:
        owners: dict[tuple[int, int], str] = {}
        for client in self.clients:
            for partition in client.owned:
                key = (client.generation, partition)
                assert key not in owners, f"{partition} is owned by {owners.get(key)} and {client.name}"
                owners[key] = client.name


STEPS = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
AnySequence.TestCase.settings = STEPS
WellBehaved.TestCase.settings = STEPS
TestAnySequence = AnySequence.TestCase
TestWellBehaved = WellBehaved.TestCase
