"""The changelog topic of a table: its name, its configuration, and its records, which are the table's rows.

A record's key is the row's key, its value the row's value (None deletes), its timestamp stream time at the commit. So
the changelog of a table can be read with any consumer, and compaction keeps exactly the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from streamlog.state.store import Change
from streamlog.state.windowed import index_change
from streamlog.state.windows import Windows

DELETE_RETENTION_MS = 24 * 60 * 60 * 1000
"""Kafka's default for delete.retention.ms, and what we set: how long a compacted topic shows that a key was deleted. A
store that was away for longer may have missed deletions, and is rebuilt."""

TIMESTAMP_DISTANCE_MS_MAX = 2**62
"""No bound at all, and still no overflow when a broker adds it to the time of day."""

ANY_TIME = {
    "message.timestamp.after.max.ms": str(TIMESTAMP_DISTANCE_MS_MAX),
    "message.timestamp.before.max.ms": str(TIMESTAMP_DISTANCE_MS_MAX),
}
"""Configuration of topics whose records carry event time, which may be any time. A broker's default refuses what is
more than an hour ahead of its clock, and a refused output is a commit that fails."""

IndexOf: TypeAlias = Callable[[Change], Change | None]


@dataclass(frozen=True, slots=True)
class RestoredTable:
    """A table of a task as a restore sees it."""

    name: str
    topic: str
    """Its changelog, or the topic it follows."""
    index_of: IndexOf | None = None
    """For windowed tables: the expiry index's part in each row's change."""
    delete_retention_ms: int = DELETE_RETENTION_MS
    """Of the topic."""


def changelog_topic(app_id: str, table: str) -> str:
    return f"{app_id}-{table}-changelog"


def changelog_configs() -> dict[str, str]:
    """Topic configuration of a table's changelog, in Kafka's names.

    Windowed tables too are compacted and never deleted by age: their expiry writes tombstones. Deleting by age goes by
    the broker's clock, and would take rows that stream time still holds: of an idle stream, or of last year's data.
    """
    return {
        "cleanup.policy": "compact",
        "delete.retention.ms": str(DELETE_RETENTION_MS),
        **ANY_TIME,
    }


def restored_table(app_id: str, table: str, windows: Windows | None = None) -> RestoredTable:
    """What a restore has to know of a table with a changelog of its own."""
    indexed = windows is not None and windows.keep_ms is not None
    return RestoredTable(table, changelog_topic(app_id, table), index_change if indexed else None)
