"""What a reset of an app is about: which topics are its own and go, and where it begins in those that stay.

An app's own topics hold what it worked out: changelogs of its tables and repartitioned events. All of it can be made
again from the topics it reads. Of those, some are filled by the app itself: by a sink, by `through`, by an agent's code
that sends to them. Read from their beginning they would come twice, once as they are and once more when the app fills
them again; so there it goes on at the end (Kafka's reset tool wants to be told, as "intermediate topics"). Who else
writes to a topic cannot be seen in the program: the operator has the last word.

Global tables keep their rows: every worker reads them as a whole, and somebody may have written them by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from streamlog.streams.agents import Agent
from streamlog.streams.planning import objects_called
from streamlog.streams.topic import Topic
from streamlog.streams.topology import Topology

WRITES: Final = frozenset({"append", "ask", "cast", "join", "map", "send"})
"""Methods of topics and agents that write to their topic."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Names of topics, sorted."""

    delete: tuple[str, ...]
    """The app's own."""
    inputs: tuple[str, ...]
    """To be processed again."""
    refilled: Mapping[str, str]
    """Read by the app and filled by it, with what fills it."""


def reset_of(topology: Topology, agents: Mapping[str, Agent[Any, Any, Any]]) -> Reset:
    """What a reset of this app is about."""
    global_changelogs = {table.changelog for table in topology.tables if table.kind == "global"}
    own = {
        node.name
        for node in topology.topics
        if node.kind == "repartition" or (node.kind == "changelog" and node.name not in global_changelogs)
    }
    read = [name for name in topology.consumed if name not in own and topology.topic(name).kind != "leader"]
    writers = _writers(topology, agents)
    refilled = {name: writers[name] for name in read if name in writers}
    return Reset(tuple(sorted(own)), tuple(name for name in read if name not in refilled), refilled)


def _writers(topology: Topology, agents: Mapping[str, Agent[Any, Any, Any]]) -> dict[str, str]:
    """Topic -> who of the app writes to it, as far as the program shows."""
    found = {lane.target: f"agent {lane.name}" for lane in topology.lanes if lane.target is not None}
    for name, agent in sorted(agents.items()):
        for thing in (*agent.sinks, *objects_called(agent.function, WRITES)):
            topic = thing.topic if isinstance(thing, Agent) else thing
            if isinstance(topic, Topic):
                found.setdefault(topic.name, f"agent {name}")
    return found
