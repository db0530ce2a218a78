"""How long topics show that a key was deleted: their own `delete.retention.ms`, if they are compacted at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from streamlog.errors import StreamlogError
from streamlog.state.changelog import DELETE_RETENTION_MS
from streamlog.state.freshness import SHOWN_FOR_EVER_MS
from streamlog.streams.retention import Setting

log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 5.0
"""Tables do not wait longer before they are opened."""


class Deletions:
    """Asks once per topic; once more for each task as long as there is no answer."""

    def __init__(self, app_id: str, ask: Callable[[str], Awaitable[Mapping[str, Setting]]]) -> None:
        """`ask` gives the settings of a topic."""
        self._app_id, self._ask = app_id, ask
        self._shown_ms: dict[str, int] = {}  # by topic
        self._said: dict[str, None] = {}  # topics that did not tell

    async def shown_ms(self, topic: str) -> int:
        """How long, at least, a record without a value stays in the topic. Kafka's default if nobody tells."""
        known_ms = self._shown_ms.get(topic)
        if known_ms is not None:
            return known_ms
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                settings = await self._ask(topic)
            shown_ms = self._shown_ms[topic] = _shown_ms(settings)
        except (StreamlogError, TimeoutError) as error:
            if topic not in self._said:
                self._said[topic] = None
                log.warning(
                    "app=%s topic=%s delete.retention.ms cannot be seen, %d is assumed: %s",
                    self._app_id,
                    topic,
                    DELETE_RETENTION_MS,
                    str(error) or f"no answer within {ASK_TIMEOUT_S:g} s",
                )
            return DELETE_RETENTION_MS
        return shown_ms


def _shown_ms(settings: Mapping[str, Setting]) -> int:
    policy = settings.get("cleanup.policy")
    if policy is not None and policy.value is not None and "compact" not in policy.value:
        return SHOWN_FOR_EVER_MS
    shown = settings.get("delete.retention.ms")
    return DELETE_RETENTION_MS if shown is None or shown.value is None else int(shown.value)
