"""Which names a topic can have, and which topics are the cluster's own."""

from __future__ import annotations

import re
from typing import Final

NAME_LENGTH_MAX: Final = 249
"""A partition's directory is `NAME-PARTITION`, or `NAME-PARTITION.UUID-delete` in 255 bytes: what fits, by Kafka."""

_LEGAL: Final = re.compile(r"[a-zA-Z0-9._-]+")

CONSUMER_OFFSETS: Final = "__consumer_offsets"
TRANSACTION_STATE: Final = "__transaction_state"
SHARE_GROUP_STATE: Final = "__share_group_state"
CLUSTER_METADATA: Final = "__cluster_metadata"

INTERNAL_TOPICS: Final = frozenset({CONSUMER_OFFSETS, TRANSACTION_STATE, SHARE_GROUP_STATE})
"""Written by coordinators only: clients may read them, and change nothing."""


def reason_against(name: str) -> str | None:
    """Why no topic can be called this, or None. Names become directories, so this is also what keeps `../` out."""
    if not name:
        return "a topic name cannot be empty"
    if name in (".", ".."):
        return f"a topic cannot be called {name!r}"
    if len(name) > NAME_LENGTH_MAX:
        return f"a topic name has at most {NAME_LENGTH_MAX} characters, this one has {len(name)}"
    if _LEGAL.fullmatch(name) is None:
        return f"topic name {name!r} has characters other than ASCII letters, digits, '.', '_' and '-'"
    return None
