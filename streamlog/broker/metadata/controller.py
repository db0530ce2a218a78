"""The driver of the metadata: decides by its image, appends to the quorum, publishes what is committed.

Two images. `image` has what is committed: requests are answered from it, on every node. `state` has every record that
is appended: the next decision builds on it, on the node that leads the quorum. `write` runs handle, append and apply
without an await between, which is the only lock there is; then it waits until its records are committed, and by then
they are published.

Leading the quorum does not make a controller active yet. It is once the first record of its epoch is committed: with
it everything before is, `image` has all of it, and `state` begins as its copy.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias, TypeVar

from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.metadata.decision import Decision
from streamlog.broker.metadata.image import KnownRecord, MetadataDelta, MetadataImage, image_records
from streamlog.broker.metadata.records import decode_record, encode_record
from streamlog.broker.raft.effects import LeaderChanged
from streamlog.broker.raft.messages import SnapshotId
from streamlog.broker.raft.quorum import Quorum
from streamlog.env import Env
from streamlog.wire.error_codes import ErrorCode, KafkaError

log = logging.getLogger(__name__)

A = TypeVar("A")

Publish: TypeAlias = Callable[[MetadataImage, MetadataDelta], None]
"""Told of the image after a run of committed records, and of what they touched."""

SNAPSHOT_RETRY_BYTES: Final = 1024 * 1024
"""After a snapshot failed (a full disk, most likely), the log grows by this before the next attempt."""


class Controller:
    """Active on the node that leads; following what is committed everywhere else."""

    def __init__(
        self,
        env: Env,
        quorum: Quorum,
        snapshot_bytes: int,
    ) -> None:
        """`snapshot_bytes`: log bytes after which a snapshot is due."""
        self._env = env
        self.quorum = quorum
        self._publish: Publish | None = None  # None: nobody follows yet
        self._snapshot_bytes = snapshot_bytes
        self._uncommitted: deque[tuple[int, KnownRecord]] = deque()
        self.image = MetadataImage()
        self.state = self.image
        self.is_active = False
        self._when_active: list[Callable[[], None]] = []
        self._leads_from: int | None = None  # first offset of the epoch that this node leads
        self._next_offset = 0  # everything below is in `image`
        self._snapshot_end_offset = 0
        self._changed: asyncio.Future[None] | None = None  # somebody waits for the image to change

    def load(self) -> None:
        """Fold the newest snapshot; what is committed behind it follows as the quorum learns of it.

        Nothing is published before `begin_publishing`.
        """
        self._load_snapshot()
        self.quorum.on_committed = self._on_committed
        self.quorum.on_leader = self._on_leader
        self.quorum.on_snapshot = self._on_snapshot

    def begin_publishing(self, publish: Publish) -> None:
        """Whoever follows the metadata has seen `image` as it is now. `publish` is told of every change from here on,
        in place of whoever was before.
        """
        self._publish = publish

    def call_when_active(self, callback: Callable[[], None]) -> None:
        """`callback` is called each time this controller becomes the active one, in the order of these calls."""
        self._when_active.append(callback)

    def _load_snapshot(self) -> None:
        loaded = self.quorum.load_snapshot()
        if loaded is not None:
            snapshot_id, snapshot = loaded
            for value in snapshot.values:
                self.image.apply(decode_record(value), snapshot_id.end_offset - 1)
            self._next_offset = self._snapshot_end_offset = snapshot_id.end_offset

    def _on_snapshot(self, snapshot_id: SnapshotId) -> None:
        """The leader's snapshot has replaced what was here: whatever was folded is in it."""
        before = self.image
        self.image = self.state = MetadataImage()
        self._load_snapshot()
        log.info("metadata reloaded from snapshot %s", snapshot_id.file_name)
        if self._publish is not None:
            self._publish(self.image, _everything_between(before, self.image))
        self._tell_changed()

    def _on_leader(self, change: LeaderChanged) -> None:
        self._leads_from = change.start_offset
        self.is_active = False
        self._uncommitted.clear()
        self.state = self.image

    @property
    def next_offset(self) -> int:
        """Where the next record will stand; a broker's epoch is the offset of its registration."""
        return self.quorum.next_offset

    async def write(self, decide: Callable[[MetadataImage], Decision[A]]) -> A:
        """Decide, and return the response once the records are committed and published.

        Raises KafkaError of the decision, KAFKA_STORAGE_ERROR when the disk refuses, or NOT_CONTROLLER when another
        node leads: then the records may be committed by that one, or not. Cancelling does not take back what was
        appended: it is committed and published all the same.
        """
        if not self.is_active:
            raise KafkaError(ErrorCode.NOT_CONTROLLER, "another node is the active controller")
        decision = decide(self.state)
        self.append(decision.records)
        if not self.is_active:
            raise KafkaError(ErrorCode.NOT_CONTROLLER, "this node led no longer when the records were appended")
        # A decision without records waits too: it may rest on records that are not committed yet.
        await self.quorum.commit(self.state.applied_offset)
        return decision.response

    async def until(self, condition: Callable[[MetadataImage], bool], timeout_ms: int | None = None) -> bool:
        """Wait until the committed image is as wanted. Says whether it is; only a timeout makes it False."""
        try:
            async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
                while not condition(self.image):
                    if self._changed is None:
                        self._changed = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._changed)
        except TimeoutError:
            return False
        return True

    def _tell_changed(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set_result(None)

    async def write_records(self, records: Iterable[KnownRecord]) -> None:
        """Append records that need no decision, and return once they are committed."""
        await self.write(lambda _: Decision(tuple(records), None))

    def append(self, records: Iterable[KnownRecord]) -> None:
        """Append records as one batch, without waiting. The active controller only. Raises as `write` does.

        It may not be active any more afterwards: with each step a leader looks whether a majority still hears it. Then
        whoever leads next decides what becomes of the records, and none of our images may know of them before.
        """
        appended = tuple(records)
        if not appended:
            return
        last_offset = self.quorum.append([encode_record(record) for record in appended], self._env.clock.wall_ms())
        if not self.is_active:
            return
        for offset, record in enumerate(appended, last_offset + 1 - len(appended)):
            self.state.apply(record, offset)
            self._uncommitted.append((offset, record))

    def _on_committed(self, end_offset: int) -> None:
        delta = None if self._publish is None else MetadataDelta()
        uncommitted = self._uncommitted
        if self.is_active:
            while uncommitted and uncommitted[0][0] < end_offset:
                offset, record = uncommitted.popleft()
                self.image.apply(record, offset, delta)
        else:
            for found in self.quorum.records(self._next_offset, end_offset):
                self.image.apply(decode_record(found.value), found.offset, delta)
        self._next_offset = end_offset
        if self._leads_from is not None and not self.is_active and end_offset > self._leads_from:
            self.is_active = True
            self.state = self.image.copy()
            for callback in self._when_active:
                callback()
        if self._publish is not None and delta is not None:
            self._publish(self.image, delta)
        self._tell_changed()
        if self.quorum.bytes_since_snapshot >= self._snapshot_bytes:
            self.snapshot()

    def snapshot(self) -> None:
        """Store the image, so that the next start need not read the whole log. A failure is only a longer start."""
        end_offset = self.image.applied_offset + 1
        if end_offset <= self._snapshot_end_offset:
            return
        values = [encode_record(record) for record in image_records(self.image)]
        try:
            self.quorum.write_snapshot(values, end_offset)
            self._snapshot_end_offset = end_offset
        except (OSError, PartitionOffline) as error:
            log.error("metadata snapshot failed: %s", error)
            self.quorum.bytes_since_snapshot = max(0, self._snapshot_bytes - SNAPSHOT_RETRY_BYTES)


def _everything_between(before: MetadataImage, after: MetadataImage) -> MetadataDelta:
    """What may differ, for who follows one image and gets another."""
    return MetadataDelta(
        topics=dict.fromkeys(after.topics),
        deleted={
            topic_id: topic for topic_id, topic in before.topics_by_id.items() if topic_id not in after.topics_by_id
        },
        configs=dict.fromkeys((*before.configs, *after.configs)),
        brokers=dict.fromkeys((*before.brokers, *after.brokers)),
    )
