"""How long faults are felt, in simulated time: no client's timeouts in it, and no machine that is busy with others."""

from __future__ import annotations

import pytest

from tests.sim.felt import run_many
from tests.sim.felt_run import KILL, KINDS, ROLES, STALL

SLOWEST_MS = 4_000
"""After everything but a kill. What is left of five seconds is the clients': they have to notice, and to look again."""
SLOWEST_MS_AFTER_KILL = 1_000
"""Of two seconds."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_partition_is_soon_written_again(kind: str) -> None:
    """Whether the node led the metadata quorum or not; and the group commits again. Clients that still reach a node
    that is cut off are sent away by it."""
    limit_ms = SLOWEST_MS_AFTER_KILL if kind == KILL else SLOWEST_MS
    for felt in run_many([(kind, role, 3, {}) for role in ROLES], 2):
        assert felt.violations == []
        assert felt.slowest_ms < limit_ms, felt
        assert felt.committed_ms is not None
        assert felt.committed_ms < limit_ms, felt
        assert felt.still_claims == [], felt


def test_a_node_that_stalls_for_a_second_loses_nothing() -> None:
    """Neither the metadata quorum nor a partition nor its place in an in-sync set."""
    for felt in run_many([(STALL, role, seed, {}) for role in ROLES for seed in (1, 2)], 2):
        assert felt.violations == []
        assert felt.lost == [], felt
