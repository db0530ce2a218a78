"""What the shard runtime and its shards say to each other.

A shard is the state of one partition of an internal topic, as a fold over that partition's log. It decides and
performs nothing: `handle` takes a request and answers with a `Decision`, which holds the records to append and the
replies to send once those records (and all before them) are committed. A reply may belong to an earlier request
that was parked, and the reply to this request may come from a later decision: that is how a JoinGroup waits for the
other members. `apply` folds one committed or about-to-be-committed record; it trusts the log and cannot fail.

Two clocks arrive together, because deadlines must survive a wall clock that jumps and records must be readable by
people and by other brokers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, NewType, Protocol, TypeVar

from streamlog.wire.error_codes import ErrorCode

R = TypeVar("R")
RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
RecordT = TypeVar("RecordT")

Token = NewType("Token", int)
"""Names one waiting request. Meaningless to the shard; unique within a runtime."""

NO_PRODUCER_ID = -1
"""The producer id of a batch that no producer with an id wrote."""


@dataclass(frozen=True, slots=True)
class Now:
    """One instant on both clocks."""

    mono_ms: int
    """For deadlines."""
    wall_ms: int
    """For what is written down."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, and how to reach them."""

    token: Token
    api_version: int
    client_id: str = ""
    client_host: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the request behind `token`."""

    token: Token
    response: object


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer the request behind `token` with an error of the whole request."""

    token: Token
    error: ErrorCode
    message: str | None = None


@dataclass(slots=True)
class Decision(Generic[R]):
    """What follows from one input, in order: append all records, then, once they are committed, send all replies."""

    records: list[R] = field(default_factory=list)
    replies: list[Reply | Refuse] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """One line per state transition, for the driver's log."""


@dataclass(frozen=True, slots=True)
class Applied(Generic[R]):
    """A record with its place in the log."""

    record: R
    offset: int
    producer_id: int = NO_PRODUCER_ID
    """Of the transaction that the record is part of, NO_PRODUCER_ID outside a transaction."""


class Shard(Protocol[RequestT_contra, RecordT]):
    """One partition's state. Synchronous and deterministic: no clock, randomness, I/O or logging of its own."""

    def handle(self, request: RequestT_contra, caller: Caller, now: Now) -> Decision[RecordT]:
        """Decide. Changes at most what the log does not hold (who waits, who is alive)."""
        ...

    def next_deadline_ms(self) -> int | None:
        """When to call `on_deadline`, in monotonic milliseconds."""
        ...

    def on_deadline(self, now: Now) -> Decision[RecordT]:
        """Everything that is due by `now`."""
        ...

    def apply(self, applied: Applied[RecordT]) -> None:
        """Fold one record."""
        ...

    def apply_marker(self, producer_id: int, committed: bool) -> None:
        """Fold the end of a transaction."""
        ...

    def on_loaded(self, now: Now) -> Decision[RecordT]:
        """The log was folded to its end: start the clocks of whoever it says is alive."""
        ...
