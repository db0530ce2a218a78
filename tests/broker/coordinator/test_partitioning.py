"""Groups live where Kafka puts them."""

from __future__ import annotations

import pytest

from streamlog.broker.coordinator.partitioning import java_string_hash, partition_for


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 0),
        ("a", 97),
        ("hello", 99162322),
        ("my-group", -1906497762),
        ("polygenelubricants", -2147483648),
        ("gr\u00fcn", 3185949),
        ("\U0001f600", 1772899),
    ],
)
def test_hashes_are_javas(text: str, value: int) -> None:
    """Values printed by java.lang.String.hashCode."""
    assert java_string_hash(text) == value


def test_the_smallest_integer_has_no_absolute_value() -> None:
    """Kafka's Utils.abs makes it 0."""
    assert partition_for("polygenelubricants", 50) == 0


def test_negative_hashes_lose_their_sign() -> None:
    """Not their sign bit, which would be another partition."""
    assert partition_for("my-group", 50) == 1906497762 % 50
