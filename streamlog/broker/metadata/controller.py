"""The driver of the metadata: decides by its image, appends to the quorum, publishes what is committed.

Two images. `state` has every record that is appended: the next decision builds on it. `image` has what is
committed: requests are answered from it. `write` runs handle, append and apply without an await between, which is
the only lock there is; then it waits until its records are committed, and by then they are published.
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
from streamlog.broker.raft.quorum import Quorum, check_voter
from streamlog.env import Env

log = logging.getLogger(__name__)

A = TypeVar("A")

SNAPSHOT_RETRY_BYTES: Final = 1024 * 1024
"""After a snapshot failed (a full disk, most likely), the log grows by this before the next attempt."""


class Controller:
    """The active controller, which in a quorum of one every node is."""

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

    def load(self) -> None:
        """Fold the newest snapshot and the log behind it. Raises EnvironmentFailure."""
        loaded = self._quorum.load_snapshot()
        start_offset = 0
        if loaded is not None:
            snapshot_id, snapshot = loaded
            check_voter(snapshot.voters, self._quorum.voter.voter)
            for value in snapshot.values:
                self.image.apply(decode_record(value), snapshot_id.end_offset - 1)
            start_offset = snapshot_id.end_offset
        for record in self._quorum.replay(start_offset):
            self.image.apply(decode_record(record.value), record.offset)
        self.state = self.image.copy()
        self._quorum.on_committed = self._on_committed

    @property
    def next_offset(self) -> int:
        """Where the next record will stand; a broker's epoch is the offset of its registration."""
        return self._quorum.next_offset

    async def write(self, decide: Callable[[MetadataImage], Decision[A]]) -> A:
        """Decide, and return the response once the records are committed and published.

        Raises KafkaError of the decision, or KAFKA_STORAGE_ERROR when the disk refuses. Cancelling does not take back
        what was appended: it is committed and published all the same.
        """
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
        delta = MetadataDelta()
        uncommitted = self._uncommitted
        while uncommitted and uncommitted[0][0] < end_offset:
            offset, record = uncommitted.popleft()
            self.image.apply(record, offset, delta)
        self._publish(self.image, delta)
        if self._quorum.bytes_since_snapshot >= self._snapshot_bytes:
            self.snapshot()

    def snapshot(self) -> None:
        """Store the image, so that the next start need not read the whole log. A failure is only a longer start."""
        values = [encode_record(record) for record in image_records(self.image)]
        try:
            self._quorum.write_snapshot(values, self.image.applied_offset + 1, self._env.clock.wall_ms())
        except (OSError, PartitionOffline) as error:
            log.error("metadata snapshot failed: %s", error)
            self._quorum.bytes_since_snapshot = max(0, self._snapshot_bytes - SNAPSHOT_RETRY_BYTES)
