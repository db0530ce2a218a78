"""Walking over the batches of a `.log` file, by headers alone or with the bytes."""

from __future__ import annotations

from collections.abc import Iterator

from streamlog.env import File
from streamlog.wire.records import HEADER_BYTES, BatchHeader, CorruptBatch, NeedMoreData, decode_batch_header

HEADER_WINDOW_BYTES = 8 * 1024
"""Read ahead while looking for one batch: two index intervals, so that small batches cost one read together."""

BATCH_WINDOW_BYTES = 1024 * 1024
"""Read ahead while walking whole batches: large enough that a system call is noise, small enough to stay in cache."""


def walk_headers(file: File, position: int, end_position: int) -> Iterator[tuple[int, BatchHeader]]:
    """(position, header) of each batch from `position`, which starts one, up to `end_position`.

    Raises: CorruptBatch: no batch where one must be, one that reaches beyond the end, or offsets that go back. The
    checksum does not cover the base offset; its order is what speaks for it.
    """
    least_offset = -1
    while position < end_position:
        window = file.pread(min(HEADER_WINDOW_BYTES, end_position - position), position)
        at = 0
        while len(window) - at >= HEADER_BYTES:
            header = decode_batch_header(window, at)
            size_bytes = header.size_bytes
            if position + at + size_bytes > end_position:
                raise CorruptBatch(f"the batch at {position + at} ends after {end_position}")
            if header.base_offset < least_offset:
                raise CorruptBatch(f"the batch at {position + at} goes back to offset {header.base_offset}")
            least_offset = header.next_offset
            yield position + at, header
            at += size_bytes
        if at == 0:
            raise CorruptBatch(f"{len(window)} bytes at {position} are no batch header")
        position += at


def walk_batches(
    file: File, position: int, end_position: int, window_bytes: int = BATCH_WINDOW_BYTES
) -> Iterator[tuple[int, BatchHeader, memoryview]]:
    """(position, header, bytes of the whole batch) from `position` up to `end_position`. Checksums are not checked.

    Raises: NeedMoreData: the file ends inside a batch. CorruptBatch: bytes that cannot be one. Either comes
    after every whole batch before it was yielded.
    """
    while position < end_position:
        window = memoryview(file.pread(min(window_bytes, end_position - position), position))
        at = 0
        while len(window) - at >= HEADER_BYTES:
            header = decode_batch_header(window, at)
            end = at + header.size_bytes
            if end > len(window):
                break
            yield position + at, header, window[at:end]
            at = end
        if at == 0:
            window = memoryview(file.pread(_size_at(window, position, end_position), position))
            header = decode_batch_header(window)
            if len(window) < header.size_bytes:
                raise NeedMoreData(f"the batch at {position} is cut")
            yield position, header, window
            at = len(window)
        position += at


def _size_at(window: memoryview, position: int, end_position: int) -> int:
    """Size of the batch that starts with `window`, of which the window holds only the beginning."""
    size_bytes = decode_batch_header(window).size_bytes
    if position + size_bytes > end_position:
        raise NeedMoreData(f"the batch at {position} has {size_bytes} bytes, {end_position - position} are there")
    return size_bytes
