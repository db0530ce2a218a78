"""Everything that a run is made from, as a value; and how a seed draws one.

The swarm rule: a seed does not take part in everything. It draws a subset of the features and a subset of the faults,
and knobs far from what anybody would configure, because a run with a bit of everything is always the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final, Literal, TypeAlias

from streamlog.broker.log.config import LogConfig
from streamlog.testing.simulator.disk import Names
from streamlog.testing.simulator.nemesis import Fault
from streamlog.testing.simulator.network import NetworkKnobs

Turns: TypeAlias = Literal["in turn", "random", "priorities"]

Shape: TypeAlias = Literal["broker", "quorum", "cluster"]

Size: TypeAlias = Literal["short", "usual", "long"]

BROKER: Final = "broker"

QUIET_MS: Final = 1_000
"""Nothing goes wrong before this: the topics are made."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much happens in runs of a size."""

    safety_ms: tuple[int, ...]
    cluster_safety_ms: tuple[int, ...]
    """A cluster is there after one second or two."""
    sends: tuple[int, ...]
    cluster_sends: tuple[int, ...]
    kinds: tuple[int, ...]
    """How many kinds of faults a run draws from."""
    quorum_kinds: tuple[int, ...]
    faults_max: int
    quorum_faults_max: int


SCALES: Final[dict[Size, Scale]] = {
    "short": Scale((1_500, 2_500, 4_000), (4_000, 6_000), (5, 10, 30), (5, 15), (1, 1, 2, 3), (1, 2, 3, 5), 5, 8),
    "usual": Scale(
        (6_000, 10_000, 15_000, 25_000),
        (6_000, 10_000, 15_000),
        (20, 60, 200),
        (20, 60),
        (0, 1, 1, 2, 3, 3, 5, 7),
        (0, 1, 2, 3, 5, 7),
        12,
        24,
    ),
    "long": Scale(
        (150_000, 300_000), (120_000, 240_000), (400, 1_200, 4_000), (400, 1_200), (2, 5, 12), (3, 7, 15), 240, 480
    ),
}
"""Short runs are many: most bugs need few faults, close to each other. In a long one much has happened before the next
thing does: many segments, epochs, snapshots, restarts, producers."""


@dataclass(frozen=True, slots=True)
class Setup:
    """One run. Two runs of equal setups are equal."""

    seed: int
    shape: Shape = "broker"
    """What runs: one broker with clients, the controllers of a quorum, or nodes that are both, with clients."""
    size: Size = "usual"
    """Which scale it was drawn from. Says only how to draw it again."""
    nodes: int = 1
    static_voters: bool = False
    """Whether settings name the voters of the quorum; else its log does."""
    watchful: bool = False
    """Whether invariants are checked after every callback."""
    safety_ms: int = 15_000
    """How long faults may happen."""
    turns: Turns = "random"
    threads_in_steps: bool = False
    """Whether the loop goes on between two operations of a thread."""
    names: Names = Names.JOURNAL
    network: NetworkKnobs = field(default_factory=NetworkKnobs)
    broker: Mapping[str, str] = field(default_factory=dict)
    """Settings of the broker."""
    topic: Mapping[str, str] = field(default_factory=dict)
    """Configs of the topic that producers write to."""
    partitions: int = 2
    producers: int = 1
    consumers: int = 1
    """Members of the group."""
    readers: int = 1
    """Consumers on their own."""
    restarts_one_in: int = 0
    """A producer ends after one burst in so many, to start again with a session of its own; 0: never."""
    dawdles_one_in: int = 0
    """A member thinks about one reading in so many before it commits; 0: never."""
    leaves_one_in: int = 0
    """A member leaves the group, to come again, after one reading in so many; 0: never."""
    repeats: bool = False
    """Whether somebody sends acknowledged batches again."""
    compacted: bool = False
    """Whether there is a compacted topic too."""
    churn: bool = False
    """Whether topics come and go."""
    trims: bool = False
    """Whether somebody deletes the oldest records."""
    moves: bool = False
    """Whether somebody moves partitions between the nodes of a cluster."""
    linger_ms: int = 0
    batch_size_bytes: int = 16_384
    value_bytes: int = 20
    sends: int = 100
    """Of each producer, about, spread over the safety phase."""
    delivery_timeout_ms: int = 30_000
    request_timeout_ms: int = 2_000
    patience_ms: int = 60_000
    """How long a member of the group asks again before it gives up."""
    session_timeout_ms: int = 6_000
    faults: tuple[Fault, ...] = ()

    @property
    def expires(self) -> bool:
        """Whether old records are deleted: clocks that are set forward by days make them old."""
        return "retention.ms" in self.topic or self._clocks_differ_ms >= LogConfig().retention_ms

    @property
    def _clocks_differ_ms(self) -> int:
        """At most, between the one that says how old a record is and the one that wrote it."""
        ahead: dict[str, int] = {}
        behind = 0
        for fault in self.faults:
            if fault.kind == "clock_jump":
                ahead[fault.on] = ahead.get(fault.on, 0) + max(fault.amount, 0)
                behind += max(-fault.amount, 0)
        return max(ahead.values(), default=0) + behind

    @property
    def replicas(self) -> int:
        """Of each partition."""
        return min(self.nodes, 3)

    @property
    def doubtful(self) -> frozenset[str]:
        """Machines whose disks may lose what is not synced."""
        return self._targets(LOSING)

    def _targets(self, kinds: Sequence[str]) -> frozenset[str]:
        return frozenset(name for fault in self.faults if fault.kind in kinds for name in fault.on.split("+"))

    @property
    def forgets(self) -> bool:
        """Whether acknowledged records may be lost: nobody promised to sync them, and the power goes.

        With several replicas: the disks of one node may lose what they like, if the other nodes are not killed; what
        is acknowledged only when it is synced is lost only when disks fail.
        """
        if self.shape == "cluster":
            return self._may_lose(DISK_ERRORS if self.topic.get("streamlog.flush") == "before-ack" else LOSING)
        return self.topic.get("streamlog.flush") == "os" and any(
            fault.kind.startswith("power") or fault.kind in ("stop_dark", "sync_fails", "write_fails")
            for fault in self.faults
        )

    @property
    def forgets_groups(self) -> bool:
        """Whether groups and their offsets may be lost: a replicated topic is not synced before it acknowledges."""
        return self.shape == "cluster" and self._may_lose(LOSING)

    def _may_lose(self, losing: tuple[str, ...]) -> bool:
        """Whether these faults on disks can take the last copy of something."""
        victims, killed = self._targets(losing), self._targets(KILLS)
        return bool(victims) and (len(victims) > 1 or not killed <= victims)


