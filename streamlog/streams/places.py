"""Where a task begins in a partition: the group says one offset, the store on this disk perhaps another.

    the topic was made again (its id is another)   what was said of the topic before counts for nothing
    the group's offset is of this store's line     the store, which may be ahead: a crash came between the two commits
    the group's offset is somebody else's          the group: it was set by a tool, or the task was elsewhere meanwhile
    the group has none                             the store: offsets of a resting group expire, work that is done stays
    neither has one                                the beginning

"Of this store's line" means that nobody committed in between: the group's last commit was made by the life of the task
that wrote the store, or by the one whose commit that life found when it began (see `progress.py`). Being wrong in one
direction repeats events; in the other it would lose them, so whatever is unclear is decided for the group.

Tables keep their rows in all cases. They are made of events that were processed, and what has become of those events
in their topic since does not undo that. Rows of tables that follow a topic are another matter: they are the topic's,
and go with it (`assignment.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from streamlog.client.values import OffsetAndMetadata
from streamlog.state.store import SourceOffset
from streamlog.streams.progress import Progress, decode_progress


@dataclass(frozen=True, slots=True)
class SourceLog:
    """One consumed partition as its broker describes it."""

    start_offset: int
    end_offset: int
    """The high watermark, exclusive."""
    topic_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where processing begins."""

    offset: int
    ahead: Mapping[str, int] = field(default_factory=dict)
    """Lanes that begin later."""
    topic_id: UUID | None = None
    after: str = ""
    """Who made the group's commit; see `Progress.after`."""
    notice: str | None = None
    """What somebody who looks at the log should know."""


def place_of(group: OffsetAndMetadata | None, stored: SourceOffset | None, source: SourceLog) -> Place:
    """The one rule; see the module's essay."""
    said = Progress() if group is None else decode_progress(group.metadata)
    kept = Progress() if stored is None else decode_progress(stored.metadata)
    made_again = False
    if group is not None and source.topic_id is not None and said.topic not in ("", source.topic_id.hex):
        group, said, made_again = None, Progress(), True
    if stored is not None and None not in (source.topic_id, stored.topic_id) and stored.topic_id != source.topic_id:
        stored, made_again = None, True
    notice: str | None = None
    offset, ahead = source.start_offset, dict[str, int]()
    if stored is not None and (group is None or (said.by != "" and said.by in (kept.by, kept.after))):
        offset = stored.offset if group is None else max(stored.offset, group.offset)
        ahead = _further(kept.ahead, said.ahead)
    elif group is not None:
        offset, ahead = group.offset, dict(said.ahead)
        if stored is not None and said.by == "" and group.offset != stored.offset:
            notice = f"the group's offset was set from {stored.offset} to {offset}: processing goes on there"
    elif made_again:
        notice = "the topic was deleted and made again: it is read from its beginning"
    if offset > source.end_offset:
        notice = f"the log ends at {source.end_offset}, before the committed {offset}: it is read from its beginning"
        offset, ahead = source.start_offset, {}
    if notice is not None:
        notice += "; tables keep their rows"
    return Place(offset, ahead, source.topic_id, said.by, notice)


def _further(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {lane: max(one.get(lane, -1), other.get(lane, -1)) for lane in {**one, **other}}
