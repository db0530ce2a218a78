"""The loop that commits a worker's tasks: every so often, and earlier when much has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from streamlog.env import Clock
from streamlog.errors import StreamlogError
from streamlog.streams.assignment import Assignment
from streamlog.streams.commit import CommitFailed, Committer
from streamlog.streams.settings import RETRY_BACKOFF_S_FIRST, RETRY_BACKOFF_S_MAX, Settings

log = logging.getLogger(__name__)

COMMIT_PAUSE_FACTOR = 4
"""A commit that kept the event loop for long is followed by a pause so many times as long: whatever the number of keys
that change, commits take at most a fifth of the time, unless a table's cache is full of changes."""


class CommitLoop:
    """Commits all running tasks together. Tasks whose outputs the log did not take are reset to what is committed, and
    do it again, less and less often; rows that it did not take are sent again with the next commit."""

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
        self.holding = False
        """Rows of tables cannot be written just now: no event should be processed, or ever more of them wait."""
        self.processed_again = 0
        """Events that were processed and not committed when their tasks had to begin again, since the start."""
        self._app_id, self._committer, self._assignment = app_id, committer, assignment
        self._settings, self._clock, self._renew_outbox = settings, clock, renew_outbox
        self._wanted = asyncio.Event()
        self._fed_events = 0  # since the last commit began
        self._failures = 0  # in a row
        self._failed_at_ms = 0  # the last time
        self._pause_ms = 0  # after that

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
            pause_ms = interval_ms
            try:
                committed = await self._committer.commit(lambda: assignment.running)
            except CommitFailed as failed:
                pause_ms = max(interval_ms, self._failed(failed))
                lost = await self._renew_outbox()
                tasks = list(assignment.tasks.values()) if lost else failed.tasks
                self.processed_again += await assignment.reset(tasks, failed.cause, pause_ms / 1000)
            except StreamlogError as error:
                # A rebalance is under way, or the coordinator is away: the next commit brings the offsets along.
                log.info("app=%s offsets were not taken by the group: %s", self._app_id, error)
            else:
                self._succeeded(something=committed)
            due_ms = began_ms + max(pause_ms, COMMIT_PAUSE_FACTOR * self._committer.stats.work_ms)

    def _failed(self, failed: CommitFailed) -> int:
        """Say so. Returns how many milliseconds to wait before the next attempt."""
        self._failures += 1
        pause_s = min(RETRY_BACKOFF_S_FIRST * 2 ** min(self._failures - 1, 16), RETRY_BACKOFF_S_MAX)
        self.trouble = f"committing: {failed}"
        self.holding = failed.of_rows
        if self.holding:
            log.warning(
                "app=%s rows of tables were not taken by their changelogs; nothing is processed until they are, next "
                "attempt in %.1f s: %s",
                self._app_id,
                pause_s,
                failed,
            )
        elif self._failures > 1:
            log.warning(
                "app=%s has failed to commit %d times in a row; next attempt in %.1f s",
                self._app_id,
                self._failures,
                pause_s,
            )
        self._failed_at_ms, self._pause_ms = self._clock.mono_ms(), int(pause_s * 1000)
        return self._pause_ms

    def _succeeded(self, *, something: bool) -> None:
        """A commit went well. One without anything in it proves little: the tasks of one that failed may be about to
        begin again."""
        self.holding = False
        if something or self._clock.mono_ms() >= self._failed_at_ms + 2 * self._pause_ms:
            self.trouble, self._failures = None, 0

    async def _until(self, due_ms: int) -> None:
        left_ms = due_ms - self._clock.mono_ms()
        if left_ms > 0:
            try:
                async with asyncio.timeout(left_ms / 1000):
                    await self._wanted.wait()
            except TimeoutError:
                pass
        self._wanted.clear()