SHAPES: Final[tuple[Shape, ...]] = ("broker", "broker", "broker", "quorum", "broker", "cluster")
"""In turn."""


def draw(seed: int, shape: Shape | None = None, size: Size = "usual") -> Setup:
    """The run of a seed; `shape`: the one that this seed would give if it were of that shape."""
    shape = shape or SHAPES[seed % len(SHAPES)]
    setup = replace(_DRAW[shape](seed, size), threads_in_steps=Random(f"{seed}/threads").random() < 0.3)
    return _with_operators(setup) if shape == "cluster" else setup


def _with_operators(setup: Setup) -> Setup:
    """People who change things in a cluster while it works."""
    random = Random(f"{setup.seed}/operators")
    return replace(
        setup,
        churn=random.random() < 0.2,
        compacted=random.random() < 0.2,
        moves=random.random() < 0.25,
        trims=random.random() < 0.25,
    )


def _draw_broker_run(seed: int, size: Size) -> Setup:
    random, scale = Random(f"{seed}/setup"), SCALES[size]
    setup = Setup(
        seed,
        size=size,
        watchful=random.random() < 0.05,
        safety_ms=random.choice(scale.safety_ms),
        turns=random.choice(("in turn", "random", "priorities")),
        names=random.choice((Names.JOURNAL, Names.JOURNAL, Names.PREFIX)),
        network=_draw_network(random),
        broker=_draw_broker(random),
        topic=_draw_topic(random),
        partitions=random.choice((1, 1, 2, 4)),
        producers=random.choice((1, 1, 2, 3)),
        consumers=random.choice((0, 1, 1, 2, 3)),
        readers=random.choice((0, 1)),
        repeats=random.random() < 0.4,
        restarts_one_in=random.choice((0, 0, 10)),
        patience_ms=random.choice((2_000, 60_000)),
        dawdles_one_in=random.choice((0, 0, 5)),
        leaves_one_in=random.choice((0, 0, 20)),
        compacted=random.random() < 0.4,
        churn=random.random() < 0.3,
        trims=random.random() < 0.25,
        linger_ms=random.choice((0, 0, 5, 50)),
        batch_size_bytes=random.choice((100, 1_000, 16_384, 131_072)),
        value_bytes=random.choice((20, 20, 200, 2_000)),
        sends=random.choice(scale.sends),
        delivery_timeout_ms=random.choice((3_000, 15_000, 60_000)),
        request_timeout_ms=random.choice((300, 1_000, 5_000)),
        session_timeout_ms=random.choice((6_000, 6_000, 10_000)),
    )
    return replace(setup, faults=_draw_faults(random, setup))


