"""Numbers of the failure model that no check of the simulator names, and why.

With `INVARIANTS` they are all of 1 to 84. A number that gets a check goes from here to there.
"""

from __future__ import annotations

from typing import Final

NOT_BUILT: Final = "not built"
"""Transactions in the broker, standby replicas, security: there is nothing to look at yet."""

UNWATCHED: Final = {
    6: "runs ask for no unclean elections; tests/broker/metadata/test_elections.py, test_partition_change.py",
    20: "no segment is zeroed or removed in runs; tests/broker/log/test_recovery.py",
    22: "power goes at any disk operation, and 1, 18, 21 and 33 would break; tests/broker/log/test_power_loss.py",
    24: "`disk_full` is a fault, and 1, 77 and 87 are looked at; tests/broker/log/test_full_disk.py",
    25: "`read_fails` is a fault for scripts, no seed draws it; tests/broker/test_disk_failures.py",
    26: "`slow_disk` is a fault, and 77 is looked at; memory is not, and nobody demotes a leader for its disk",
    36: "no disk is replaced in runs; tests/broker/raft/test_simulation.py wipes them",
    37: "voters do not change in runs; tests/broker/raft/test_membership.py, test_simulation.py",
    38: "77 comes when faults are over, not who is deposed for nothing; tests/broker/raft/test_simulation.py",
    39: "5 and 7 would break where it matters; tests/broker/metadata/test_registration.py, test_heartbeats.py",
    45: NOT_BUILT,
    46: NOT_BUILT,
    47: NOT_BUILT,
    48: NOT_BUILT,
    49: NOT_BUILT,
    50: NOT_BUILT,
    51: NOT_BUILT,
    53: NOT_BUILT,
    55: "54 and 56 would break where it matters; tests/broker/coordinator/test_group_errors.py",
    57: "members of runs are dynamic; tests/broker/coordinator/test_rebalance.py, tests/client/test_membership.py",
    59: "56 would break; tests/broker/coordinator/test_runtime.py",
    60: "56 and 58 would break, after compaction too; tests/broker/coordinator/test_runtime.py",
    64: "who is killed takes its tasks along; in other tests what is left behind is a warning, and so an error",
    65: "tests/client/test_metadata.py",
    66: "CPython's bytes do not change; 1 and 62 compare what is read with what was sent",
    67: "the simulator runs no streams; tests/streams/test_lane_property.py, test_live.py",
    68: "as 67; tests/state/test_restore.py, test_crash.py",
    69: NOT_BUILT,
    70: "as 67; tests/state/test_crash.py, test_opening.py",
    71: "as 67; tests/streams/test_live_moves.py, test_changing_hands.py",
    72: "as 67; tests/streams/test_windows.py, tests/state/test_windowed.py",
    73: "as 67; tests/streams/test_changing_hands.py",
    74: "as 67; tests/streams/test_purge.py",
    75: "as 67; tests/streams/test_timers.py",
    76: "as 67; tests/streams/test_live_stops.py, tests/examples/test_word_count.py",
    78: "memory is not simulated; tests/broker/test_hostile.py",
    79: "descriptors are not simulated; tests/broker/test_hostile.py, test_connection.py",
    81: "a run has one version; tests/interop_kafka/test_mixed_cluster.py has another program's nodes",
    82: NOT_BUILT,
    84: "no check anywhere yet",
}
"""By number."""
