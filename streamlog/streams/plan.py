"""The plan: an app's declarations turned into lanes, tables and topics, ready to be run by tasks.

A plan is made anew each time it is needed and holds nothing that runs. Its `topology` is the part of it that can be
printed and compared.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from streamlog.errors import UserError
from streamlog.state.changelog import changelog_configs
from streamlog.streams.agents import Agent, body_of
from streamlog.streams.context import Cell
from streamlog.streams.cursor import Cursor, LanePlan
from streamlog.streams.forward import forward_body
from streamlog.streams.planning import Stage, cut, describe, markers, objects_used, rehearse
from streamlog.streams.policies import DeadLetter, Policy, Retry
from streamlog.streams.stream import GroupBy, Lookup
from streamlog.streams.tables import Table, WindowedTable
from streamlog.streams.topic import Topic, unprocessed_configs
from streamlog.streams.topology import JoinNode, LaneNode, TableNode, TopicNode, Topology

LEADER_TOPIC = "leader"
"""Behind the app's id: a topic that nobody writes to. An app that reads no topic, and yet wants one of its workers to
do something, has its group share the one partition of it."""

Body = Callable[[Cursor], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What an app's workers do."""

    app_id: str
    lanes: tuple[LanePlan, ...]
    tables: tuple[Table[Any, Any], ...]
    """By slot."""
    topics: tuple[Topic[Any, Any], ...]
    """Every topic that the app reads or writes records of, changelogs aside."""
    topology: Topology


def make_plan(
    app_id: str,
    agents: Sequence[Agent[Any, Any, Any]],
    tables: Sequence[Table[Any, Any]],
    topics: Sequence[Topic[Any, Any]],
    timers: Sequence[str],
    cell: Cell,
    *,
    needs_leader: bool,
) -> Plan:
    """Plan the declarations of an app. Raises: UserError: they do not make sense.

    Args: needs_leader: something of the app runs on one worker of the group only.
    """
    known = {topic.name: topic for topic in topics}
    nodes = {topic.name: _topic_node(topic, ()) for topic in topics}
    lanes: list[LanePlan] = []
    lane_nodes: list[LaneNode] = []
    joins: list[JoinNode] = []

    def add(name: str, stage: Stage, body: Body, agent: Agent[Any, Any, Any], tables_used: set[str]) -> None:
        sources = tuple(topic.lane_topic() for topic in stage.topics)
        concurrency = agent.concurrency if stage.target is None else 1
        asked = agent.name if agent.yields else None
        lanes.append(LanePlan(name, sources, body, agent.policy, concurrency, asked, _only_looks(stage)))
        lookups = [step for step in stage.steps if isinstance(step, Lookup)]
        joins.extend(JoinNode(name, step.table.name) for step in lookups if step.on is None)
        tables_used |= {step.table.name for step in lookups}
        lane_nodes.append(
            LaneNode(
                name=name,
                sources=tuple(topic.name for topic in stage.topics),
                steps=tuple(describe(step) for step in stage.steps),
                target=None if stage.target is None else stage.target.topic.name,
                sinks=tuple(_sink_name(sink) for sink in agent.sinks) if stage.target is None else (),
                tables=tuple(sorted(tables_used)),
                concurrency=concurrency,
                on_error=type(agent.policy).__name__.lower(),
            )
        )

    for agent in agents:
        inner = rehearse(agent.function, agent.name)
        in_body = markers(inner)

        def repartition(step: GroupBy, value_type: Any, agent: Agent[Any, Any, Any] = agent) -> Topic[Any, Any]:
            name = f"{app_id}-{agent.name}-{step.name}-repartition"
            if name in known:
                raise UserError(
                    f"agent {agent.name} has two group_by({step.name}): tell them apart with group_by(..., name=)"
                )
            known[name] = Topic(
                name,
                step.key_type,
                value_type,
                cell=cell,
                partitions=step.partitions,
                configs=unprocessed_configs(),
                kind="repartition",
            )
            return known[name]

        stages = cut(agent.topics, (*agent.steps, *(inner if in_body else ())), repartition, f"agent {agent.name}")
        for number, stage in enumerate(stages[:-1]):
            target = stage.target
            assert target is not None, "every stage but the last passes on to a topic"
            if target.topic.kind == "repartition":
                like = tuple(topic.name for topic in stage.topics)
                nodes[target.topic.name] = _topic_node(target.topic, like)
            name = f"{agent.name}-{number + 1}"
            add(name, stage, forward_body(stage.steps, target), agent, set())
        add(agent.name, stages[-1], body_of(agent, stages[-1], in_body), agent, _tables_used(agent))

    for table in tables:
        if table.source is None:
            nodes[table.changelog] = _changelog_node(table)
    if needs_leader and not lanes and all(table.source is None for table in tables):
        name = f"{app_id}-{LEADER_TOPIC}"
        nodes[name] = TopicNode(name, "leader", key="raw bytes", value="raw bytes", partitions=1)
    topology = Topology(
        app_id=app_id,
        topics=tuple(nodes[name] for name in sorted(nodes)),
        lanes=tuple(lane_nodes),
        tables=tuple(sorted((_table_node(table) for table in tables), key=lambda node: node.name)),
        joins=tuple(joins),
        timers=tuple(timers),
    )
    return Plan(app_id, tuple(lanes), tuple(tables), tuple(known.values()), topology)


def dead_letter_topics(policies: Iterable[Policy]) -> list[str]:
    """Topics that policies may send to."""
    found = []
    for policy in policies:
        final = policy.then if isinstance(policy, Retry) else policy
        if isinstance(final, DeadLetter):
            found.append(final.topic.name)
    return found


def _tables_used(agent: Agent[Any, Any, Any]) -> set[str]:
    used = set()
    for thing in objects_used(agent.function):
        table = thing.table if isinstance(thing, WindowedTable) else thing
        if isinstance(table, Table) and table.kind not in ("global", "source"):
            used.add(table.name)
    return used


def _topic_node(topic: Topic[Any, Any], like: tuple[str, ...]) -> TopicNode:
    return TopicNode(
        name=topic.name,
        kind=topic.kind,
        key=topic.key_serde.name,
        value=topic.value_serde.name,
        partitions=topic.partitions,
        like=like,
        configs=tuple(sorted(topic.configs.items())),
    )


def _changelog_node(table: Table[Any, Any]) -> TopicNode:
    return TopicNode(
        name=table.changelog,
        kind="changelog",
        key=table.key_serde.name,
        value=table.value_serde.name,
        partitions=table.partitions,
        configs=tuple(sorted(changelog_configs().items())),
    )


def _table_node(table: Table[Any, Any]) -> TableNode:
    return TableNode(
        name=table.name,
        kind=table.kind,
        key=table.key_serde.name,
        value=table.value_serde.name,
        changelog=table.changelog,
        partitions=table.partitions,
    )


def _only_looks(stage: Stage) -> bool:
    """Whether the stage only sends values on, under the key they have or one of their fields."""
    target = stage.target
    return target is not None and not stage.steps and isinstance(target.select_key, operator.attrgetter | None)


def _sink_name(sink: Any) -> str:
    if isinstance(sink, Topic | Agent):
        return sink.name
    return getattr(sink, "__name__", type(sink).__name__)
