"""What is counted as a fault: only what somebody felt."""

from __future__ import annotations

from dataclasses import replace

from streamlog.testing.simulator.nemesis import Fault
from streamlog.testing.simulator.run import run
from streamlog.testing.simulator.setup import draw

QUIET = replace(draw(1, "broker", "short"), safety_ms=4_000, faults=())

FELT = (
    Fault(1_500, "slow_disk", "broker", 2_000, 10),
    Fault(1_500, "drift", "broker", 400, 500),
    Fault(1_500, "slow_node", "broker", 400, 10),
    Fault(1_500, "clock_jump", "broker", 0, 500),
    Fault(2_000, "cut", "broker", 300),
    Fault(2_400, "cut_to", "broker", 300),
    Fault(2_800, "cut_from", "broker", 300),
    Fault(3_200, "disk_full", "broker", 500, 1),
    Fault(3_700, "write_fails", "broker", 0, 1),
)
"""While clients are busy."""

UNFELT = tuple(
    Fault(1_500, kind, "broker", 400, 5)
    for kind in (
        "cut", "cut_to", "cut_from", "reset", "pause", "stop", "slow_disk", "sync_fails", "write_fails", "read_fails",
        "disk_full", "clock_jump", "drift", "slow_node", "kill_in", "power_in",
    )
)  # fmt: skip


def test_faults_that_somebody_feels_are_counted() -> None:
    """Each of them once, however much of it there is."""
    outcome = run(replace(QUIET, faults=FELT))
    assert outcome.faults == {fault.kind: 1 for fault in FELT}
    assert outcome.violations == []


def test_faults_on_a_node_that_is_down_did_not_happen() -> None:
    """The broker is killed and stays down until everything is healed: nothing else is counted."""
    outcome = run(replace(QUIET, faults=(Fault(1_000, "kill", "broker", 60_000), *UNFELT)))
    assert outcome.faults == {"kill": 1}
    assert outcome.violations == []
