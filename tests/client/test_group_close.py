"""Closing a member at the worst moment, against a broker whose answers the test writes."""

from __future__ import annotations

from streamlog.client.config import ConnectionSettings
from streamlog.client.consumer import Consumer
from streamlog.env import Env
from streamlog.wire.error_codes import ErrorCode
from tests.client.fake_broker import fake_broker


async def test_who_closes_while_joining_leaves_even_if_the_join_arrives_later(env: Env) -> None:
    """JoinGroup and LeaveGroup go two ways: nobody knows the member yet, so it says again that it goes."""
    quick = ConnectionSettings(retry_backoff_ms=5)
    async with fake_broker() as broker:
        broker.leave_codes = [ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.NONE]
        consumer = Consumer(
            f"127.0.0.1:{broker.port}",
            env=env,
            group_id="g",
            group_instance_id="one",
            leave_when_static=True,
            connection=quick,
        )
        async with consumer:
            consumer.subscribe(["t"])
            await broker.joined.wait()
        assert broker.leave_codes == []
