"""Scans over all partitions of a table: pages of each, merged by key, and read on from a cursor."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from heapq import nsmallest

from streamlog.errors import UserError
from streamlog.state.windows import row_key
from streamlog.web.answers import Row, Rows


def merge_pages(pages: Sequence[Rows], limit: int) -> Rows:
    """One page out of pages of all partitions, in order of the rows' keys in the store.

    Each page is complete up to its own cursor, so the merged one is up to the smallest of them.
    """
    cursors = [page.cursor for page in pages if page.cursor is not None]
    complete_to = min(cursors) if cursors else None
    candidates = [row for page in pages for row in page.rows if complete_to is None or _order(row) < complete_to]
    rows = nsmallest(limit, candidates, key=_order)
    cursor = _order(rows[-1]) + b"\x00" if len(candidates) > limit else complete_to
    staleness = [one for page in pages for one in page.staleness]
    return Rows(rows=rows, cursor=cursor, staleness=sorted(staleness, key=lambda one: one.partition))


def _order(row: Row) -> bytes:
    return row.key if row.start_ms is None else row_key(row.key, row.start_ms)


def encode_cursor(data: bytes) -> str:
    """Bytes for a URL."""
    return base64.urlsafe_b64encode(data).decode()


def decode_cursor(text: str, what: str) -> bytes:
    """Raises UserError."""
    try:
        return base64.urlsafe_b64decode(text)
    except (binascii.Error, ValueError):
        raise UserError(f"{what}={text!r} is not what a page before gave") from None
