"""Keys that are typed on the command line."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from streamlog.cli.keys import parse_key
from streamlog.errors import UserError
from streamlog.serde import key_serde_for
from tests.cli.shell import Shell, until

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)

TYPED: list[tuple[Any, str, Any]] = [
    (Decimal, "1.50", Decimal("1.50")),
    (Decimal, '"1.50"', Decimal("1.50")),
    (Decimal, "-3", Decimal(-3)),
    (UUID, str(UUID(int=5)), UUID(int=5)),
    (datetime, "2024-01-01T12:00:00Z", NOON),
    (datetime, "2024-01-01T12:00:00+00:00", NOON),
    (datetime, "2024-01-01T13:00+01:00", NOON),
    (datetime, '"2024-01-01T12:00:00Z"', NOON),
    (date, "2024-02-29", date(2024, 2, 29)),
    (timedelta, "PT5S", timedelta(seconds=5)),
    (float, "1", 1.0),
    (bool, "true", True),
    (int, "12", 12),
    (str | None, "x", "x"),
    (tuple[str, int], '["a", 1]', ("a", 1)),
    (tuple[str, Decimal], '["a", 1.50]', ("a", Decimal("1.50"))),
    (tuple[str, tuple[UUID, ...]], f'["a", ["{UUID(int=5)}"]]', ("a", (UUID(int=5),))),
]


@pytest.mark.parametrize(("kind", "text", "key"), TYPED)
def test_a_key_is_read_as_the_table_has_it(kind: Any, text: str, key: Any) -> None:
    """The bytes that are asked for are those of the row."""
    serde = key_serde_for(kind)
    found, known = parse_key(serde.name, text)
    asked = serde if known is None else key_serde_for(known)
    assert found == key
    assert asked.encode(found) == serde.encode(key)


@pytest.mark.parametrize(("name", "text"), [("json Flight", "AA"), ("json UUID", "5-5"), ("json Decimal", "a lot")])
def test_what_is_no_such_key_is_refused_with_what_they_are(name: str, text: str) -> None:
    """By the name of their type."""
    with pytest.raises(UserError, match=f"keys of this table are {name[5:]}, which '{text}' is not: write it as JSON"):
        parse_key(name, text)


def test_a_type_of_the_app_may_be_called_as_one_of_the_standard_library() -> None:
    """Then its keys are JSON, as those of other records."""
    assert parse_key("json date", '{"day": 1}') == ({"day": 1}, None)


APP = """
from decimal import Decimal

import streamlog

app = streamlog.App("prices", partitions=2)
offers = app.topic("offers", key=Decimal, value=int)
counts = app.Table("counts", key=Decimal, value=int, default=int)


@app.agent(offers)
async def count(stream):
    async for price, amount in stream.items():
        counts[price] += amount
"""


def test_rows_are_found_by_keys_as_they_are_typed(shell: Shell) -> None:
    """Decimals are written as text in JSON; nobody types them so."""
    (shell.path / "prices.py").write_text(APP)
    worker = shell.start("-A", "prices", "worker", "--web", "127.0.0.1:0")
    worker.wait_for(r"state=running positions", count=2)
    shell.ok("produce", "offers", "-k", '"1.50"', "-q", stdin="7\n")
    until("counted", lambda: shell.run("tables", "get", "prices", "counts", "1.50").out == "7\n")
    done = shell.run("tables", "get", "prices", "counts", "2.5")
    assert (done.code, done.err) == (1, "streamlog: table counts of prices has no key '2.5'\n")
    assert shell.ok("tables", "scan", "prices", "counts") == "1.50\t7\n"
