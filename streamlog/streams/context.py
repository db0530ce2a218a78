"""How declarations find what runs.

Topics, tables and agents are module-level values, made before anything runs. Inside an agent's body they reach their
task through the body's cursor. Everywhere else (timers, web handlers, tests) they reach the running worker through the
cell that they share with their App: the only thing that changes in a declaration, set while a worker runs and empty
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from streamlog.errors import UserError

Sender: TypeAlias = Callable[[bytes | None, bytes | None, int, Sequence[tuple[str, bytes | None]]], None]
"""Key, value, timestamp in ms, headers. The key's hash places the record."""


class Outbox(Protocol):
    """Where outputs go. Nothing is sent when `append` returns, and nothing is committed before it is acknowledged."""

    def append(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """Take one record; partition None leaves the choice to the key's hash.

        Raises: UserError: the topic is not known, or no record can have this timestamp.
        """
        ...

    def sender(self, topic: str) -> Sender:
        """`append` for one topic, its partitions looked up once: for lanes that send an output per event."""
        ...

    def answer(
        self,
        topic: str,
        partition: int,
        value: bytes,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> None:
        """Send an answer there, if that can be done. Never raises, and holds no commit up."""
        ...

    def append_rows(self, topic: str, partition: int, rows: Iterable[tuple[bytes, bytes | None, int]]) -> None:
        """Take rows of a table for its changelog: key, value, timestamp in ms. None of them is too large for it."""
        ...

    def row_bytes_max(self, topic: str) -> int:
        """The largest row that a changelog takes, with what its record adds to it."""
        ...

    @property
    def full(self) -> bool:
        """Whether so much waits for acknowledgement that callers should wait for `room`."""
        ...

    async def room(self) -> None: ...

    async def flush(self) -> None:
        """Until everything appended so far is acknowledged. Raises: the first failure of an output; what is refused for
        good is refused by `append` from then on."""
        ...

    async def flush_rows(self) -> None:
        """The same for rows. Raises: the first failure of a row; failures of outputs are left to `flush`."""
        ...


class Outside(Protocol):
    """Where records go that no task sends. No commit depends on them."""

    def append(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """Take one record of a known topic; partition None leaves the choice to the key's hash. Raises: UserError."""
        ...

    async def send(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """Send one record of a known topic, and return when it is acknowledged. Raises: why it was not."""
        ...


class Runtime(Protocol):
    """A running worker, as declarations see it."""

    @property
    def outbox(self) -> Outside: ...

    def wall_ms(self) -> int: ...

    async def know_topic(self, topic: str) -> None:
        """Make sure that `append` can place records of `topic`."""
        ...

    async def ask(self, agent: str, topic: str, key: bytes | None, value: bytes, timeout_s: float) -> bytes: ...

    def global_state(self, table: str) -> Any: ...


class Cell:
    """The worker that runs an App in this process, if one does."""

    __slots__ = ("app_id", "runtime")

    def __init__(self, app_id: str) -> None:
        self.app_id = app_id
        self.runtime: Runtime | None = None

    def get(self, what: str) -> Runtime:
        """Raises UserError naming `what` when no worker runs."""
        if self.runtime is None:
            raise UserError(
                f"{what} needs a running worker of app {self.app_id}: start one with `streamlog worker`, or inside a "
                f"program with "
                f"`async with app.running():`"
            )
        return self.runtime
