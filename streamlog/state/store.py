"""What a task's state store promises, whatever keeps it.

A store holds the tables of one task: sorted rows of bytes, and beside them how far they go. The contract, which RocksDB
and the in-memory store both keep and one model test checks:

- `commit` is atomic over all tables, positions and source offsets: after any crash a batch is there as a whole or not
  at all, and batches disappear only from the end. It need not be durable when it returns: after a power cut the store
  may be older than what was committed to Kafka, and replaying the changelog from the stored position makes it right.
- A table without a position is empty, or holds remains of a restore that did not finish: whoever restores it drops it.
- `ingest` is for restoring. A crash inside may leave rows *ahead* of the position. That is harmless: the replay passes
  over those rows again, and the last record of a key wins.
- A scan is sorted and sees every row that exists throughout exactly once; rows written meanwhile it may see or not. A
  `Snapshot` sees one moment.

Calls block, for as long as a disk takes: single rows are read inline, everything heavy goes through `env.offload`. A
store may be read from the event loop while a commit runs in another thread; commits themselves come one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Protocol, Self, TypeAlias
from uuid import UUID

from streamlog.errors import EnvironmentFailure

Row: TypeAlias = tuple[bytes, bytes]
Change: TypeAlias = tuple[bytes, bytes | None]
"""A key and its new value; None deletes it."""


class StoreClosed(EnvironmentFailure):
    """The store was closed, because its task moved or the worker stops; ask the task's new owner."""


class StoreLocked(EnvironmentFailure):
    """Another handle still has the store open: the task's earlier incarnation that is being closed, or a process."""


class StoreCorrupt(EnvironmentFailure):
    """The store's files are damaged. Closing it sets them aside; the next open starts empty and restores."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a table's rows reach in the changelog partition they are folded from."""

    offset: int
    """Exclusive end: the next offset to read."""
    topic_id: UUID | None = None
    """Of the changelog topic; another id under the same name means that the topic was deleted and made again."""
    leader_epoch: int = -1
    """Of the last record folded in, -1 when unknown. An older epoch found after it means that the log was cut."""
    at_ms: int = -1
    """Wall time when the rows were last all that the log had; -1 when unknown. If that was longer ago than the log
    shows deletions, they may have missed one; see `freshness.py`."""


@dataclass(frozen=True, slots=True)
class SourceOffset:
    """How far a task has consumed one source partition when the batch was made."""

    offset: int
    """Exclusive end: the next offset to consume."""
    topic_id: UUID | None = None
    leader_epoch: int = -1
    metadata: str = ""
    """What the task has to know besides, as in the group's committed offset."""


@dataclass(slots=True)
class CommitBatch:
    """Everything one commit of a task changes, of all its tables. What is absent stays as it is."""

    rows: dict[str, Sequence[Change]] = field(default_factory=dict)
    """Per table; expiry indexes are tables too. No key comes twice in one table's list."""
    positions: dict[str, Position] = field(default_factory=dict)
    """Per table. A topic id of None leaves the one that is stored: only a restore meets another topic."""
    source_offsets: dict[tuple[str, int], SourceOffset] = field(default_factory=dict)
    """Keyed by topic and partition."""


def succeed(position: Position, stored: Position | None) -> Position:
    """`position` as it is stored after `stored`; see CommitBatch."""
    if position.topic_id is not None or stored is None or stored.topic_id is None:
        return position
    return replace(position, topic_id=stored.topic_id)


class Reader(Protocol):
    """Reads of a store or of a snapshot. A table that was never written is an empty one."""

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in their order."""
        ...

    def scan(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Row]:
        """Rows with start <= key < stop, sorted by key (descending with `reverse`), at most `limit` of them."""
        ...

    def positions(self) -> Mapping[str, Position]: ...


class Snapshot(Reader, Protocol):
    """A store at one moment. Holds back compaction while open, so use it as a context manager and be quick."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Reader, Protocol):
    """The open store of one task. Every method raises `StoreClosed` after `close`, and `StoreCorrupt` on damage."""

    @property
    def path(self) -> str: ...

    def commit(self, batch: CommitBatch) -> None:
        """Apply the batch atomically."""
        ...

    def source_offsets(self) -> Mapping[tuple[str, int], SourceOffset]: ...

    def ingest(self, table: str, rows: Sequence[Change], position: Position | None) -> None:
        """Write many rows, no key twice, and then the position (None: leave it). Not atomic; see the contract above."""
        ...

    def tables(self) -> list[str]:
        """Names of the tables that have been written, sorted."""
        ...

    def drop_table(self, table: str) -> None:
        """Forget the table's position, durably, and then its rows."""
        ...

    def approximate_count(self, table: str) -> int:
        """About how many rows the table has; RocksDB counts a row again for each version not yet compacted."""
        ...

    def snapshot(self) -> Snapshot: ...

    def close(self) -> None:
        """Release files and memory. Idempotent; snapshots and scans still open raise `StoreClosed` from now on."""
        ...


class StoreEngine(Protocol):
    """Opens stores: what they share in a process (caches, or a simulated disk) lives here."""

    @property
    def name(self) -> str: ...

    def open(self, path: str) -> Store:
        """Open or create the store at `path`. Blocks.

        Raises: StoreLocked: someone still has it open. StoreCorrupt: it cannot be opened. EnvironmentFailure: the disk.
        """
        ...

    def destroy(self, path: str) -> None:
        """Remove a closed store and all it holds; an absent one is fine."""
        ...

    def quarantine(self, path: str) -> str:
        """Set a damaged, closed store aside as `<path>.corrupt-<n>` and return that name."""
        ...
