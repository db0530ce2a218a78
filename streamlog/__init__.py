"""streamlog: Kafka and Kafka Streams for Python.

Everything a program needs is importable from here. What is not listed below is internal and may change.

Names are imported when they are first asked for: a broker imports this package too, and has no use for stream
processing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names once more, for type checkers: they cannot follow __getattr__
    from streamlog.errors import EnvironmentFailure as EnvironmentFailure
    from streamlog.errors import StreamlogError as StreamlogError
    from streamlog.errors import UserError as UserError
    from streamlog.streams.agents import Agent as Agent
    from streamlog.streams.app import App as App
    from streamlog.streams.event import Event as Event
    from streamlog.streams.policies import DeadLetter as DeadLetter
    from streamlog.streams.policies import Retry as Retry
    from streamlog.streams.policies import Skip as Skip
    from streamlog.streams.policies import Stop as Stop
    from streamlog.streams.record import Record as Record
    from streamlog.streams.stream import Stream as Stream
    from streamlog.streams.tables import GlobalTable as GlobalTable
    from streamlog.streams.tables import SetTable as SetTable
    from streamlog.streams.tables import Table as Table
    from streamlog.streams.tables import WindowedTable as WindowedTable
    from streamlog.streams.tables import WindowSet as WindowSet
    from streamlog.streams.topic import Topic as Topic
    from streamlog.streams.topology import Topology as Topology
    from streamlog.web.blocking import connect as connect
    from streamlog.web.live import connect_async as connect_async

_HOMES = {
    "Agent": "agents",
    "App": "app",
    "DeadLetter": "policies",
    "Event": "event",
    "GlobalTable": "tables",
    "Record": "record",
    "Retry": "policies",
    "SetTable": "tables",
    "Skip": "policies",
    "Stop": "policies",
    "Stream": "stream",
    "Table": "tables",
    "Topic": "topic",
    "Topology": "topology",
    "WindowSet": "tables",
    "WindowedTable": "tables",
}
_ERRORS = ("EnvironmentFailure", "StreamlogError", "UserError")
_LIVE = {"connect": "blocking", "connect_async": "live"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"streamlog.streams.{_HOMES[name]}"), name)
    elif name in _LIVE:
        value = getattr(import_module(f"streamlog.web.{_LIVE[name]}"), name)
    elif name in _ERRORS:
        value = getattr(import_module("streamlog.errors"), name)
    else:
        raise AttributeError(f"module 'streamlog' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOMES, *_LIVE, *_ERRORS])
