"""Whether the rows of a table are such as the program says: it may have been changed since they were written.

Rows carry no word about their key's type or their windows. A table that got windows under the same name would take the
last bytes of each key for the start of a window, and delete most rows as expired, in the changelog too; one that lost
them could read none of its keys. So some rows are looked at before a task begins.
"""

from __future__ import annotations

from typing import Any, Final

from streamlog.errors import UserError
from streamlog.serde import Serde, SerdeError
from streamlog.state.store import Reader
from streamlog.state.windows import START_BYTES, TIME_MS_MAX, TIME_MS_MIN, Windows, split_row_key

ROWS_LOOKED_AT_MAX: Final = 32
"""One row would do where keys are text; short or binary keys may look like others by chance, and 32 do not."""


def check_rows(name: str, rows: Reader, key: Serde[Any], windows: Windows | None) -> None:
    """Raises: UserError: rows of the table cannot be its rows; with what to do."""
    for data, _ in rows.scan(name, limit=ROWS_LOOKED_AT_MAX):
        misfit = _misfit(data, key, windows) if data else None  # without key bytes: a mark, or an empty key
        if misfit is not None:
            raise UserError(
                f"table {name} has rows that are not as the program has them ({misfit}): were its windows or its key "
                f"type changed? Give the changed table another name; or have this one made anew from the topics, with "
                f"`streamlog -A MODULE reset`; or bring the former declaration back"
            )


def _misfit(data: bytes, key: Serde[Any], windows: Windows | None) -> str | None:
    """Why this cannot be the key of a row; None if it can."""
    if windows is not None:
        if len(data) < START_BYTES:
            return f"the row key {data!r} has no window in it"
        data, start_ms = split_row_key(data)
        if start_ms % windows.step_ms or not TIME_MS_MIN <= start_ms <= TIME_MS_MAX:
            return f"no window of {windows.size_ms} ms every {windows.step_ms} ms starts at {start_ms}"
    try:
        key.decode(data)
    except SerdeError as error:
        return f"a key is {error}".rstrip(".")
    return None
