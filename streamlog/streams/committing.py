"""The loop that commits a worker's tasks: every so often, and earlier when much has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from streamlog.env import Clock
from streamlog.errors import StreamlogError
from streamlog.streams.assignment import Assignment
from streamlog.streams.commit import CommitFailed, Committer
from streamlog.streams.settings import Settings

log = logging.getLogger(__name__)

COMMIT_PAUSE_FACTOR = 4
"""A commit that kept the event loop for long is followed by a pause so many times as long: whatever the number of keys
that change, commits take at most a fifth of the time, unless a table's cache is full of changes."""


class CommitLoop:
    """Commits all running tasks together. What the log did not take is reset to what is committed, and done again."""

    def __init__(
        self,
        app_id: str,
        committer: Committer,
        assignment: Assignment,
        settings: Settings,
        clock: Clock,
        renew_outbox: Callable[[], Awaitable[bool]],
    ) -> None:
        """`renew_outbox`: whether the producer had ended, and with it the way to send of every task there is."""
        self.trouble: str | None = None
        """Why the last commit failed, if it did."""
        self._app_id, self._committer, self._assignment = app_id, committer, assignment
        self._settings, self._clock, self._renew_outbox = settings, clock, renew_outbox
        self._wanted = asyncio.Event()
        self._fed_events = 0  # since the last commit began

    def on_fed(self, events: int, *, is_full: bool) -> None:
        """So many events were fed to tasks. `is_full`: changed rows fill a cache, and only a commit makes room."""
        self._fed_events += events
        if is_full or self._fed_events >= self._settings.commit_events_max:
            self._wanted.set()

    async def run_forever(self) -> None:
        interval_ms = self._settings.commit_interval_ms
        due_ms = self._clock.mono_ms() + interval_ms
        assignment = self._assignment
        while True:
            await self._until(due_ms)
            began_ms = self._clock.mono_ms()
            self._fed_events = 0
            try:
                await self._committer.commit(lambda: assignment.running)
            except CommitFailed as failed:
                self.trouble = f"committing: {failed}"
                lost = await self._renew_outbox()
                await assignment.reset(list(assignment.tasks.values()) if lost else failed.tasks, failed.cause)
            except StreamlogError as error:
                # A rebalance is under way, or the coordinator is away: the next commit brings the offsets along.
                log.info("app=%s offsets were not taken by the group: %s", self._app_id, error)
            else:
                self.trouble = None
            due_ms = began_ms + max(interval_ms, COMMIT_PAUSE_FACTOR * self._committer.stats.work_ms)

    async def _until(self, due_ms: int) -> None:
        left_ms = due_ms - self._clock.mono_ms()
        if left_ms > 0:
            try:
                async with asyncio.timeout(left_ms / 1000):
                    await self._wanted.wait()
            except TimeoutError:
                pass
        self._wanted.clear()
