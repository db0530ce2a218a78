"""What tests that cut the power share: what a voter may not forget, how ext4 is mounted, and the figures."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.kafka_node import REPOSITORY

FIGURES = REPOSITORY / "target" / "power.json"

MOUNTS = ("data=ordered", "data=writeback", "commit=1", "nodelalloc")
"""ext4 keeps most when a file was renamed or the journal was just written, and least in writeback mode."""


class QuorumState(msgspec.Struct, rename="camel"):
    """What a voter may not forget."""

    leader_epoch: int
    voted_id: int

    def check_kept(self, data: Path) -> None:
        """A vote that the node told of is still given."""
        found = read_quorum(data)
        assert found.leader_epoch >= self.leader_epoch, f"{found} after {self}"
        if found.leader_epoch == self.leader_epoch and self.voted_id >= 0:
            assert found.voted_id == self.voted_id, f"{found} after {self}"


def read_quorum(data: Path) -> QuorumState:
    return msgspec.json.decode((data / "__cluster_metadata-0" / "quorum-state").read_bytes(), type=QuorumState)


def log_bytes(data: Path) -> int:
    """Of all logs."""
    return sum(file.stat().st_size for file in data.glob("*/*.log"))


def of(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    places = {"min": 0, "median": len(ordered) // 2, "p90": len(ordered) * 9 // 10, "max": -1}
    return {name: round(ordered[place], 3) for name, place in places.items()}


def write_figures(name: str, figures: dict[str, object]) -> None:
    """Into target/power.json, beside those of other tests."""
    FIGURES.parent.mkdir(exist_ok=True)
    known: dict[str, object] = msgspec.json.decode(FIGURES.read_bytes()) if FIGURES.exists() else {}
    known[name] = figures
    FIGURES.write_bytes(msgspec.json.format(msgspec.json.encode(known)) + b"\n")
    print(f"\n{name}: {figures}")
