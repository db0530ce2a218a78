"""A topic's settings say how long it shows deletions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from streamlog.errors import EnvironmentFailure
from streamlog.state.changelog import DELETE_RETENTION_MS
from streamlog.state.freshness import SHOWN_FOR_EVER_MS
from streamlog.streams.deletions import Deletions


@dataclass(frozen=True)
class Entry:
    value: str | None


@dataclass
class Broker:
    settings: dict[str, str | None] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    away: bool = False

    async def ask(self, topic: str) -> Mapping[str, Entry]:
        self.asked.append(topic)
        if self.away:
            raise EnvironmentFailure("nobody answers")
        return {name: Entry(value) for name, value in self.settings.items()}


@pytest.mark.parametrize(
    ("settings", "shown_ms"),
    [
        ({"cleanup.policy": "compact", "delete.retention.ms": "1000"}, 1000),
        ({"cleanup.policy": "compact,delete", "delete.retention.ms": "0"}, 0),
        ({"cleanup.policy": "delete", "delete.retention.ms": "1000"}, SHOWN_FOR_EVER_MS),
        ({"cleanup.policy": "compact"}, DELETE_RETENTION_MS),
        ({"cleanup.policy": "compact", "delete.retention.ms": None}, DELETE_RETENTION_MS),
        ({}, DELETE_RETENTION_MS),
    ],
)
async def test_the_topics_own_setting_counts_if_it_is_compacted(settings: dict[str, str | None], shown_ms: int) -> None:
    """Asked once; what a broker does not tell is Kafka's default."""
    broker = Broker(settings)
    deletions = Deletions("app", broker.ask)
    assert [await deletions.shown_ms("t") for _ in range(3)] == [shown_ms] * 3
    assert broker.asked == ["t"]


async def test_settings_that_cannot_be_seen_are_said_once_and_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    """The default holds meanwhile."""
    broker = Broker({"cleanup.policy": "compact", "delete.retention.ms": "1000"}, away=True)
    deletions = Deletions("app", broker.ask)
    assert [await deletions.shown_ms("t") for _ in range(3)] == [DELETE_RETENTION_MS] * 3
    assert caplog.text.count("cannot be seen, 86400000 is assumed: nobody answers") == 1
    broker.away = False
    assert await deletions.shown_ms("t") == 1000
