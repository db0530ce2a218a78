"""A broker for all tests of a module, and a shell for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.coordinator.broker_process import BrokerProcess
from tests.cli.shell import Shell


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a broker of this module's."""
    settings = ("group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=4", "num.partitions=2")
    with BrokerProcess(tmp_path_factory.mktemp("broker"), settings) as process:
        yield process.address


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell without a broker: commands use the embedded log of its directory."""
    shell = Shell(tmp_path)
    yield shell
    shell.close()


@pytest.fixture
def on_broker(tmp_path: Path, broker: str) -> Iterator[Shell]:
    """A shell whose commands find the module's broker."""
    shell = Shell(tmp_path, {"STREAMLOG_BROKER": broker})
    yield shell
    shell.close()