def _draw_quorum_run(seed: int, size: Size) -> Setup:
    random, scale = Random(f"{seed}/setup"), SCALES[size]
    election_ms = random.choice((300, 500, 1_000))
    setup = Setup(
        seed,
        shape="quorum",
        size=size,
        nodes=random.choice((1, 2, 3, 3, 3, 3, 5, 5)),
        static_voters=random.random() < 0.3,
        watchful=random.random() < 0.05,
        safety_ms=random.choice(scale.safety_ms),
        turns=random.choice(("in turn", "random", "priorities")),
        names=random.choice((Names.JOURNAL, Names.JOURNAL, Names.PREFIX)),
        network=_draw_network(random),
        broker={
            "controller.quorum.election.timeout.ms": str(election_ms),
            "controller.quorum.election.backoff.max.ms": str(random.choice((50, 300, 1_000))),
            "controller.quorum.fetch.timeout.ms": str(election_ms * random.choice((2, 3))),
            "controller.quorum.request.timeout.ms": str(random.choice((500, 2_000))),
            "metadata.log.max.record.bytes.between.snapshots": str(random.choice((500, 3_000, 20_971_520))),
        },
        value_bytes=random.choice((0, 20, 500)),
        sends=random.choice(scale.sends),
    )
    return replace(setup, faults=_draw_quorum_faults(random, setup))


def _draw_quorum_faults(random: Random, setup: Setup) -> tuple[Fault, ...]:
    scale = SCALES[setup.size]
    kinds = random.sample(QUORUM_MENU, random.choice(scale.quorum_kinds))
    names = [f"node{number}" for number in range(1, setup.nodes + 1)]
    faults: list[Fault] = []
    for _ in range(random.randrange(scale.quorum_faults_max) + 1 if kinds else 0):
        kind = random.choice(kinds)
        on = random.choice(names)
        if kind == "link" and len(names) > 1:
            on = "+".join(random.sample(names, 2))
        elif kind in ON_GROUPS and random.random() < 0.4:
            on = "+".join(sorted(random.sample(names, 1 + random.randrange(len(names)))))
        elif kind == "link":
            continue
        at_ms = QUIET_MS + random.randrange(setup.safety_ms - QUIET_MS)
        faults.append(_draw_fault(random, kind, on, at_ms))
        if kind in CRASH_POINTS and random.random() < 0.5:
            faults.append(Fault(at_ms + 600, kind, on, 0, 1 + random.randrange(40)))
    return tuple(sorted(faults, key=lambda fault: fault.at_ms))


def _draw_network(random: Random) -> NetworkKnobs:
    return NetworkKnobs(
        latency_ns=random.choice((20_000, 200_000, 2_000_000)),
        jitter_ns=random.choice((0, 200_000, 5_000_000)),
        slow_one_in=random.choice((20, 100, 1_000)),
        window_bytes=random.choice((4_096, 65_536, 1 << 20)),
        segment_bytes=random.choice((1_460, 65_536)),
        split_one_in=random.choice((2, 10, 1_000)),
    )


def _draw_broker(random: Random) -> dict[str, str]:
    return {
        "offsets.topic.num.partitions": str(random.choice((1, 2, 5))),
        "group.initial.rebalance.delay.ms": str(random.choice((0, 0, 500))),
        "log.flush.offset.checkpoint.interval.ms": str(random.choice((200, 1_000, 5_000, 60_000))),
        "log.cleaner.backoff.ms": str(random.choice((100, 1_000, 15_000))),
        "log.retention.check.interval.ms": str(random.choice((500, 5_000, 300_000))),
        "metadata.log.max.record.bytes.between.snapshots": str(random.choice((500, 3_000, 20_971_520))),
        "max.incremental.fetch.session.cache.slots": str(random.choice((0, 1, 1_000))),
    }


