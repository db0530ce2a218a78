"""The four compressions of record batches, with an upper bound on what may come out.

A few hundred bytes can be made to decompress into gigabytes. So every decoder here knows before it starts how much
it may produce: snappy blocks declare their size, lz4 and zstd frames are walked block by block (their headers bound
each block), gzip is inflated in steps. Memory is never taken for output beyond the cap.

Formats, as Kafka's clients write them: gzip (RFC 1952), snappy in the xerial framing (and a bare block, which
some producers send), lz4 frames with independent blocks, zstd frames (RFC 8878).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from enum import IntEnum
from struct import Struct

import cramjam

from streamlog.errors import LocalProtocolError, RemoteProtocolError

# What one compressed payload may become: 64 MiB, or 16 times its size where that is more. Kafka's own limit of
# 1 MiB on a batch leaves an honest producer far below it; a bomb needs a thousand times its size.
DECOMPRESSED_BYTES_MAX = 64 * 1024 * 1024
DECOMPRESSED_RATIO_MAX = 16
# Frames (gzip: members) in one payload. Producers write one; each costs a start of the decoder, and gzip's a copy of
# all the bytes behind it, so a payload of nothing but empty ones would be slow to read.
_MEMBERS_MAX = 16


class Compression(IntEnum):
    """Bits 0-2 of a batch's attributes."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


# The ranges of Kafka's compression.*.level settings; without a default, as each library has its own.
LEVELS = {
    Compression.NONE: range(0),
    Compression.GZIP: range(1, 10),
    Compression.SNAPPY: range(0),
    Compression.LZ4: range(1, 18),
    Compression.ZSTD: range(-131072, 23),
}


class CorruptPayload(RemoteProtocolError):
    """Bytes that are not what their compression says they are."""


class PayloadTooLarge(CorruptPayload):
    """A compressed payload that would become larger than the reader allows."""


Payload = bytes | bytearray | memoryview


def compress(payload: Payload, compression: Compression, level: int | None = None) -> Payload:
    """Compress one payload in the form Kafka's Java and C clients read.

    `level` is within LEVELS; None is the compression's own default. Raises LocalProtocolError for another level.
    """
    if level is not None and level not in LEVELS[compression]:
        raise LocalProtocolError(f"{compression.name.lower()} has no compression level {level}")
    match compression:
        case Compression.NONE:
            return payload
        case Compression.GZIP:
            return _compress_gzip(payload, level)
        case Compression.SNAPPY:
            return _compress_snappy(payload)
        case Compression.LZ4:
            return _compress_lz4(payload, level)
        case Compression.ZSTD:
            return _compress_zstd(payload, level)


def decompress(payload: Payload, compression: Compression, decompressed_bytes_max: int | None = None) -> Payload:
    """Undo `compress`, refusing to produce more than `decompressed_bytes_max` bytes.

    Default of the cap: 64 MiB, or 16 times the payload where that is more.
    Raises: PayloadTooLarge: the cap would be passed; nothing of that size was allocated. CorruptPayload: bad bytes.
    """
    if decompressed_bytes_max is None:
        decompressed_bytes_max = max(DECOMPRESSED_BYTES_MAX, DECOMPRESSED_RATIO_MAX * len(payload))
    if compression is not Compression.NONE and len(payload) == 0:
        raise CorruptPayload(f"{compression.name.lower()} payload of 0 bytes")
    match compression:
        case Compression.NONE:
            return payload
        case Compression.GZIP:
            return _decompress_gzip(payload, decompressed_bytes_max)
        case Compression.SNAPPY:
            return _decompress_snappy(payload, decompressed_bytes_max)
        case Compression.LZ4:
            return _decompress_lz4(payload, decompressed_bytes_max)
        case Compression.ZSTD:
            return _decompress_zstd(payload, decompressed_bytes_max)


_DECOMPRESS_INTO: dict[str, Callable[[Payload, Payload], int]] = {
    "snappy": cramjam.snappy.decompress_raw_into,
    "lz4": cramjam.lz4.decompress_into,
    "zstd": cramjam.zstd.decompress_into,
}
# What cramjam says when the decoder had more to write than the output holds. No exception type tells it apart.
_OUTPUT_FULL = "failed to write whole buffer"


def _perform_into(name: str, payload: memoryview, out: memoryview, bytes_max: int) -> int:
    """Decompress into `out` and return how much of it was filled."""
    try:
        return _DECOMPRESS_INTO[name](payload, out)
    except cramjam.DecompressionError as error:
        if _OUTPUT_FULL in str(error):
            raise _too_large(name, bytes_max) from None
        raise CorruptPayload(f"{name} payload: {error}") from None


