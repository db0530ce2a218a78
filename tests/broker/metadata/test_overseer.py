"""A broker whose connection has ended: dead, on its way there, or back."""

from __future__ import annotations

from streamlog.broker.metadata.image import BrokerRegistration
from streamlog.broker.metadata.overseer import PROBE_PAUSES_S, Probe, is_dead_by_now
from streamlog.wire.schema import ZERO_UUID

BROKER = BrokerRegistration(
    id=3,
    epoch=7,
    incarnation_id=ZERO_UUID,
    endpoints=(),
    features=(),
    rack=None,
    fenced=False,
    in_controlled_shutdown=False,
    directories=(),
)


def answers(*said: bool) -> tuple[Probe, list[bool]]:
    """A probe that finds these one after another, the last for ever; and what it has not told yet."""
    left = list(said)

    async def probe(broker: BrokerRegistration) -> bool:
        return left.pop(0) if len(left) > 1 else left[0]

    return probe, left


async def test_a_listener_that_outlives_its_connections_is_asked_again() -> None:
    """The sockets of a killed process are closed one after another, and the listener may be the last."""
    probe, _ = answers(False, False, True)
    assert await is_dead_by_now(probe, BROKER, lambda: True)


async def test_a_broker_that_goes_on_listening_is_not_dead() -> None:
    """It is asked a few times more, and then left to its session."""
    probe, left = answers(*[False] * (len(PROBE_PAUSES_S) + 1))
    assert not await is_dead_by_now(probe, BROKER, lambda: True)
    assert left == [False], "the last look was taken"


async def test_a_broker_that_is_heard_again_is_left_alone() -> None:
    """Its heartbeats come by another connection now."""
    is_lost = iter([True, False])
    probe, _ = answers(False)
    assert not await is_dead_by_now(probe, BROKER, lambda: next(is_lost))
