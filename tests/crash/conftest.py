"""Disks to cut the power of, where that is possible."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.disks import Rack, why_not


@pytest.fixture(scope="session")
def can_cut(tmp_path_factory: pytest.TempPathFactory) -> None:
    reason = why_not(tmp_path_factory.mktemp("probe"))
    if reason:
        pytest.skip(reason)


@pytest.fixture
def rack(tmp_path: Path, can_cut: None) -> Iterator[Rack]:
    with Rack(tmp_path) as rack:
        yield rack
