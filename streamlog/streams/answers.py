"""Questions and answers as records: the headers by which `agent.ask` finds its way to an agent and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from streamlog.streams.cursor import Cursor

REPLY_TO = "streamlog-reply-to"
"""Header of a question: the topic that the answer goes to."""
REPLY_PARTITION = "streamlog-reply-partition"
CORRELATION = "streamlog-correlation"
"""Header of a question and of its answer."""
ASKED = "streamlog-asked"
"""Header of a question: the agent that is to answer. Others may read the same topic."""
REPLY_ERROR = "streamlog-error"
"""Header of an answer: the agent failed at the question, and this is how."""

REPLIES = "-replies"
"""How names of topics for answers end. Questions can be sent by anybody, and answers go nowhere else."""

ERROR_CHARS_MAX = 2_000
"""Of what an asker is told about a failure."""

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]


PARTITION_DIGITS_MAX = 9
"""Partition numbers are 32-bit integers."""


def question(topic: str, partition: int, correlation: bytes, agent: str) -> Headers:
    """Headers of a question whose answer is awaited there."""
    return (
        (REPLY_TO, topic.encode()),
        (REPLY_PARTITION, str(partition).encode()),
        (CORRELATION, correlation),
        (ASKED, agent.encode()),
    )


def answer(cursor: Cursor, agent: str, value: bytes) -> None:
    """Send an answer to whoever asked `agent` by the cursor's event; nothing for events that are no such question."""
    _reply(cursor, agent, value, ())


def answer_failure(cursor: Cursor, agent: str, what: str) -> None:
    """The same where there is no value: the asker gets a UserError that says `what`."""
    _reply(cursor, agent, b"", ((REPLY_ERROR, what[:ERROR_CHARS_MAX].encode(errors="replace")),))


def _reply(cursor: Cursor, agent: str, value: bytes, extra: Headers) -> None:
    headers = cursor.headers
    if not headers:
        return
    found = dict(headers)
    topic, correlation, partition = found.get(REPLY_TO), found.get(CORRELATION), found.get(REPLY_PARTITION)
    asked = found.get(ASKED, agent.encode())
    if topic is None or correlation is None or partition is None or asked != agent.encode():
        return
    name = topic.decode(errors="replace")
    if not partition.isdigit() or len(partition) > PARTITION_DIGITS_MAX or not name.endswith(REPLIES):
        return
    lane = cursor.lane
    lane.outbox.answer(name, int(partition), value, lane.wall_ms(), [(CORRELATION, correlation), *extra])
