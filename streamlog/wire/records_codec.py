"""Picks the record codec: the compiled twin where it was built, the interpreted one elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import environ
from typing import Literal, Protocol

from streamlog.errors import UserError
from streamlog.wire.records_header import Columns, ReadableBuffer, RecordHeaders

# Goes up, here and in records_compiled.py, when what the compiled codec offers or means changes.
CODEC_REVISION = 3


# Whether offsets are consecutive, largest timestamp, records without a key, records with a timestamp out of bounds.
Scan = tuple[bool, int, tuple[int, ...], tuple[int, ...]]


class Appender(Protocol):
    """The records of one batch in the making; documented at records.BatchBuilder."""

    def append(
        self, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: RecordHeaders = ...
    ) -> int: ...
    def __len__(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def base_timestamp_ms(self) -> int: ...
    @property
    def max_timestamp_ms(self) -> int: ...
    def encode(self) -> bytearray: ...


class Codec(Protocol):
    """What records_compiled and records_interpreted both are."""

    @property
    def encode_records(
        self,
    ) -> Callable[
        [
            Sequence[bytes | None],
            Sequence[bytes | None],
            Sequence[int],
            Sequence[RecordHeaders] | None,
            int,
            Sequence[int] | None,
        ],
        bytearray,
    ]: ...
    @property
    def decode_records(self) -> Callable[[ReadableBuffer, int, int, int, int | None], Columns]: ...
    @property
    def scan_records(
        self,
    ) -> Callable[[ReadableBuffer, int, int, int, int, int], Scan]: ...
    @property
    def RecordAppender(self) -> Callable[[], Appender]: ...  # noqa: N802


def compiled_codec() -> Codec | None:
    """The compiled codec, or None where it was not built: its source alone raises ImportError."""
    try:
        from streamlog.wire import records_compiled
    except ImportError:
        return None
    # A working tree may still hold an extension built from an older checkout; it counts as not built.
    return records_compiled if getattr(records_compiled, "REVISION", 0) == CODEC_REVISION else None


def interpreted_codec() -> Codec:
    from streamlog.wire import records_interpreted

    return records_interpreted


def _choose(wanted: str) -> tuple[Codec, Literal["compiled", "interpreted"]]:
    if wanted not in ("", "compiled", "interpreted"):
        raise UserError(f"STREAMLOG_CODEC is {wanted!r}; it can be compiled, interpreted, or unset")
    if wanted != "interpreted":
        compiled = compiled_codec()
        if compiled is not None:
            return compiled, "compiled"
        if wanted == "compiled":
            raise UserError("STREAMLOG_CODEC=compiled, but it was not built: reinstall streamlog where a C compiler is")
    return interpreted_codec(), "interpreted"


codec, CODEC = _choose(environ.get("STREAMLOG_CODEC", ""))