def _too_large(name: str, bytes_max: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"{name} payload would decompress to more than {bytes_max} bytes")


# gzip: the standard library can stop after a given number of output bytes, which no block header can tell here.

_GZIP_WINDOW_BITS = 31  # 15 bits of window, plus 16 for the gzip wrapper
_GZIP_LEVEL_DEFAULT = 6


def _compress_gzip(payload: Payload, level: int | None) -> Payload:
    compressor = zlib.compressobj(_GZIP_LEVEL_DEFAULT if level is None else level, zlib.DEFLATED, _GZIP_WINDOW_BITS)
    return compressor.compress(payload) + compressor.flush()


def _decompress_gzip(payload: Payload, bytes_max: int) -> Payload:
    members: list[bytes] = []
    produced_bytes = 0
    rest: Payload = payload
    for _ in range(_MEMBERS_MAX):
        inflater = zlib.decompressobj(_GZIP_WINDOW_BITS)
        try:
            member = inflater.decompress(rest, bytes_max - produced_bytes + 1)
        except zlib.error as error:
            raise CorruptPayload(f"gzip payload: {error}") from None
        produced_bytes += len(member)
        if produced_bytes > bytes_max:
            raise _too_large("gzip", bytes_max)
        members.append(member)
        if not inflater.eof:
            raise CorruptPayload("gzip payload ends too early")
        if not inflater.unused_data:
            return members[0] if len(members) == 1 else b"".join(members)
        rest = inflater.unused_data
    raise CorruptPayload(f"gzip payload of more than {_MEMBERS_MAX} members")


# snappy: raw blocks behind the header of snappy-java's stream, each with its length.

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = Struct(">8sii")
_XERIAL_HEADER_BYTES = 16
_XERIAL_BLOCK = Struct(">i")
# What snappy-java and kafka-python write; readers take any size.
_XERIAL_BLOCK_BYTES = 32 * 1024
# The densest element of a raw block is a 3-byte copy of 64 bytes; the preamble adds up to 5.
_SNAPPY_RATIO_MAX = 22


def _compress_snappy(payload: Payload) -> Payload:
    out = bytearray(_XERIAL_HEADER.pack(_XERIAL_MAGIC, 1, 1))
    with memoryview(payload) as view:
        for start in range(0, len(view), _XERIAL_BLOCK_BYTES):
            block = memoryview(cramjam.snappy.compress_raw(view[start : start + _XERIAL_BLOCK_BYTES]))
            out += _XERIAL_BLOCK.pack(len(block))
            out += block
    return out


def _decompress_snappy(payload: Payload, bytes_max: int) -> Payload:
    with memoryview(payload) as view:
        if bytes(view[:8]) != _XERIAL_MAGIC:
            return _decompress_snappy_blocks([view], bytes_max)
        if len(view) < _XERIAL_HEADER_BYTES:
            raise CorruptPayload("snappy payload ends inside its stream header")
        blocks = []
        position = _XERIAL_HEADER_BYTES
        while position < len(view):
            if len(view) - position < _XERIAL_BLOCK.size:
                raise CorruptPayload("snappy payload ends inside a block length")
            (size_bytes,) = _XERIAL_BLOCK.unpack_from(view, position)
            position += _XERIAL_BLOCK.size
            # A length as large as 2^31 - 1 is how CVE-2023-43642 made snappy-java allocate.
            if size_bytes < 0 or size_bytes > len(view) - position:
                raise CorruptPayload(f"snappy block of {size_bytes} bytes in a payload of {len(view)}")
            blocks.append(view[position : position + size_bytes])
            position += size_bytes
        return _decompress_snappy_blocks(blocks, bytes_max)


def _decompress_snappy_blocks(blocks: list[memoryview], bytes_max: int) -> Payload:
    sizes = [_snappy_block_bytes(block) for block in blocks]
    if sum(sizes) > bytes_max:
        raise _too_large("snappy", bytes_max)
    out = bytearray(sum(sizes))
    position = 0
    with memoryview(out) as view:
        for block, size_bytes in zip(blocks, sizes, strict=True):
            if size_bytes:
                _perform_into("snappy", block, view[position : position + size_bytes], bytes_max)
            position += size_bytes
    return out


def _snappy_block_bytes(block: memoryview) -> int:
    """The size a raw block declares, checked against what that many bytes can say at most."""
    try:
        size_bytes = int(cramjam.snappy.decompress_raw_len(block))
    except cramjam.DecompressionError as error:
        raise CorruptPayload(f"snappy block: {error}") from None
    if size_bytes > _SNAPPY_RATIO_MAX * len(block):
        raise CorruptPayload(f"snappy block of {len(block)} bytes declares {size_bytes}")
    return size_bytes


