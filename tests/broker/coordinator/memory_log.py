"""A log in memory behind the runtime's ShardLog seam, with a disk that can be held up or refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.records import decode_batch_header, set_base_offset


class MemoryLog:
    """Commits at once unless `hold` was called."""

    def __init__(self) -> None:
        self.leadership = object()
        self.data = bytearray()
        self.end_offset = 0
        self.is_cut_off = False
        self.refuses: ErrorCode | None = None
        """Set: the next append is refused with it."""
        self.reading = asyncio.Event()
        """Cleared: reading waits."""
        self.reading.set()
        self._held_at: int | None = None
        self._moved = asyncio.Event()

    @property
    def committed_offset(self) -> int:
        return self.end_offset if self._held_at is None else self._held_at

    def hold(self) -> None:
        """Commit nothing more until `release`."""
        self._held_at = self.end_offset

    def release(self) -> None:
        self._held_at = None
        self._moved.set()
        self._moved = asyncio.Event()

    def append(self, batch: bytearray, now_ms: int) -> None:
        if self.refuses is not None:
            code, self.refuses = self.refuses, None
            raise KafkaError(code)
        header = decode_batch_header(batch)
        set_base_offset(batch, 0, self.end_offset)
        self.data += batch
        self.end_offset += header.last_offset_delta + 1

    async def wait_committed(self, offset: int) -> None:
        while self.committed_offset < offset:
            await self._moved.wait()

    async def read(self) -> AsyncIterator[bytes]:
        await self.reading.wait()
        yield bytes(self.data)
