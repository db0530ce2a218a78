"""Situations that a campaign must reach, or it tests less than it seems to (`Hooks.sometimes`)."""

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
)