# lz4: one frame of independent blocks of 64 KiB without checksums, the header Kafka's Java client writes.

_LZ4_MAGIC = 0x184D2204
_SKIPPABLE_MAGIC_MIN, _SKIPPABLE_MAGIC_MAX = 0x184D2A50, 0x184D2A5F
# Magic, version 1 with independent blocks, block size 64 KiB, and the checksum of those two bytes.
_LZ4_HEADER = bytes.fromhex("04224d18 60 40 82")
_LZ4_BLOCK_BYTES = 64 * 1024
_LZ4_STORED_BIT = 0x8000_0000
_LZ4_RATIO_MAX = 255  # one byte more of match length is 255 bytes more of output
_LZ4_LEVEL_HIGH_COMPRESSION_MIN = 3
_U32LE = Struct("<I")
_U64LE = Struct("<Q")


def _compress_lz4(payload: Payload, level: int | None) -> Payload:
    out = bytearray(_LZ4_HEADER)
    high = level is not None and level >= _LZ4_LEVEL_HIGH_COMPRESSION_MIN
    with memoryview(payload) as view:
        for start in range(0, len(view), _LZ4_BLOCK_BYTES):
            stored = view[start : start + _LZ4_BLOCK_BYTES]
            if high:
                block = memoryview(
                    cramjam.lz4.compress_block(stored, mode="high_compression", compression=level, store_size=False)
                )
            else:
                block = memoryview(cramjam.lz4.compress_block(stored, store_size=False))
            if len(block) < len(stored):
                out += _U32LE.pack(len(block))
                out += block
            else:
                out += _U32LE.pack(len(stored) | _LZ4_STORED_BIT)
                out += stored
    out += _U32LE.pack(0)
    return out


def _decompress_lz4(payload: Payload, bytes_max: int) -> Payload:
    return _decompress_bounded("lz4", payload, _lz4_bounds, bytes_max)


def _lz4_bounds(view: memoryview, position: int) -> tuple[int, int, int]:
    """Walk one frame: where it ends, the least and the most bytes it can decompress to."""
    flags, block_descriptor = view[position + 4], view[position + 5]
    position += 7
    if flags >> 6 != 1:
        raise CorruptPayload(f"lz4 frame of unknown version {flags >> 6}")
    if flags & 0x01:
        raise CorruptPayload("lz4 frame needs a dictionary")
    size_id = block_descriptor >> 4 & 7
    if size_id < 4:
        raise CorruptPayload(f"lz4 frame with unknown block size {size_id}")
    block_bytes_max = 1 << (8 + 2 * size_id)
    declared: int | None = None
    if flags & 0x08:
        (declared,) = _U64LE.unpack_from(view, position - 1)
        position += 8
    block_checksum_bytes = 4 if flags & 0x10 else 0
    least = most = 0
    while True:
        (word,) = _U32LE.unpack_from(view, position)
        position += 4
        if word == 0:
            break
        size_bytes = word & ~_LZ4_STORED_BIT
        position += size_bytes + block_checksum_bytes
        if size_bytes > block_bytes_max or position > len(view):
            raise CorruptPayload(f"lz4 block of {size_bytes} bytes at byte {position - size_bytes} does not fit")
        if word & _LZ4_STORED_BIT:
            least += size_bytes
            most += size_bytes
        else:
            most += min(block_bytes_max, _LZ4_RATIO_MAX * size_bytes)
    if flags & 0x04:
        position += 4
    return _declared_within("lz4", declared, position, least, most)


# zstd: frames of blocks of at most 128 KiB; the content size is often absent, as streaming writers do not know it.

_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_BLOCK_BYTES_MAX = 128 * 1024
# What the reference decoder accepts; a larger window is only a way to make readers reserve memory.
_ZSTD_WINDOW_BYTES_MAX = 1 << 27
# Kafka's default, as is zstd's own; cramjam's is 11, which costs five times the work.
_ZSTD_LEVEL_DEFAULT = 3
_ZSTD_RAW, _ZSTD_RLE, _ZSTD_COMPRESSED = 0, 1, 2
_ZSTD_DICTIONARY_ID_BYTES = (0, 1, 2, 4)


def _compress_zstd(payload: Payload, level: int | None) -> Payload:
    return memoryview(cramjam.zstd.compress(payload, _ZSTD_LEVEL_DEFAULT if level is None else level))


def _decompress_zstd(payload: Payload, bytes_max: int) -> Payload:
    return _decompress_bounded("zstd", payload, _zstd_bounds, bytes_max)


