"""Says when a topic holds records that its broker may delete before anybody has processed them.

Brokers delete by the records' own timestamps. What an app sends carries event time, so a topic with the usual week of
retention loses last year's events within minutes, whether they were processed or not, and nobody would notice. The
topics between an app's own lanes are created without a retention time; those of others are looked at here, when
records come that are older than any retention would keep.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from streamlog.env import Clock
from streamlog.errors import StreamlogError

log = logging.getLogger(__name__)

SUSPECT_AGE_MS = 60 * 60 * 1000
"""Younger records are not worth a question to the broker."""

DAY_MS = 24 * 60 * 60 * 1000

FOR_EVER = float("inf")


class Setting(Protocol):
    """What is needed of a ConfigEntry."""

    @property
    def value(self) -> str | None: ...


class RetentionWatch:
    """Warns once per topic."""

    def __init__(self, app_id: str, clock: Clock, ask: Callable[[str], Awaitable[Mapping[str, Setting]]]) -> None:
        """`ask` gives the settings of a topic."""
        self._app_id, self._clock, self._ask = app_id, clock, ask
        self._kept_ms: dict[str, float] = {}  # by topic: what is older, the broker deletes; FOR_EVER once we warned

    def suspects(self, topic: str, timestamps_ms: Sequence[int]) -> bool:
        """Whether `look` has to be called for a batch of records with these timestamps, which it has to have. Cheap."""
        oldest_ms = timestamps_ms[0]
        return 0 <= oldest_ms < self._clock.wall_ms() - self._kept_ms.get(topic, SUSPECT_AGE_MS)

    async def look(self, topic: str, timestamp_ms: int) -> None:
        """Find out how long the topic keeps records, and warn if one of `timestamp_ms` is older."""
        if self._kept_ms.get(topic) == FOR_EVER:
            return
        self._kept_ms[topic] = FOR_EVER
        try:
            settings = await self._ask(topic)
        except StreamlogError as error:
            log.debug("topic=%s its retention cannot be seen: %s", topic, error)
            return
        retention_ms, kept_ms = _kept(settings)
        if self._clock.wall_ms() - timestamp_ms <= kept_ms:
            self._kept_ms[topic] = kept_ms  # ask again for older ones
            return
        log.warning(
            "app=%s topic=%s has records of %s, and retention.ms=%d (%s): the broker deletes by that time, also what "
            "was not processed yet. To keep them: streamlog topics alter %s --config retention.ms=-1",
            self._app_id,
            topic,
            datetime.fromtimestamp(timestamp_ms / 1000, UTC).date(),
            retention_ms,
            _span(retention_ms),
            topic,
        )


def _kept(settings: Mapping[str, Setting]) -> tuple[int, float]:
    """retention.ms, and the age that no record of a topic reaches that is deleted in the usual course: a segment goes
    as a whole, when its youngest record is old enough."""
    policy = _value(settings, "cleanup.policy") or "delete"
    retention_ms = int(_value(settings, "retention.ms") or -1)
    if retention_ms < 0 or "delete" not in policy:
        return retention_ms, FOR_EVER
    return retention_ms, retention_ms + int(_value(settings, "segment.ms") or 0)


def _value(settings: Mapping[str, Setting], name: str) -> str | None:
    entry = settings.get(name)
    return None if entry is None else entry.value


def _span(duration_ms: int) -> str:
    return f"{duration_ms / DAY_MS:.3g} days"
