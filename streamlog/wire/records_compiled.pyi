# What mypy and pyright know of the compiled codec: the signatures of records_interpreted.

from collections.abc import Sequence

from streamlog.wire.records_header import Columns, ReadableBuffer, RecordHeaders

REVISION: int

class RecordAppender:
    def __init__(self) -> None: ...
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

def encode_records(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    timestamps_ms: Sequence[int],
    headers: Sequence[RecordHeaders] | None,
    base_timestamp_ms: int,
    offset_deltas: Sequence[int] | None,
) -> bytearray: ...
def decode_records(
    section: ReadableBuffer,
    record_count: int,
    base_offset: int,
    base_timestamp_ms: int,
    append_time_ms: int | None,
) -> Columns: ...
def scan_records(
    section: ReadableBuffer,
    record_count: int,
    base_timestamp_ms: int,
    timestamp_ms_min: int,
    timestamp_ms_max: int,
    indexes_max: int,
) -> tuple[bool, int, tuple[int, ...], tuple[int, ...]]: ...
