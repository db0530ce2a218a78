"""BrokerHeartbeat (API 63): a broker is alive, and says what it wants. What becomes of it: metadata/heartbeats.py."""

from __future__ import annotations

from functools import partial

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.wire.messages.broker_heartbeat import BrokerHeartbeatRequest, BrokerHeartbeatResponse


async def handle(
    home: ControllerHome, request: BrokerHeartbeatRequest, context: ControllerContext
) -> BrokerHeartbeatResponse:
    response = await home.overseer.heartbeat(request)
    if context.connection is not None:
        lost = partial(home.overseer.on_connection_lost, request.broker_id, request.broker_epoch)
        context.connection.when_lost["heartbeats"] = lost
    return response
