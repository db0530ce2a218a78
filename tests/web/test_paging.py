"""Merging pages of partitions into pages of a table."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamlog.web.answers import Row, Rows, Staleness
from streamlog.web.paging import decode_cursor, encode_cursor, merge_pages

KEYS = st.binary(min_size=1, max_size=2)


def _page(keys: list[bytes], cursor: bytes | None, partition: int, limit: int) -> Rows:
    """What a worker answers: at most `limit` rows of a partition from the cursor on."""
    mine = [key for key in keys if cursor is None or key >= cursor][:limit]
    more = mine[-1] + b"\x00" if len(mine) == limit else None
    staleness = Staleness(partition=partition, state="running", position=1, lag=0, committed=True, behind=0)
    return Rows(rows=[Row(key, b"") for key in mine], cursor=more, staleness=[staleness])


@given(st.lists(st.sets(KEYS), min_size=1, max_size=4), st.integers(1, 5))
def test_pages_contain_every_key_once_and_in_order(partitions: list[set[bytes]], limit: int) -> None:
    """Whatever the partitions hold and however small the pages are."""
    owned: list[list[bytes]] = []
    seen: set[bytes] = set()
    for keys in partitions:
        owned.append(sorted(keys - seen))
        seen |= keys
    found: list[bytes] = []
    cursor: bytes | None = None
    while True:
        page = merge_pages([_page(keys, cursor, number, limit) for number, keys in enumerate(owned)], limit)
        found += [row.key for row in page.rows]
        assert len(page.rows) <= limit
        assert [one.partition for one in page.staleness] == list(range(len(owned)))
        if page.cursor is None:
            break
        cursor = decode_cursor(encode_cursor(page.cursor), "cursor")
    assert found == sorted(seen)
