"""The four compressions: what goes in comes out, and what comes out has a bound."""

from __future__ import annotations

import contextlib
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import cramjam
import lz4.frame
import pytest
import snappy
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from streamlog.errors import LocalProtocolError
from streamlog.wire import compression
from streamlog.wire.compression import LEVELS, Compression, CorruptPayload, PayloadTooLarge, compress, decompress

COMPRESSED = [Compression.GZIP, Compression.SNAPPY, Compression.LZ4, Compression.ZSTD]
PAYLOADS = {
    "empty": b"",
    "one byte": b"x",
    "text": b"".join(b"event %d; " % number for number in range(20_000)),
    "zeros": bytes(300_000),
    "noise": random.Random(1).randbytes(300_000),
    "block boundary": random.Random(2).randbytes(65_536),
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("kind", list(Compression))
def test_payload_comes_back(kind: Compression, payload: bytes) -> None:
    """Through every compression, at its default and at the ends of its levels."""
    for level in {None, *LEVELS[kind][:1], *LEVELS[kind][-1:]}:
        assert bytes(decompress(compress(payload, kind, level), kind)) == payload


@given(st.sampled_from(COMPRESSED), st.binary(max_size=2000), st.integers(1, 100))
def test_any_bytes_come_back(kind: Compression, payload: bytes, repeats: int) -> None:
    """Property of the above."""
    assert bytes(decompress(memoryview(compress(payload * repeats, kind)), kind)) == payload * repeats


def gzip_member(data: bytes) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
    return compressor.compress(data) + compressor.flush()


def zstd_stream(data: bytes) -> bytes:
    """As a streaming writer does that flushes often: many small blocks, no size."""
    compressor = zstandard.ZstdCompressor(level=19).compressobj()
    out = b"".join(
        compressor.compress(data[at : at + 10_000]) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        for at in range(0, len(data), 10_000)
    )
    return bytes(out + compressor.flush())


OTHER_WRITERS: dict[str, tuple[Compression, Callable[[bytes], bytes]]] = {
    "gzip": (Compression.GZIP, gzip_member),
    "gzip members": (Compression.GZIP, lambda data: gzip_member(data[:70]) + gzip_member(data[70:])),
    "bare snappy block": (Compression.SNAPPY, snappy.compress),
    "lz4": (Compression.LZ4, lz4.frame.compress),
    "lz4 linked blocks": (Compression.LZ4, lambda data: lz4.frame.compress(data, block_linked=True, block_size=4)),
    "lz4 checksums": (
        Compression.LZ4,
        lambda data: lz4.frame.compress(data, content_checksum=True, block_checksum=True, block_linked=False),
    ),
    "lz4 without size": (Compression.LZ4, lambda data: lz4.frame.compress(data, store_size=False, block_size=7)),
    "lz4 frames": (Compression.LZ4, lambda data: lz4.frame.compress(data[:70]) + lz4.frame.compress(data[70:])),
    "zstd": (Compression.ZSTD, zstandard.compress),
    "zstd without size": (
        Compression.ZSTD,
        lambda data: zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(data),
    ),
    "zstd stream": (Compression.ZSTD, zstd_stream),
    "zstd frames": (Compression.ZSTD, lambda data: zstandard.compress(data[:70]) + zstandard.compress(data[70:])),
    "zstd behind a skippable frame": (
        Compression.ZSTD,
        lambda data: struct.pack("<II", 0x184D2A53, 3) + b"abc" + zstandard.compress(data),
    ),
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("writer", OTHER_WRITERS)
def test_other_writers_are_read(writer: str, payload: bytes) -> None:
    """Every shape the formats allow, as independent libraries write it."""
    kind, write = OTHER_WRITERS[writer]
    assert bytes(decompress(write(payload), kind)) == payload


OTHER_READERS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.GZIP: lambda data: zlib.decompress(data, 31),
    Compression.LZ4: lz4.frame.decompress,
    Compression.ZSTD: lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("kind", OTHER_READERS)
def test_other_readers_read_ours(kind: Compression, payload: bytes) -> None:
    """What we write is the format, not our idea of it."""
    assert OTHER_READERS[kind](bytes(compress(payload, kind))) == payload


def test_lz4_header_has_the_checksum_of_its_descriptor() -> None:
    """The constant header says: version 1, independent blocks of 64 KiB."""
    info = lz4.frame.get_frame_info(bytes(compress(b"x" * 10, Compression.LZ4)))
    assert (info["block_linked"], info["block_size"], info["content_checksum"]) == (False, 65_536, False)


def zstd_run_length_bomb(blocks: int) -> bytes:
    """A frame of blocks that are each one byte, repeated 128 KiB times; no size declared."""
    block = (131_072 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return struct.pack("<IBB", 0xFD2FB528, 0, 7 << 3) + block * blocks + b"\x01\0\0"


def zstd_bomb() -> bytes:
    """A real stream of zeros: the blocks do not say how large they are, only that each is at most 128 KiB."""
    compressor = cramjam.zstd.Compressor(19)
    for _ in range(256):
        compressor.compress(bytes(1 << 20))
    return bytes(compressor.finish())


def snappy_stream(*blocks: bytes) -> bytes:
    return b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1) + b"".join(struct.pack(">i", len(b)) + b for b in blocks)


MIB = 1 << 20
BOMBS: dict[str, tuple[Compression, Callable[[], bytes]]] = {
    "gzip": (Compression.GZIP, lambda: gzip_member(bytes(256 * MIB))),
    "snappy": (Compression.SNAPPY, lambda: snappy_stream(*[snappy.compress(bytes(MIB))] * 256)),
    "lz4": (Compression.LZ4, lambda: bytes(compress(bytes(256 * MIB), Compression.LZ4))),
    "lz4 large blocks": (Compression.LZ4, lambda: lz4.frame.compress(bytes(256 * MIB), block_size=7, store_size=False)),
    "zstd": (Compression.ZSTD, zstd_bomb),
    "zstd with size": (Compression.ZSTD, lambda: zstandard.compress(bytes(256 * MIB))),
    "zstd run length": (Compression.ZSTD, lambda: zstd_run_length_bomb(2048)),
}

MEASURE = """
import resource, sys
from streamlog.wire.compression import Compression, PayloadTooLarge, decompress
payload = sys.stdin.buffer.read()
decompress_max, kind = int(sys.argv[1]), Compression(int(sys.argv[2]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decompress(payload, kind, decompress_max)
except PayloadTooLarge:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("bomb", BOMBS)
def test_bomb_is_refused_without_being_allocated(bomb: str) -> None:
    """256 MiB behind a cap of 4: the process grows by the cap and what a decoder needs for itself."""
    kind, make = BOMBS[bomb]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(4 * MIB), str(int(kind))], input=make(), capture_output=True, check=True
    )
    assert done.stderr == b""
    assert int(done.stdout) * 1024 < 24 * MIB


@pytest.mark.parametrize("kind", COMPRESSED)
def test_cap_is_exact(kind: Compression) -> None:
    """A payload of just the allowed size is read, one byte less is too little."""
    payload = PAYLOADS["text"]
    compressed = compress(payload, kind)
    assert bytes(decompress(compressed, kind, len(payload))) == payload
    with pytest.raises(PayloadTooLarge):
        decompress(compressed, kind, len(payload) - 1)


def test_default_cap_is_64_mib() -> None:
    """A kilobyte may not become more than that, and exactly that much is fine."""
    assert compression.DECOMPRESSED_BYTES_MAX == 64 * MIB
    assert len(decompress(zstd_run_length_bomb(512), Compression.ZSTD)) == 64 * MIB
    with pytest.raises(PayloadTooLarge):
        decompress(zstd_run_length_bomb(513), Compression.ZSTD)


def lz4_frame(flags: int, descriptor: int, rest: bytes) -> bytes:
    return struct.pack("<IBB", 0x184D2204, flags, descriptor) + b"\0" + rest


def zstd_frame(descriptor: int, rest: bytes) -> bytes:
    return struct.pack("<IB", 0xFD2FB528, descriptor) + rest


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        pytest.param(Compression.GZIP, b"", id="gzip of nothing"),
        pytest.param(Compression.GZIP, b"not gzip at all", id="gzip garbage"),
        pytest.param(Compression.GZIP, gzip_member(b"x" * 99)[:-1], id="gzip cut"),
        pytest.param(Compression.GZIP, gzip_member(b"x" * 99)[:-5] + b"12345", id="gzip checksum"),
        pytest.param(Compression.GZIP, gzip_member(b"") * 17, id="gzip of many members"),
        pytest.param(Compression.SNAPPY, b"", id="snappy of nothing"),
        pytest.param(Compression.SNAPPY, b"\x82SNAPPY\0\0\0", id="snappy stream header cut"),
        pytest.param(Compression.SNAPPY, snappy_stream() + b"\0\0", id="snappy block length cut"),
        pytest.param(Compression.SNAPPY, snappy_stream() + b"\x7f\xff\xff\xff", id="snappy block of 2 GiB"),
        pytest.param(Compression.SNAPPY, snappy_stream() + b"\xff\xff\xff\xff", id="snappy block of -1"),
        pytest.param(Compression.SNAPPY, b"\xff\xff\xff\xff\x0fabc", id="snappy block that declares 4 GiB"),
        pytest.param(Compression.SNAPPY, b"\x80\x01abc", id="snappy block that declares too much"),
        pytest.param(Compression.SNAPPY, snappy_stream(b"\xff" * 8), id="snappy length of too many bytes"),
        pytest.param(Compression.LZ4, b"\x04\x22", id="lz4 magic cut"),
        pytest.param(Compression.LZ4, b"no lz4 here", id="lz4 garbage"),
        pytest.param(Compression.LZ4, bytes(compress(b"x" * 99, Compression.LZ4))[:-1], id="lz4 cut"),
        pytest.param(Compression.LZ4, bytes(compress(b"x" * 99, Compression.LZ4)) + b"zz", id="lz4 tail"),
        pytest.param(Compression.LZ4, lz4_frame(0xA0, 0x40, bytes(4)), id="lz4 version"),
        pytest.param(Compression.LZ4, lz4_frame(0x61, 0x40, bytes(8)), id="lz4 dictionary"),
        pytest.param(Compression.LZ4, lz4_frame(0x60, 0x30, bytes(4)), id="lz4 block size id"),
        pytest.param(Compression.LZ4, lz4_frame(0x60, 0x40, b"\xff\xff\xff\x7f"), id="lz4 block of 2 GiB"),
        pytest.param(Compression.LZ4, lz4_frame(0x68, 0x40, b"\xff" * 8 + bytes(5)), id="lz4 declares 2^64 bytes"),
        pytest.param(Compression.ZSTD, b"\x28\xb5\x2f\xfd", id="zstd cut"),
        pytest.param(Compression.ZSTD, b"no zstd here", id="zstd garbage"),
        pytest.param(Compression.ZSTD, zstandard.compress(b"x" * 99)[:-1], id="zstd block cut"),
        pytest.param(Compression.ZSTD, zstd_frame(0x00, b"\x98\x01\0\0"), id="zstd window of 512 MiB"),
        pytest.param(Compression.ZSTD, zstd_frame(0x01, b"\x38\x07\x01\0\0"), id="zstd dictionary"),
        pytest.param(Compression.ZSTD, zstd_frame(0x00, b"\x38\x07\0\0"), id="zstd reserved block"),
        pytest.param(Compression.ZSTD, zstd_frame(0x00, b"\x00\x01\x80\x00"), id="zstd block beyond its window"),
        pytest.param(Compression.ZSTD, zstd_frame(0xE0, b"\xff" * 8 + b"\x01\0\0"), id="zstd declares 2^64 bytes"),
        pytest.param(Compression.ZSTD, zstd_frame(0x20, b"\x63\x01\0\0"), id="zstd declares what is not there"),
        pytest.param(Compression.ZSTD, struct.pack("<II", 0x184D2A50, 2**32 - 1), id="zstd skips 4 GiB"),
        pytest.param(Compression.ZSTD, zstandard.compress(b"x") * 17, id="zstd of many frames"),
        pytest.param(Compression.LZ4, lz4.frame.compress(b"x") * 17, id="lz4 of many frames"),
    ],
)
def test_malformed_payload_is_refused(kind: Compression, payload: bytes) -> None:
    """Each way to lie in a frame is CorruptPayload, and nothing else comes out of the libraries."""
    with pytest.raises(CorruptPayload) as raised:
        decompress(payload, kind)
    assert not isinstance(raised.value, PayloadTooLarge)


@given(st.sampled_from(COMPRESSED), st.binary(max_size=300), st.data())
def test_damaged_payload_is_read_or_refused(kind: Compression, payload: bytes, data: st.DataObject) -> None:
    """Any byte may change: within the cap, or CorruptPayload."""
    damaged = bytearray(compress(payload * 20, kind))
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(damaged) - 1))
        damaged[where] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CorruptPayload):
        assert len(decompress(damaged, kind, 100_000)) <= 100_000


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        (Compression.NONE, 1),
        (Compression.SNAPPY, 1),
        (Compression.GZIP, 0),
        (Compression.LZ4, 18),
        (Compression.ZSTD, 23),
    ],
)
def test_level_out_of_range_is_refused(kind: Compression, level: int) -> None:
    """The ranges of Kafka's settings."""
    with pytest.raises(LocalProtocolError, match="level"):
        compress(b"x", kind, level)