def _zstd_bounds(view: memoryview, position: int) -> tuple[int, int, int]:
    """Walk one frame: where it ends, the least and the most bytes it can decompress to."""
    descriptor = view[position + 4]
    position += 5
    single_segment = descriptor & 0x20 != 0
    window_bytes = 0
    if not single_segment:
        window = view[position]
        position += 1
        window_base = 1 << (10 + (window >> 3))
        window_bytes = window_base + (window_base >> 3) * (window & 7)
    if descriptor & 3:
        raise CorruptPayload("zstd frame needs a dictionary")
    content_size_id = descriptor >> 6
    declared: int | None = None
    if content_size_id or single_segment:
        content_size_bytes = 1 << content_size_id
        field = view[position : position + content_size_bytes]
        if len(field) < content_size_bytes:
            raise IndexError
        declared = int.from_bytes(field, "little") + (256 if content_size_id == 1 else 0)
        position += content_size_bytes
    if single_segment:
        window_bytes = declared or 0
    if window_bytes > _ZSTD_WINDOW_BYTES_MAX:
        raise CorruptPayload(f"zstd frame wants a window of {window_bytes} bytes")
    block_bytes_max = min(window_bytes, _ZSTD_BLOCK_BYTES_MAX)
    least = most = 0
    while True:
        word = view[position] | view[position + 1] << 8 | view[position + 2] << 16
        position += 3
        kind, size_bytes = word >> 1 & 3, word >> 3
        if size_bytes > block_bytes_max:
            raise CorruptPayload(f"zstd block of {size_bytes} bytes where {block_bytes_max} is the limit")
        if kind == _ZSTD_COMPRESSED:
            most += block_bytes_max
            position += size_bytes
        elif kind in (_ZSTD_RAW, _ZSTD_RLE):
            least += size_bytes
            most += size_bytes
            position += size_bytes if kind == _ZSTD_RAW else 1
        else:
            raise CorruptPayload("zstd block of a reserved kind")
        if word & 1:
            break
    if descriptor & 0x04:
        position += 4
    return _declared_within("zstd", declared, position, least, most)


def _declared_within(name: str, declared: int | None, end: int, least: int, most: int) -> tuple[int, int, int]:
    if declared is None:
        return end, least, most
    if not least <= declared <= most:
        raise CorruptPayload(f"{name} frame declares {declared} bytes, its blocks hold {least} to {most}")
    return end, declared, declared


# lz4 and zstd payloads are both sequences of frames.


def _decompress_bounded(
    name: str, payload: Payload, frame_bounds: Callable[[memoryview, int], tuple[int, int, int]], bytes_max: int
) -> Payload:
    """Decompress into one buffer, sized by what the frames' headers say can come out at most."""
    with memoryview(payload) as view:
        try:
            frames, least, most = _walk_frames(name, view, frame_bounds)
        except (IndexError, struct.error):
            raise CorruptPayload(f"{name} payload ends too early") from None
        if least > bytes_max:
            raise _too_large(name, bytes_max)
        if most == 0:
            return b""
        out = bytearray(min(most, bytes_max))
        produced_bytes = 0
        with memoryview(out) as room:
            for start, end in frames:
                produced_bytes += _perform_into(name, view[start:end], room[produced_bytes:], bytes_max)
    return memoryview(out)[:produced_bytes]


def _walk_frames(
    name: str, view: memoryview, frame_bounds: Callable[[memoryview, int], tuple[int, int, int]]
) -> tuple[list[tuple[int, int]], int, int]:
    """Where the frames are, and the least and the most bytes that they decompress to together."""
    magic = _LZ4_MAGIC if name == "lz4" else _ZSTD_MAGIC
    frames: list[tuple[int, int]] = []
    least = most = position = 0
    while position < len(view):
        start = position
        (word,) = _U32LE.unpack_from(view, position)
        if word == magic:
            position, frame_least, frame_most = frame_bounds(view, position)
            frames.append((start, position))
            least += frame_least
            most += frame_most
        elif _SKIPPABLE_MAGIC_MIN <= word <= _SKIPPABLE_MAGIC_MAX:
            (skipped_bytes,) = _U32LE.unpack_from(view, position + 4)
            position += 8 + skipped_bytes
        else:
            raise CorruptPayload(f"{name} frame expected at byte {position}")
    if position > len(view):
        raise CorruptPayload(f"{name} payload ends too early")
    if len(frames) > _MEMBERS_MAX:
        raise CorruptPayload(f"{name} payload of {len(frames)} frames")
    return frames, least, most
