"""What workers and their clients say to each other about tables: values, as msgpack.

Keys and values travel as the very bytes that the table's serdes write, so that whoever has the app's types gets them
back exactly, and whoever has not gets plain objects. Browsers and curl get the same answers as JSON (`web/shown.py`).
"""

from __future__ import annotations

import msgspec

MSGPACK = "application/msgpack"

FORWARDED = "x-streamlog-forwarded"
"""Header of a request that comes from a worker or a client that knows who owns what: answer it yourself, or say no."""


class Staleness(msgspec.Struct, frozen=True, kw_only=True):
    """How old an answer is, and by whom it was given."""

    partition: int
    state: str
    """Of the task that owns the partition: running, revoking; restoring, for who asked for stale rows."""
    position: int | None
    """Changelog offset that the committed rows reach, exclusive; None before the first commit."""
    lag: int | None
    """Changelog records that are known to be missing from the answer."""
    committed: bool
    """Whether everything in the answer is committed; what is not could be processed again after a crash."""
    behind: int | None
    """Input records that are in the log and were not processed yet, as last heard; None before anybody said."""


class Row(msgspec.Struct, frozen=True, array_like=True):
    key: bytes
    value: bytes
    start_ms: int | None = None
    """Of the window; None in tables without."""


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one partition, or of several, merged."""

    rows: list[Row]
    cursor: bytes | None
    """Where the next page begins; None: there is none."""
    staleness: list[Staleness]
    """One for each partition that was asked."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Values of the keys of one partition, in the order in which they were asked for."""

    values: list[bytes | None]
    staleness: Staleness
    elsewhere: bool = False
    """Whether keys without a value may be on another partition than theirs: producers of the topic that the table
    follows have placed others so."""


class TableInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know about a table."""

    name: str
    kind: str
    """table, windowed, set, source or global"""
    key: str
    """Name of the keys' serde, such as "raw str" or "json Flight"."""
    value: str
    partitions: int
    changelog: str
    window_size_ms: int | None = None
    window_step_ms: int | None = None


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no answer."""

    error: str
    """A sentence."""
    code: str
    """not_owner, not_ready, no_table, no_key, bad_request, no_worker, internal"""


class GetMany(msgspec.Struct, frozen=True, kw_only=True):
    """Body of POST /tables/{table}/rows."""

    partition: int
    keys: list[bytes]
    start_ms: int | None = None
    """The window, in windowed tables."""
    committed: bool = False
    stale: bool = False
    """Whether rows of a partition that is still being restored will do."""