def _draw_topic(random: Random) -> dict[str, str]:
    configs = {"index.interval.bytes": str(random.choice((0, 100, 4_096)))}
    if random.random() < 0.6:
        configs["segment.ms"] = str(random.choice((50, 300, 2_000)))
    if random.random() < 0.3:  # a full index closes a segment, after a few batches
        configs["segment.index.bytes"] = str(random.choice((8, 16, 80)))
    if random.random() < 0.2:
        configs["streamlog.flush"] = "os"
    if random.random() < 0.1:
        configs["retention.ms"] = str(random.choice((1_000, 5_000)))
    if random.random() < 0.15:
        configs["message.timestamp.type"] = "LogAppendTime"
    if random.random() < 0.2:
        configs["compression.type"] = random.choice(("gzip", "lz4", "zstd", "snappy"))
    return configs


MENU: Final = (
    "kill", "power", "kill_in", "power_in", "power_at_sync", "spoil", "spoil", "stop", "stop_dark", "pause", "cut",
    "cut_to", "cut_from", "reset", "slow_disk", "sync_fails", "sync_fails", "write_fails", "disk_full", "disk_full",
    "clock_jump", "drift", "slow_node",
)  # fmt: skip
"""What is here twice is drawn twice as often."""

DISK_ERRORS: Final = ("sync_fails", "write_fails")

CRASH_POINTS: Final = ("kill_in", "power_in", "power_at_sync")

POWER: Final = ("power", "power_in", "power_at_sync", "stop_dark")

LOSING: Final = (*POWER, *DISK_ERRORS)
"""After these a disk lacks what was not synced."""

KILLS: Final = ("kill", "kill_in", "spoil", *POWER)
"""After these a broker has not stopped cleanly."""

QUORUM_MENU: Final = (
    "kill", "power", "kill_in", "power_in", "power_at_sync", "stop", "stop_dark", "pause", "cut", "cut_to",
    "cut_from", "link", "link", "reset", "slow_disk", "sync_fails", "write_fails", "disk_full", "clock_jump", "drift",
    "slow_node",
)  # fmt: skip

ON_GROUPS: Final = frozenset({"kill", "power", "cut", "cut_to", "cut_from"})
"""Faults that happen to several machines at once."""

ON_CLIENTS: Final = frozenset(
    {"kill", "pause", "cut", "cut_to", "cut_from", "reset", "clock_jump", "drift", "slow_node"}
)
"""Faults that clients have too; the others are about disks."""


def _draw_faults(random: Random, setup: Setup) -> tuple[Fault, ...]:
    scale = SCALES[setup.size]
    kinds = random.sample(MENU, random.choice(scale.kinds))
    if not kinds:
        return ()
    clients = [f"producer{number}" for number in range(setup.producers)]
    clients += [f"consumer{number}" for number in range(setup.consumers)]
    faults: list[Fault] = []
    for _ in range(1 + random.randrange(scale.faults_max)):
        kind = random.choice(kinds)
        links = kind in ("cut", "cut_to", "cut_from")
        on = random.choice(clients) if links or (kind in ON_CLIENTS and random.random() < 0.4) else BROKER
        faults.append(_draw_fault(random, kind, on, QUIET_MS + random.randrange(setup.safety_ms - QUIET_MS)))
        at_ms = faults[-1].at_ms
        if kind in CRASH_POINTS and random.random() < 0.5:  # and again, while it recovers
            faults.append(Fault(at_ms + 600, kind, on, 0, 1 + random.randrange(40)))
        elif (
            kind in DISK_ERRORS and random.random() < 0.7
        ):  # a restart finds what the cache made of it, then the power goes
            faults.append(Fault(at_ms + random.choice((1, 50, 400)), random.choice(("kill", "stop", "power")), on, 50))
            faults.append(Fault(at_ms + random.choice((700, 1_500, 4_000)), "power", on, 50))
    return tuple(sorted(faults, key=lambda fault: fault.at_ms))


def _draw_fault(random: Random, kind: str, on: str, at_ms: int) -> Fault:
    for_ms, amount = random.choice((50, 300, 1_000, 4_000)), 0
    if kind == "power_at_sync":
        amount = 1 + random.randrange(random.choice((3, 20)))
    elif kind in CRASH_POINTS:
        amount = 1 + random.randrange(random.choice((5, 50, 300)))
    elif kind == "spoil":
        amount = random.choice((1, 5, 1_000))
    elif kind == "disk_full":
        amount = random.choice((1, 100, 3_000))
    elif kind == "slow_disk":
        amount = random.choice((10, 100, 1_000))
    elif kind in ("sync_fails", "write_fails", "read_fails"):
        amount = random.choice((1, 1, 20))
    elif kind == "clock_jump":
        amount = random.choice((-60_000, -500, 500, 60_000, 3_600_000, 86_400_000))
    elif kind == "drift":
        amount = random.choice((-100_000, -500, 500, 100_000))
    elif kind == "slow_node":
        amount = random.choice((10, 100))
    elif kind == "pause":
        for_ms = random.choice((100, 1_000, 8_000, 15_000))
    return Fault(at_ms, kind, on, for_ms, amount)


