"""What an app will do, as a value: topics, lanes, tables, and who reads and writes what.

It holds names and numbers only, so two of them compare, print and fit into a bug report. It is made twice from the same
declarations: by `app.topology()`, when nobody has asked the log how many partitions anything has, and by a worker,
which has. `resolve` turns the first into the second and says what does not fit together.

The unit of work is the task: task p owns partition p of every topic that the app reads, and partition p of every table
that its agents write. So tables need no partitioning of their own: a table has as many partitions as the topics of its
writers, and a key of it lives where its events are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from streamlog.errors import UserError

TopicKind: TypeAlias = Literal["declared", "agent", "repartition", "changelog", "leader"]
TableKind: TypeAlias = Literal["table", "windowed", "set", "source", "global"]


@dataclass(frozen=True, slots=True)
class TopicNode:
    """One topic that the app reads, writes or keeps."""

    name: str
    kind: TopicKind
    key: str
    """Name of the keys' serde."""
    value: str
    partitions: int | None
    """As declared; after `resolve`, as it is or will be created."""
    like: tuple[str, ...] = ()
    """Topics whose partition count it takes on when it has none of its own."""
    configs: tuple[tuple[str, str], ...] = ()
    """What it is created with, sorted."""


@dataclass(frozen=True, slots=True)
class LaneNode:
    """One agent, or the half of an agent before a group_by."""

    name: str
    sources: tuple[str, ...]
    steps: tuple[str, ...]
    target: str | None
    """The topic it passes everything on to; None for an agent's own body."""
    sinks: tuple[str, ...]
    tables: tuple[str, ...]
    """Tables that its code mentions, or that it looks up."""
    concurrency: int
    on_error: str


@dataclass(frozen=True, slots=True)
class TableNode:
    """One table."""

    name: str
    kind: TableKind
    key: str
    value: str
    changelog: str
    """The topic it is a fold of."""
    partitions: int | None


