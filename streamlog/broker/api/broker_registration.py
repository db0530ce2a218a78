"""BrokerRegistration (API 62): a broker enters the cluster. What that means: metadata/registration.py."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.wire.messages.broker_registration import BrokerRegistrationRequest, BrokerRegistrationResponse


async def handle(
    home: ControllerHome, request: BrokerRegistrationRequest, context: ControllerContext
) -> BrokerRegistrationResponse:
    return await home.overseer.register(request)