def _draw_cluster_run(seed: int, size: Size) -> Setup:
    random, scale = Random(f"{seed}/setup"), SCALES[size]
    election_ms = random.choice((300, 1_000))
    topic = _draw_topic(random)
    topic["min.insync.replicas"] = "2"
    topic["streamlog.flush"] = random.choice(("os", "before-ack"))
    topic.pop("retention.ms", None)
    setup = Setup(
        seed,
        shape="cluster",
        size=size,
        nodes=random.choice((3, 3, 3, 4)),
        watchful=random.random() < 0.02,
        safety_ms=random.choice(scale.cluster_safety_ms),
        turns=random.choice(("in turn", "random", "priorities")),
        names=random.choice((Names.JOURNAL, Names.PREFIX)),
        network=_draw_network(random),
        broker=_draw_broker(random)
        | {
            "controller.quorum.election.timeout.ms": str(election_ms),
            "controller.quorum.fetch.timeout.ms": str(election_ms * 2),
            "offsets.topic.replication.factor": "3",
            "min.insync.replicas": "2",  # of the offsets topic too, or one node alone has what groups were told
            "replica.lag.time.max.ms": str(random.choice((1_000, 3_000, 30_000))),
            "broker.session.timeout.ms": str(random.choice((1_000, 3_000))),
            "broker.heartbeat.interval.ms": "300",
        },
        topic=topic,
        partitions=random.choice((1, 2)),
        producers=random.choice((1, 2)),
        consumers=random.choice((0, 1, 2)),
        readers=random.choice((0, 1)),
        repeats=random.random() < 0.4,
        restarts_one_in=random.choice((0, 0, 10)),
        patience_ms=random.choice((2_000, 60_000)),
        dawdles_one_in=random.choice((0, 0, 5)),
        leaves_one_in=random.choice((0, 0, 20)),
        linger_ms=random.choice((0, 5)),
        batch_size_bytes=random.choice((100, 1_000, 16_384)),
        sends=random.choice(scale.cluster_sends),
        delivery_timeout_ms=random.choice((5_000, 30_000)),
        request_timeout_ms=random.choice((1_000, 3_000)),
    )
    return replace(setup, faults=_draw_cluster_faults(random, setup))


def _draw_cluster_faults(random: Random, setup: Setup) -> tuple[Fault, ...]:
    """As for a quorum; but mostly the disks of one node only lose something."""
    faults = _draw_quorum_faults(random, setup)
    victim = f"node{1 + random.randrange(setup.nodes)}"
    if random.random() < 0.8:
        faults = tuple(replace(one, on=victim) if one.kind in (*POWER, *DISK_ERRORS) else one for one in faults)
        if any(one.kind in (*POWER, *DISK_ERRORS) for one in faults):
            faults = tuple(replace(one, on=victim) if one.kind in KILLS else one for one in faults)
    return _with_a_loss_at_the_minimum(setup, faults, victim)


def _with_a_loss_at_the_minimum(setup: Setup, faults: tuple[Fault, ...], victim: str) -> tuple[Fault, ...]:
    """In some runs one node is away until it is out of sync, and then another loses what it had and is back at once:
    who is left is below min.insync.replicas, and who comes back must not count as complete."""
    random = Random(f"{setup.seed}/loss at the minimum")
    if random.random() >= 0.15:
        return faults
    away = random.choice([name for name in (f"node{1 + number}" for number in range(setup.nodes)) if name != victim])
    at_ms = 2 * QUIET_MS + random.randrange(max(setup.safety_ms - 4 * QUIET_MS, 1))
    session_ms = int(setup.broker["broker.session.timeout.ms"])
    both = (
        Fault(at_ms, "cut", away, session_ms + 4_000),
        Fault(at_ms + session_ms + random.choice((500, 1_500)), "power", victim, 50),
    )
    more = tuple(sorted((*faults, *both), key=lambda fault: fault.at_ms))
    return faults if replace(setup, faults=more).forgets_groups else more


_DRAW: Final[dict[Shape, Callable[[int, Size], Setup]]] = {
    "broker": _draw_broker_run,
    "quorum": _draw_quorum_run,
    "cluster": _draw_cluster_run,
}
