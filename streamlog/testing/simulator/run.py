"""One run of whatever a setup describes."""

from __future__ import annotations

from collections.abc import Callable

from streamlog.testing.simulator.broker_run import BrokerRun
from streamlog.testing.simulator.quorum_run import QuorumRun
from streamlog.testing.simulator.setup import Setup
from streamlog.testing.simulator.stage import Outcome


def run(setup: Setup, tell: Callable[[str], None] | None = None) -> Outcome:
    """Run a setup to its verdict. Raises nothing that the code under test could be blamed for."""
    if setup.shape == "quorum":
        return QuorumRun(setup, tell).go()
    return BrokerRun(setup, tell).go()
