"""AssignReplicasToDirs (API 73): a broker tells in which of its directories replicas are (KIP-858)."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.metadata.directories import assign_replicas_to_dirs
from streamlog.wire.messages.assign_replicas_to_dirs import AssignReplicasToDirsRequest
from streamlog.wire.messages.assign_replicas_to_dirs_response import AssignReplicasToDirsResponse


async def handle(
    home: ControllerHome, request: AssignReplicasToDirsRequest, context: ControllerContext
) -> AssignReplicasToDirsResponse:
    return await home.controller.write(lambda image: assign_replicas_to_dirs(image, home.settings, request))
