"""A table whose declaration was changed under its name does not take its old rows for others."""

from __future__ import annotations

from typing import Any

import pytest

from streamlog.errors import UserError
from streamlog.serde import key_serde_for
from streamlog.state.memory import MemoryEngine, MemoryStore
from streamlog.state.shape import check_rows
from streamlog.state.store import CommitBatch
from streamlog.state.windowed import MARK_KEY
from streamlog.state.windows import Windows, row_key

MINUTES = Windows(60_000, 60_000, None, None)
HOURS = Windows(3_600_000, 3_600_000, None, None)
NOW = 1_700_000_040_000  # a minute


def store_with(*keys: bytes) -> MemoryStore:
    store = MemoryEngine().open("task-0")
    store.commit(CommitBatch({"counts": [(key, b"\x01\x01") for key in keys]}))
    return store


@pytest.mark.parametrize(
    ("keys", "kind", "windows"),
    [
        ([], str, None),
        ([b"", b"k", "ä".encode()], str, None),
        ([b"12", b"-3"], int, None),
        ([MARK_KEY, row_key(b"k", NOW), row_key(b"", 0), row_key(b"old", -60_000)], str, MINUTES),
        ([row_key(b"12", NOW)], int, MINUTES),
    ],
)
def test_rows_of_the_table_are_taken(keys: list[bytes], kind: Any, windows: Windows | None) -> None:
    """Empty keys and marks among them."""
    check_rows("counts", store_with(*keys), key_serde_for(kind), windows)


@pytest.mark.parametrize(
    ("keys", "kind", "windows", "why"),
    [
        ([b"customer-0000012"], str, MINUTES, "no window of 60000 ms every 60000 ms starts at -59"),
        ([b"k"], str, MINUTES, "has no window in it"),
        ([b"", *(b"%08d" % number for number in range(9))], str, MINUTES, "no window"),
        ([MARK_KEY, row_key(b"k", NOW)], str, None, "a key is not a str"),
        ([row_key(b"12", NOW)], int, None, "a key is not an int"),
        ([row_key(b"k", NOW)], str, HOURS, "every 3600000 ms starts at 1700000040000"),
        ([row_key(b"k", NOW)], int, MINUTES, "a key is not an int"),
        ([b"abc"], int, None, "a key is not an int"),
    ],
)
def test_rows_of_another_declaration_are_refused(
    keys: list[bytes], kind: Any, windows: Windows | None, why: str
) -> None:
    """With what can be done about it."""
    with pytest.raises(UserError, match="another name") as refused:
        check_rows("counts", store_with(*keys), key_serde_for(kind), windows)
    assert why in str(refused.value)
    assert "table counts" in str(refused.value)
