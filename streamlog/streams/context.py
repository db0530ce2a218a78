"""How declarations find what runs.

Topics, tables and agents are module-level values, made before anything runs. Inside an agent's body they reach their
task through the body's cursor. Everywhere else (timers, web handlers, tests) they reach the running worker through the
cell that
they share with their App: the only thing that changes in a declaration, set while a worker runs and empty otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    @property
    def full(self) -> bool:
        """Whether so much waits for acknowledgement that callers should wait for `room`."""
        ...

    async def room(self) -> None: ...

    async def flush(self) -> None:
        """Until everything appended so far is acknowledged. Raises the first failure."""
        ...


class Runtime(Protocol):
    """A running worker, as declarations see it."""

    @property
    def outbox(self) -> Outbox: ...

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
