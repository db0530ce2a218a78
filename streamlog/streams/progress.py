"""How far each lane of a task is, where they are not equally far.

Several lanes can read one topic, each at its own pace, but the group keeps one offset per partition: the lowest of
theirs. Rows and outputs of a lane that is ahead are in the commit nevertheless, so its events from the committed offset
to its own place must not come to it again: not after a clean stop, and not after a crash that lost nothing else. The
commit therefore says which lanes are ahead, and of what: in the metadata of the group's offset, and in the store beside
the rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

AHEAD_BYTES_MAX = 4096
"""Kafka's offset.metadata.max.bytes, by default: room for a hundred lanes. Those that find none are as if they were not
ahead: their events come to them again."""


def encode_ahead(ahead: Mapping[str, int]) -> str:
    """`{lane: exclusive end of what it processed}` as metadata of a committed offset; "" for none."""
    lanes = dict(ahead)
    while lanes:
        text = msgspec.json.encode(dict(sorted(lanes.items()))).decode()
        if len(text.encode()) <= AHEAD_BYTES_MAX:
            return text
        del lanes[min(lanes, key=lambda lane: (lanes[lane], lane))]  # the one that has least to repeat
    return ""


def decode_ahead(metadata: str) -> dict[str, int]:
    """What `encode_ahead` wrote; nothing for metadata that somebody else wrote, with a tool for offsets for example."""
    try:
        return msgspec.json.decode(metadata, type=dict[str, int])
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return {}
