"""Declarations spelled as elsewhere: the error says how they are spelled here."""

from __future__ import annotations

from typing import Any

import pytest

import streamlog


@pytest.mark.parametrize(
    ("kind", "args", "details", "words"),
    [
        ("topic", ("t",), {"key_type": str, "value_type": int}, r"app.topic\('t'\): key_type= is key=; value_type= is"),
        ("topic", ("a", "b"), {"value": int}, r"app.topic\('a', 'b'\): too many.*an agent reads several: @app.agent"),
        ("topic", ("t",), {"compacting": True}, r'configs=\{"cleanup.policy": "compact"\}'),
        ("topic", (), {}, r"app.topic\(\): missing a required argument: 'name'. Write app.topic\("),
        ("Table", ("t",), {"default": int}, r"'key'. Write app.Table\(\"delays\", key=str, value=int, default=int\)"),
        ("Table", ("t",), {"key": str, "value": int, "help": "x"}, "help= has no counterpart here: write a comment"),
        ("GlobalTable", ("t",), {"default": int}, r"'key'. Write app.GlobalTable\(\"airports\", key=str, value="),
        (
            "SetTable",
            ("t",),
            {},
            r"'key'. Write app.SetTable\(\"routes\", key=str, value=str\), .* type of the members",
        ),
        ("channel", (), {}, r"app.channel\(\): missing a required argument: 'name'. Write app.channel\(\"alerts\""),
        ("channel", ("c",), {"value_type": int}, r"app.channel\('c'\): value_type= is value=. Write"),
    ],
)
def test_a_declaration_spelled_as_in_faust_says_how_to_write_it(
    kind: str, args: tuple[str, ...], details: dict[str, Any], words: str
) -> None:
    """It names the call, what is wrong with it, and the call as it is written here; nothing is declared."""
    app = streamlog.App("app")
    with pytest.raises(streamlog.UserError, match=words):
        getattr(app, kind)(*args, **details)
    assert not app.topics
    assert not app.tables


def test_an_app_with_the_settings_of_faust_says_what_became_of_them() -> None:
    """All that it knows of are named at once."""
    settings: dict[str, Any] = {"broker": "kafka://localhost:9092", "store": "rocksdb://", "topic_partitions": 4}
    with pytest.raises(streamlog.UserError) as caught:
        streamlog.App("flights", **settings)
    assert str(caught.value) == (
        "App('flights'): store= has no counterpart here: leave it out; topic_partitions= is partitions=. "
        'Write App("flights", broker="host:9092", data_dir="state", partitions=8)'
    )


def test_an_unknown_argument_keeps_its_name() -> None:
    """What is in nobody's vocabulary is a slip, and named as Python does."""
    details: dict[str, Any] = {"key": str, "values": int}
    with pytest.raises(streamlog.UserError, match=r"app.topic\('t'\): got an unexpected keyword argument 'values'"):
        streamlog.App("app").topic("t", **details)
