"""Heartbeat (API 12): stay alive as a member, and hear of rebalances."""

from __future__ import annotations

from collections.abc import Awaitable

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.coordinator.groups import answer
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse


def handle(
    broker: Broker, context: RequestContext, request: HeartbeatRequest
) -> HeartbeatResponse | Awaitable[HeartbeatResponse]:
    if not request.group_id:
        return _refuse(ErrorCode.INVALID_GROUP_ID)
    return answer(broker.groups.ask(request.group_id, request, context), HeartbeatResponse, _refuse)


def _refuse(code: ErrorCode) -> HeartbeatResponse:
    # While the shard loads nobody's session can end, so there is nothing to worry the member with.
    return HeartbeatResponse(error_code=ErrorCode.NONE if code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS else code)
