"""What brokers have refused for good, and when it is tried again.

An output that its topic does not take fails the commit of all tasks. They begin again, and would do the same again, for
ever: so the second time it is the sending that fails, in the hands of the body, with what the broker said the first
time. Then the agent's `on_error=` decides about the one event, as about anything else that the body raises, and
everybody else goes on.

A topic that is gone is barred until it is there again. What was refused for another reason, by an ACL for example, is
tried again now and then: a trial that fails costs one more commit that is done again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streamlog.wire.error_codes import ErrorCode

GONE: Final = frozenset({ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID})
"""The topic does not exist (any more)."""

TOO_LARGE: Final = frozenset({ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE})

FOR_GOOD: Final = GONE | {
    ErrorCode.INVALID_TOPIC_EXCEPTION,
    ErrorCode.TOPIC_AUTHORIZATION_FAILED,
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
    ErrorCode.POLICY_VIOLATION,
    ErrorCode.INVALID_RECORD,
    ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
}
"""Answers that the same records would get again, and all others for the topic as well, as far as anybody can know."""

GONE_RETRY_MS = 1_000
"""How often it is looked whether a topic is there again: a question to a broker, while agents wait for the answer."""

TRIAL_MS_FIRST, TRIAL_MS_MAX = 5_000, 60_000
"""Pauses before a refused topic is tried again, twice as long each time: as long as nobody has seen to it, a trial only
costs a commit."""


@dataclass(slots=True)
class Bar:
    """One topic that takes nothing just now."""

    why: str
    gone: bool
    pause_ms: int
    until_ms: int
    """Monotonic: when to look, or to try, again."""


class Bars:
    """The topics that are barred; forgets how long a pause was once a trial went well for as long."""

    def __init__(self) -> None:
        self._bars: dict[str, Bar] = {}
        self._before: dict[str, Bar] = {}  # lifted for a trial

    def put(self, topic: str, code: ErrorCode, what: str, now_ms: int) -> Bar:
        """Bar a topic: a broker refused `what` for it."""
        gone, pause_ms = code in GONE, GONE_RETRY_MS
        if not gone:
            before = self._before.pop(topic, None)
            recent = before is not None and now_ms - before.until_ms <= 2 * before.pause_ms
            pause_ms = min(2 * before.pause_ms, TRIAL_MS_MAX) if before is not None and recent else TRIAL_MS_FIRST
        why = (
            f"topic {topic} does not exist any more; create it again"
            if gone
            else f"topic {topic} takes no records: {what}"
        )
        bar = self._bars[topic] = Bar(why, gone, pause_ms, now_ms + pause_ms)
        return bar

    def due(self, now_ms: int) -> list[str]:
        """Topics to look at now; those that are gone are due again after a while."""
        topics = [topic for topic, bar in self._bars.items() if now_ms >= bar.until_ms]
        for topic in topics:
            self._bars[topic].until_ms = now_ms + self._bars[topic].pause_ms
        return topics

    def gone(self, topic: str) -> bool:
        return self._bars[topic].gone

    def lift(self, topic: str) -> None:
        self._before[topic] = self._bars.pop(topic)

    def __contains__(self, topic: str) -> bool:
        return topic in self._bars

    @property
    def trouble(self) -> str | None:
        """What is refused just now, for people."""
        return "; ".join(bar.why for _, bar in sorted(self._bars.items())) or None
