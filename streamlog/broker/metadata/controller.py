"""The driver of the metadata: decides by its image, appends to the quorum, publishes what is committed.

Two images. `image` has what is committed: requests are answered from it, on every node. `state` has every record that
is appended: the next decision builds on it, on the node that leads the quorum. `write` runs handle, append and apply
without an await between, which is the only lock there is; then it waits until its records are committed, and by then
they are published.

Leading the quorum does not make a controller active yet. It is once the first record of its epoch is committed: with
it everything before is, `image` has all of it, and `state` begins as its copy.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

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

SNAPSHOT_RETRY_BYTES: Final = 1024 * 1024
"""After a snapshot failed (a full disk, most likely), the log grows by this before the next attempt."""


class Controller:
    """Active on the node that leads; following what is committed everywhere else."""

    def __init__(
        self,
        env: Env,
        quorum: Quorum,
        publish: Callable[[MetadataImage, MetadataDelta], None],
        snapshot_bytes: int,
    ) -> None:
        """`publish(image, delta)` follows each commit; `snapshot_bytes`: log bytes after which a snapshot is due."""
        self._env = env
        self._quorum = quorum
        self._publish = publish
        self._snapshot_bytes = snapshot_bytes
        self._uncommitted: deque[tuple[int, KnownRecord]] = deque()
        self.image = MetadataImage()
        self.state = self.image
        self.is_active = False
        self.on_active: Callable[[], None] = lambda: None
        """Called when this controller has become the active one."""
        self._when_active: list[Callable[[], None]] = []
        self._leads_from: int | None = None  # first offset of the epoch that this node leads
        self._next_offset = 0  # everything below is in `image`
        self._snapshot_end_offset = 0
        self._is_publishing = False

    def load(self) -> None:
        """Fold the newest snapshot; what is committed behind it follows as the quorum learns of it.

        Nothing is published before `begin_publishing`.
        """
        self._load_snapshot()
        self._quorum.on_committed = self._on_committed
        self._quorum.on_leader = self._on_leader
        self._quorum.on_snapshot = self._on_snapshot

    def begin_publishing(self) -> None:
        """Whoever follows the metadata has seen `image` as it is now, and is told of every change from here on."""
        self._is_publishing = True

    def call_when_active(self, callback: Callable[[], None]) -> None:
        """`callback` is called, like `on_active`, each time this controller becomes the active one."""
        self._when_active.append(callback)

    def _load_snapshot(self) -> None:
        loaded = self._quorum.load_snapshot()
        if loaded is not None:
            snapshot_id, snapshot = loaded
            for value in snapshot.values:
                self.image.apply(decode_record(value), snapshot_id.end_offset - 1)
            self._next_offset = self._snapshot_end_offset = snapshot_id.end_offset

    def _on_snapshot(self, snapshot_id: SnapshotId) -> None:
        """The leader's snapshot has replaced what was here: whatever was folded is in it."""
        self.image = self.state = MetadataImage()
        self._load_snapshot()
        log.info("metadata reloaded from snapshot %s", snapshot_id.file_name)

    def _on_leader(self, change: LeaderChanged) -> None:
        self._leads_from = change.start_offset
        self.is_active = False
        self._uncommitted.clear()
        self.state = self.image

    @property
    def next_offset(self) -> int:
        """Where the next record will stand; a broker's epoch is the offset of its registration."""
        return self._quorum.next_offset

    async def write(self, decide: Callable[[MetadataImage], Decision[A]]) -> A:
        """Decide, and return the response once the records are committed and published.

        Raises KafkaError of the decision, KAFKA_STORAGE_ERROR when the disk refuses, or NOT_CONTROLLER when another
        node leads: then the records may be committed by that one, or not. Cancelling does not take back what was
        appended: it is committed and published all the same.
        """
        if not self.is_active:
            raise KafkaError(ErrorCode.NOT_CONTROLLER, "another node is the active controller")
        decision = decide(self.state)
        if decision.records:
            values = [encode_record(record) for record in decision.records]
            last_offset = self._quorum.append(values, self._env.clock.wall_ms())
            for offset, record in enumerate(decision.records, last_offset + 1 - len(values)):
                self.state.apply(record, offset)
                self._uncommitted.append((offset, record))
        # A decision without records waits too: it may rest on records that are not committed yet.
        await self._quorum.commit(self.state.applied_offset)
        return decision.response

    async def write_records(self, records: Iterable[KnownRecord]) -> None:
        """Append records that need no decision."""
        await self.write(lambda _: Decision(tuple(records), None))

    def _on_committed(self, end_offset: int) -> None:
        delta = MetadataDelta() if self._is_publishing else None
        uncommitted = self._uncommitted
        if self.is_active:
            while uncommitted and uncommitted[0][0] < end_offset:
                offset, record = uncommitted.popleft()
                self.image.apply(record, offset, delta)
        else:
            for found in self._quorum.records(self._next_offset, end_offset):
                self.image.apply(decode_record(found.value), found.offset, delta)
        self._next_offset = end_offset
        if self._leads_from is not None and not self.is_active and end_offset > self._leads_from:
            self.is_active = True
            self.state = self.image.copy()
            self.on_active()
            for callback in self._when_active:
                callback()
        if delta is not None:
            self._publish(self.image, delta)
        if self._quorum.bytes_since_snapshot >= self._snapshot_bytes:
            self.snapshot()

    def snapshot(self) -> None:
        """Store the image, so that the next start need not read the whole log. A failure is only a longer start."""
        end_offset = self.image.applied_offset + 1
        if end_offset <= self._snapshot_end_offset:
            return
        values = [encode_record(record) for record in image_records(self.image)]
        try:
            self._quorum.write_snapshot(values, end_offset)
            self._snapshot_end_offset = end_offset
        except (OSError, PartitionOffline) as error:
            log.error("metadata snapshot failed: %s", error)
            self._quorum.bytes_since_snapshot = max(0, self._snapshot_bytes - SNAPSHOT_RETRY_BYTES)
