"""UnregisterBroker (API 64): a broker that will not come back is forgotten."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.wire.messages.unregister_broker import UnregisterBrokerRequest, UnregisterBrokerResponse


async def handle(
    home: ControllerHome, request: UnregisterBrokerRequest, context: ControllerContext
) -> UnregisterBrokerResponse:
    await home.overseer.unregister(request.broker_id)
    return UnregisterBrokerResponse(error_message=None)
