"""kill -9 of a broker under load, many times on one data directory (make crash)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.broker.killing import produce_until_killed, read_values
from tests.broker.running import BrokerProcess

ROUNDS = 50
READY_SECONDS_MAX = 1.0


@pytest.mark.crash
@pytest.mark.timeout(600)
def test_fifty_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Every acknowledged message is there once and in order, and the broker is ready within a second."""
    for number in range(ROUNDS):
        acknowledged = produce_until_killed(tmp_path, number)
        started = time.monotonic()
        with BrokerProcess(tmp_path) as broker:
            ready_seconds = time.monotonic() - started
            found = read_values(broker.address, f"round-{number}", 0)
            assert found[: len(acknowledged)] == acknowledged
            assert found == [b"%d" % value for value in range(len(found))]
            assert ready_seconds < READY_SECONDS_MAX
