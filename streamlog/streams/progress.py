"""What a commit says beside its offsets: who made it, of which topic, and which lanes are further.

It is the metadata of the group's committed offset, and of the offset in the task's store; people see it in the listings
of any tool. Two things cannot be told from the numbers alone:

Lanes ahead. Several lanes can read one topic, each at its own pace, but the group keeps one offset per partition: the
lowest of theirs. Rows and outputs of a lane that is ahead are in the commit nevertheless, so its events from the
committed offset to its own place must not come to it again: not after a clean stop, and not after a crash that lost
nothing else.

Who was last. The store and the group are written one after the other, so a crash leaves the store ahead, and then the
store is right. But the group's offset may also differ because somebody set it, or because the task was elsewhere in the
meantime, and then the group is right. Every life of a task has a name, `by`; what nobody signed was set by a tool.
`places.py` decides.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

METADATA_BYTES_MAX = 4096
"""Kafka's offset.metadata.max.bytes, by default: room for a hundred lanes. Those that find none are as if they were not
ahead: their events come to them again."""


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """Metadata of one committed offset."""

    by: str = ""
    """The life of the task that committed; "" when somebody else did."""
    after: str = ""
    """Whose commit the group had when that life began. Only in the store: until the group has a commit of `by`, this is
    what it must still have."""
    topic: str = ""
    """Id of the topic, as hex; "" when the brokers have none."""
    ahead: Mapping[str, int] = {}
    """{lane: exclusive end of what it processed}, of lanes beyond the offset."""


def encode_progress(progress: Progress) -> str:
    """As text that a broker takes. Lanes without room are left out."""
    lanes = dict(sorted(progress.ahead.items()))
    while True:
        text = msgspec.json.encode(msgspec.structs.replace(progress, ahead=lanes)).decode()
        if len(text.encode()) <= METADATA_BYTES_MAX or not lanes:
            return text
        del lanes[min(lanes, key=lambda lane: (lanes[lane], lane))]  # the one that has least to repeat


def decode_progress(metadata: str) -> Progress:
    """What `encode_progress` wrote. Metadata of somebody else, a tool for offsets for example, says nothing."""
    try:
        return msgspec.json.decode(metadata, type=Progress)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return Progress()
