"""The body of a lane that only passes events on: the half of a stream before a group_by or a through."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from streamlog.streams.answers import answer_failure
from streamlog.streams.cursor import Cursor
from streamlog.streams.planning import Target
from streamlog.streams.stream import Step
from streamlog.streams.walk import DROP, compile_steps

log = logging.getLogger(__name__)


def forward_body(steps: tuple[Step, ...], target: Target) -> Callable[[Cursor], Coroutine[Any, Any, None]]:
    """Send each event to the target's topic, under its new key if it gets one, with its time and its headers.

    The bytes of values that no step changed are sent as they came. Events whose new key is None are dropped; the first
    of a partition is logged.
    """
    name = target.topic.name
    encode_key, encode_value = target.topic.key_serde.encode, target.topic.value_serde.encode
    select, unchanged = target.select_key, target.unchanged

    async def forward(cursor: Cursor) -> None:
        lane = cursor.lane
        lane.begin(cursor)
        append, asked = lane.outbox.sender(name), lane.plan.answers_for
        has_dropped = False
        apply = compile_steps(steps, cursor)
        while True:
            chunk = lane.pull(cursor)
            if chunk is None:
                if not await lane.wait(cursor):
                    return
                continue
            columns, timestamps_ms = cursor.batch.columns, cursor.reading.timestamps_ms
            for index, value in chunk:
                cursor.index = index
                if apply is not None:
                    value = apply(value)
                    if value is DROP:
                        continue
                if select is None:
                    key = columns.keys[index]
                else:
                    selected = select(value)
                    if selected is None:
                        if not has_dropped:
                            has_dropped = True
                            log.warning(
                                "agent=%s partition=%d: group_by() found no key (None) in the event at offset %d; such "
                                "events are dropped, further ones without a word",
                                lane.plan.name,
                                lane.partition,
                                cursor.offset,
                            )
                        if asked is not None:
                            answer_failure(cursor, asked, "group_by() found no key in the question")
                        continue
                    key = encode_key(selected)
                data = columns.values[index] if unchanged else None if value is None else encode_value(value)
                append(key, data, timestamps_ms[index], columns.headers[index])
            lane.exhausted(cursor)

    return forward
