"""Keys that are not where our partitioner would have put them.

A table that follows a topic has its rows where the topic's producers put the records. They may choose partitions in
another way than Java's clients and ours: librdkafka's do, by default. The owner of a partition sees it by its own
rows, and says so beside a key that it does not have (`Found.elsewhere`); then the other partitions are asked too.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec

from streamlog.client.partitioner import partition_for_key
from streamlog.env import all_of
from streamlog.web.answers import Found, GetMany

ROWS_ASKED_MAX = 64
"""Rows that an owner looks at for a key that it does not have."""

ROWS_TELLING_MIN = 16
"""With fewer rows all of them may be where they are by chance."""


def is_elsewhere(rows: Iterable[bytes], partition: int, partitions: int) -> bool:
    """Whether a key that is missing here may be on another partition, as some of the rows' keys show."""
    homes = [partition_for_key(key, partitions) for key in rows]
    return partitions > 1 and (len(homes) < ROWS_TELLING_MIN or any(home != partition for home in homes))


async def get_anywhere(ask: Callable[[GetMany], Coroutine[Any, Any, Found]], wanted: GetMany, partitions: int) -> Found:
    """Ask one partition, and the others about what it says may be there.

    The staleness is that of the partition that had the last of the keys.
    """
    found = await ask(wanted)
    missing = [index for index, value in enumerate(found.values) if value is None]
    if not found.elsewhere or not missing:
        return found
    keys = [wanted.keys[index] for index in missing]
    others = [number for number in range(partitions) if number != wanted.partition]
    answers = await all_of(ask(msgspec.structs.replace(wanted, partition=number, keys=keys)) for number in others)
    values, staleness = list(found.values), found.staleness
    for answer in answers:
        for index, value in zip(missing, answer.values, strict=True):
            if value is not None:
                values[index], staleness = value, answer.staleness
    return Found(values=values, staleness=staleness)
