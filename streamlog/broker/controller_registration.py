"""A controller's side of its registration: it registers each time it starts, and again should that be lost."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from streamlog.broker.assembly import registered_features, registered_listeners
from streamlog.broker.config import BrokerConfig, Listener
from streamlog.broker.controller_channel import ControllerChannel
from streamlog.broker.metadata.controller import Controller
from streamlog.broker.metadata.image import MetadataImage
from streamlog.broker.overruled import tell_overruled
from streamlog.env import Env
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.controller_registration import (
    ControllerRegistrationRequest,
    ControllerRegistrationResponse,
    Feature,
)
from streamlog.wire.messages.controller_registration import Listener as RegisteredListener

log = logging.getLogger(__name__)

PAUSE_MS: Final = 1_000
"""Between two attempts. Nobody waits for a registration."""


async def keep_registered(
    env: Env, config: BrokerConfig, listening: list[Listener], controller: Controller, channel: ControllerChannel
) -> None:
    """For as long as the controller runs. Cancelling leaves what is registered.

    Where no broker shares its process, it also tells what its file says in vain: once it finds its registration in the
    metadata, it has those of its start.
    """
    request = ControllerRegistrationRequest(
        controller_id=config.node_id,
        incarnation_id=env.entropy.uuid4(),
        listeners=registered_listeners(RegisteredListener, config, listening),
        features=registered_features(Feature),
    )

    def is_registered(image: MetadataImage) -> bool:
        found = image.controllers.get(config.node_id)
        return found is not None and found.incarnation_id == request.incarnation_id

    has_told = config.is_broker
    while True:
        await controller.until(lambda image: not is_registered(image))
        try:
            response = await channel.request(request)
        except KafkaError as error:
            log.info("controller %d is not registered yet: %s", config.node_id, error)
            await asyncio.sleep(PAUSE_MS / 1000)
            continue
        assert isinstance(response, ControllerRegistrationResponse), "the answer is of the request's API"
        if response.error_code != ErrorCode.NONE:
            log.warning("controller %d is not registered: %s", config.node_id, response.error_message)
            await asyncio.sleep(PAUSE_MS / 1000)
        if await controller.until(is_registered, PAUSE_MS) and not has_told:
            tell_overruled(config, controller.image)
            has_told = True
