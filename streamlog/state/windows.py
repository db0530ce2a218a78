"""Which windows a moment belongs to, when they close, and how their rows are keyed. Arithmetic only.

A window is named by its start and contains start <= t < start + size. Starts are the multiples of step, negative ones
included. With step == size windows tumble; with a smaller step they overlap ("hopping").

    |<------- size ------->|<-- grace -->|
    start                  end           closed: late from here on      expired: rows deleted, by max(retention, grace)
"""

from __future__ import annotations

from dataclasses import dataclass

from streamlog.errors import UserError

TIME_MS_MIN, TIME_MS_MAX = -(2**63), 2**63 - 1
NEVER_MS = TIME_MS_MIN - 1
"""Before every time there is."""

START_BYTES = 8
_SIGN = 1 << 63


@dataclass(frozen=True, slots=True)
class Windows:
    """Tumbling or hopping windows. Raises UserError for sizes that make no sense."""

    size_ms: int
    step_ms: int
    grace_ms: int | None = None
    """How long after a window's end records for it are still welcome; None: for ever (while its row is kept)."""
    retention_ms: int | None = None
    """How long after a window's end its row is kept for queries; None: as long as grace, and without grace for ever."""

    def __post_init__(self) -> None:
        if self.size_ms <= 0 or self.step_ms <= 0:
            raise UserError(f"a window's size and step must be positive, not {self.size_ms} ms and {self.step_ms} ms")
        if self.step_ms > self.size_ms:
            raise UserError(
                f"windows of {self.size_ms} ms every {self.step_ms} ms leave gaps: make the step at most the size"
            )
        if (self.grace_ms or 0) < 0 or (self.retention_ms or 0) < 0:
            raise UserError("grace and retention cannot be negative")

    def windows_for(self, timestamp_ms: int) -> list[int]:
        """Starts of all windows that contain the moment, ascending."""
        newest = timestamp_ms - timestamp_ms % self.step_ms
        oldest = newest - (self.size_ms - 1 - timestamp_ms % self.step_ms) // self.step_ms * self.step_ms
        return list(range(oldest, newest + 1, self.step_ms))

    @property
    def keep_ms(self) -> int | None:
        """How long after its end a window's row is kept; None: for ever."""
        if self.grace_ms is None and self.retention_ms is None:
            return None
        return max(self.grace_ms or 0, self.retention_ms or 0)

    def closed_start_ms(self, stream_time_ms: int) -> int:
        """The newest start whose window is closed: end + grace <= stream time; without grace, when its row goes."""
        wait_ms = self.keep_ms if self.grace_ms is None else self.grace_ms
        return NEVER_MS if wait_ms is None else max(NEVER_MS, stream_time_ms - self.size_ms - wait_ms)

    def expired_start_ms(self, stream_time_ms: int) -> int:
        """The newest start whose row is no longer kept."""
        keep_ms = self.keep_ms
        return NEVER_MS if keep_ms is None else max(NEVER_MS, stream_time_ms - self.size_ms - keep_ms)


def encode_start(start_ms: int) -> bytes:
    """8 bytes that sort as the starts do: big-endian with the sign bit turned."""
    return (start_ms + _SIGN).to_bytes(START_BYTES, "big")


def clamp_ms(time_ms: int) -> int:
    """The nearest time that 8 bytes can say, for ranges open on one side."""
    return min(max(time_ms, TIME_MS_MIN), TIME_MS_MAX)


def decode_start(data: bytes) -> int:
    return int.from_bytes(data, "big") - _SIGN


def row_key(key: bytes, start_ms: int) -> bytes:
    """Key of a windowed row in store and changelog: the key first, so that the windows of one key are neighbours."""
    return key + (start_ms + _SIGN).to_bytes(START_BYTES, "big")


def split_row_key(data: bytes) -> tuple[bytes, int]:
    return data[:-START_BYTES], decode_start(data[-START_BYTES:])


def index_key(row: bytes) -> bytes:
    """Key of a row in the expiry index: its start first, so that the oldest windows come first."""
    return row[-START_BYTES:] + row[:-START_BYTES]


def row_key_of_index(data: bytes) -> bytes:
    return data[START_BYTES:] + data[:START_BYTES]