@dataclass(frozen=True, slots=True)
class JoinNode:
    """A lookup in a table by the event's own key: both sides have to be partitioned alike."""

    lane: str
    table: str


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything an app declares, sorted by name within each kind."""

    app_id: str
    topics: tuple[TopicNode, ...]
    lanes: tuple[LaneNode, ...]
    tables: tuple[TableNode, ...]
    joins: tuple[JoinNode, ...] = ()
    timers: tuple[str, ...] = ()

    def topic(self, name: str) -> TopicNode:
        return next(node for node in self.topics if node.name == name)

    def table(self, name: str) -> TableNode:
        return next(node for node in self.tables if node.name == name)

    @property
    def consumed(self) -> tuple[str, ...]:
        """Names of the topics that tasks consume, sorted."""
        sources = {source for lane in self.lanes for source in lane.sources}
        sources |= {table.changelog for table in self.tables if table.kind == "source"}
        sources |= {node.name for node in self.topics if node.kind == "leader"}
        return tuple(sorted(sources))

    @property
    def task_count(self) -> int:
        """Tasks of a resolved topology: as many as the largest consumed topic has partitions."""
        return max((self.partitions(name) for name in self.consumed), default=0)

    def partitions(self, topic: str) -> int:
        """Partitions of a topic of a resolved topology."""
        count = self.topic(topic).partitions
        assert count is not None, f"{topic} has no partition count before resolve()"
        return count

    def table_partitions(self, table: str) -> int:
        """Partitions of a table of a resolved topology."""
        count = self.table(table).partitions
        assert count is not None, f"{table} has no partition count before resolve()"
        return count

    def standing_without(self, gone: Collection[str]) -> tuple[str, ...]:
        """Lanes that have nothing to read when these topics do not exist."""
        return tuple(lane.name for lane in self.lanes if all(source in gone for source in lane.sources))

    def held_without(self, gone: Collection[str]) -> str | None:
        """Why tasks cannot go on with their other topics when these do not exist, in a few words; None when they can.

        A task has one commit, so what its lanes read goes on together or not at all. It can go on without a topic that
        is only read. Where its lanes write to the topic, outputs have nowhere to go, and a commit waits for outputs.
        Where a table follows the topic, nobody knows what rows it should have.
        """
        for table in self.tables:
            if table.kind == "source" and table.changelog in gone:
                return f"table {table.name} follows it"
        channels = {lane.name: lane.sources for lane in self.lanes}  # a sink that is an agent is named by its agent
        for lane in self.lanes:
            outputs = {lane.target, *lane.sinks, *(topic for sink in lane.sinks for topic in channels.get(sink, ()))}
            if any(topic in outputs for topic in gone):
                return f"agent {lane.name} writes to it"
        return None

    def resolve(self, existing: Mapping[str, int], partitions_default: int) -> Topology:
        """The same topology with every partition count known.

        Args:   existing: partition counts of the topics that exist.
                partitions_default: of topics that have to be created and say nothing about it.
        Raises: UserError: the counts contradict the declarations or each other.
        """
        counts: dict[str, int] = {}
        for node in self.topics:
            if node.kind != "changelog":
                counts[node.name] = self._count(node, existing, partitions_default, ())
        tables = []
        for table in self.tables:
            tables.append(replace(table, partitions=self._table_count(table, counts, existing)))
            counts[table.changelog] = tables[-1].partitions or 1
        topics = tuple(replace(node, partitions=counts[node.name]) for node in self.topics)
        resolved = replace(self, topics=topics, tables=tuple(tables))
        resolved._check_joins()
        return resolved

    def _count(self, node: TopicNode, existing: Mapping[str, int], default: int, seen: tuple[str, ...]) -> int:
        wanted = node.partitions
        if wanted is None and node.like and node.name not in seen:
            wanted = max(self._count(self.topic(name), existing, default, (*seen, node.name)) for name in node.like)
        actual = existing.get(node.name)
        if actual is None:
            return default if wanted is None else wanted
        if wanted is not None and actual != wanted:
            raise UserError(_contradiction(node, actual, wanted))
        return actual

    def _table_count(self, table: TableNode, counts: Mapping[str, int], existing: Mapping[str, int]) -> int:
        if table.changelog in counts:  # it follows a topic
            return counts[table.changelog]
        actual = existing.get(table.changelog)
        if table.kind == "global":
            return actual or table.partitions or 1
        writers = {
            lane.name: max(counts[source] for source in lane.sources)
            for lane in self.lanes
            if table.name in lane.tables and lane.sources
        }
        if len(set(writers.values())) > 1:
            listing = ", ".join(f"{lane} has {count} partitions" for lane, count in sorted(writers.items()))
            raise UserError(
                f"table {table.name} is used by agents whose topics are partitioned differently ({listing}): a key "
                f"of it would "
                f"live in several places. Bring them to one count with group_by(..., partitions=) or through()"
            )
        wanted = table.partitions or next(iter(writers.values()), None)
        if writers and table.partitions is not None and wanted not in writers.values():
            raise UserError(
                f"table {table.name} is declared with partitions={table.partitions}, but the topics of its agents have "
                f"{next(iter(writers.values()))}: leave partitions= out, or repartition the stream"
            )
        if wanted is None:
            consumed = [counts[name] for name in self.consumed if name in counts]
            wanted = actual or max(consumed, default=1)
        if actual is not None and actual != wanted:
            raise UserError(_contradiction(self.topic(table.changelog), actual, wanted))
        return wanted

    def _check_joins(self) -> None:
        for join in self.joins:
            table = self.table(join.table)
            lane = next(lane for lane in self.lanes if lane.name == join.lane)
            uneven = [name for name in lane.sources if self.partitions(name) != table.partitions]
            if table.kind != "global" and uneven:
                raise UserError(
                    f"{join.lane} joins topic {uneven[0]} ({self.partitions(uneven[0])} partitions) with table "
                    f"{table.name} "
                    f"({table.partitions} partitions): equal keys would not meet. Repartition the stream with "
                    f"group_by(..., partitions={table.partitions}), or make the table an app.GlobalTable"
                )

    def __str__(self) -> str:
        """A listing for people: lanes with what flows through them, then tables, then topics."""
        lines = [f"app {self.app_id}"]
        for lane in self.lanes:
            arrow = " -> ".join([" + ".join(lane.sources), *lane.steps, *([lane.target] if lane.target else [])])
            lines.append(f"  {'lane' if lane.target else 'agent'} {lane.name}: {arrow}")
            details = [("sinks", lane.sinks), ("tables", lane.tables)]
            lines += [f"      {word}: {', '.join(names)}" for word, names in details if names]
            if lane.concurrency > 1:
                lines.append(f"      concurrency: {lane.concurrency}")
        for table in self.tables:
            count = "" if table.partitions is None else f", {table.partitions} partitions"
            kind = "table" if table.kind == "table" else f"{table.kind} table"
            lines.append(f"  {kind} {table.name}: {table.key} -> {table.value}, from {table.changelog}{count}")
        for topic in self.topics:
            count = "?" if topic.partitions is None else str(topic.partitions)
            lines.append(f"  {topic.kind} topic {topic.name}: {topic.key} -> {topic.value}, {count} partitions")
        lines += [f"  timer {timer}" for timer in self.timers]
        return "\n".join(lines)


def _contradiction(node: TopicNode, actual: int, wanted: int) -> str:
    if node.kind == "declared" or node.kind == "agent":
        return (
            f"topic {node.name} has {actual} partitions, and the app declares partitions={wanted}: leave partitions= "
            f"out to "
            f"take the topic as it is, or create another topic"
        )
    older = (
        ". A key's older records stay on their old partition, and make another row there: tables that are keyed by the "
        "topic's own keys need a new topic with all records in it, or a group_by"
        if node.kind == "changelog"
        else ""
    )
    return (
        f"internal topic {node.name} has {actual} partitions and would need {wanted}, because the topics it follows "
        f"changed: "
        f"its keys are placed by the old count. Stop the workers, run `streamlog -A MODULE reset`, which has the app "
        f"process its topics from their beginning, and start again{older}"
    )
