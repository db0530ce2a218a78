"""The global tables of a worker: one store for all of them, one reader each, complete before the first event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from streamlog.env import Env
from streamlog.state.consumer_reader import ConsumerReader
from streamlog.state.directory import StateDirectory
from streamlog.state.global_table import GlobalTableState
from streamlog.state.opening import close_stores, open_store
from streamlog.state.store import Store, StoreEngine
from streamlog.streams.deletions import Deletions
from streamlog.streams.tables import Table

log = logging.getLogger(__name__)

REPORT_S = 5.0
"""How often a worker that waits for its global tables says how far they are."""


class GlobalTables:
    """Opened when a worker starts, closed when it stops; no rebalance touches them."""

    def __init__(
        self, broker: str, env: Env, engine: StoreEngine, directory: StateDirectory, deletions: Deletions
    ) -> None:
        self.states: dict[str, GlobalTableState[Any, Any]] = {}
        """By table name."""
        self.store: Store | None = None
        self._broker, self._env, self._engine, self._directory = broker, env, engine, directory
        self._deletions = deletions
        self._readers: list[ConsumerReader] = []

    async def open(self, tables: Sequence[Table[Any, Any]]) -> None:
        """Follow the tables, and return when each is complete up to the end its topic had just now."""
        if not tables:
            return
        self.store = await open_store(self._engine, self._env, self._directory.global_path())
        for table in tables:
            reader = ConsumerReader(self._broker, self._env)
            self._readers.append(reader)
            await reader.open()
            state: GlobalTableState[Any, Any] = GlobalTableState(
                table.name,
                table.changelog,
                self.store,
                table.key_serde,
                table.value_serde,
                reader,
                self._env,
                delete_retention_ms=await self._deletions.shown_ms(table.changelog),
            )
            self.states[table.name] = state
            await state.open()
        for state in self.states.values():
            await self._wait(state)

    @property
    def complete(self) -> bool:
        """Whether none of them is being read from its beginning: events that are processed meanwhile miss rows."""
        return all(state.is_ready for state in self.states.values())

    @property
    def trouble(self) -> str | None:
        """Why no event is processed, if it is because of a global table."""
        behind = [name for name, state in self.states.items() if not state.is_ready]
        if not behind:
            return None
        reasons = "".join(f"; {state.failure}" for state in self.states.values() if state.failure is not None)
        return f"events wait until global table {', '.join(behind)} has been read from the beginning{reasons}"

    async def _wait(self, state: GlobalTableState[Any, Any]) -> None:
        while not state.is_ready:
            try:
                async with asyncio.timeout(REPORT_S):
                    await state.ready()
            except TimeoutError:
                for one in state.progress():
                    log.info(
                        "global_table=%s partition=%d restored=%d of %d",
                        one.table,
                        one.partition,
                        one.restored,
                        one.total,
                    )

    async def close(self) -> None:
        for state in self.states.values():
            await state.close()
        for reader in self._readers:
            await reader.close()
        if self.store is not None:
            await close_stores(self._env, [self.store])
