"""ControllerRegistration (API 70): a controller tells where it listens. What is refused: metadata/."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.metadata.controller_registration import register_controller
from streamlog.wire.messages.controller_registration import (
    ControllerRegistrationRequest,
    ControllerRegistrationResponse,
)


async def handle(
    home: ControllerHome, request: ControllerRegistrationRequest, context: ControllerContext
) -> ControllerRegistrationResponse:
    await home.controller.write(lambda image: register_controller(image, request))
    return ControllerRegistrationResponse(error_message=None)
