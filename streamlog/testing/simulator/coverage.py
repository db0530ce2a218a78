"""Situations that a campaign must reach, or it tests less than it seems to (`Hooks.sometimes`).

Each name that is passed as a literal is in one of the two lists; a test compares them with the calls.
"""

from __future__ import annotations

from typing import Final

SITUATIONS: Final = (
    "recovery cut a torn tail",
    "recovery walked batches",
    "clean start",
    "derived file rebuilt",
    "interrupted file operation finished",
    "duplicate batch recognised",
    "acknowledged batch repeated",
    "gap in a producer's numbers refused",
    "append undone",
    "sync failed",
    "sync shared by several appends",
    "append during a sync",
    "segment rolled",
    "checkpoint made",
    "metadata snapshot written",
    "metadata snapshot loaded",
    "coordinator shard loaded from a log",
    "coordinator shard dropped",
    "compaction done",
    "delivery unknown",
    "record not delivered",
    "commit failed",
    "broker ended by itself",
    "disk was full",
    "loop went on during a thread's work",
    "partition moved",
    "preferred leader elected",
    "follower truncated",
    "checkpoint not written",
    "metadata write in doubt",
    "controller ended by itself",
    "all nodes stopped at once",
)
"""Some of 300 usual seeds get into each of them."""

RARE_SITUATIONS: Final = (
    "follower started over",
    "metadata log gave way to a snapshot after a crash",
    "move cancelled",
)
"""One run in hundreds or thousands gets there: only a large campaign has to."""
