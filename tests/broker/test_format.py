"""Data directories of nodes of a quorum, made before their first start."""

from __future__ import annotations

from random import Random

from streamlog.broker.format import format_directory
from streamlog.env import Env, NoHooks, RealClock, RealEntropy, ThreadOffload
from streamlog.testing.simulator.disk import SimDisk
from streamlog.testing.simulator.storage import DiskFaults, DiskKnobs, SimStorage


class Nobody:
    def check(self) -> None:
        return None

    def spend(self, cost_ns: int) -> None:
        return None


def test_formatted_directory_outlives_a_power_cut() -> None:
    """With its name and those of its parents: a start finds a directory, and relies on it being there for good."""
    for seed in range(10):
        disk = SimDisk(Random(seed))
        storage = SimStorage(disk, Nobody(), DiskFaults(), DiskKnobs(), Random(seed))
        env = Env(RealClock(), RealEntropy(), storage, ThreadOffload(), NoHooks())
        format_directory(env, "/var/lib/streamlog", cluster_id="AAAAAAAAAAAAAAAAAAAAAQ", node_id=1)
        disk.cut_power()
        assert storage.exists("/var/lib/streamlog/meta.properties")
