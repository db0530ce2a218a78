"""LeaveGroup (API 13): members leave, or an administrator removes them."""

from __future__ import annotations

from collections.abc import Awaitable

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.coordinator.groups import answer
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse


def handle(
    broker: Broker, context: RequestContext, request: LeaveGroupRequest
) -> LeaveGroupResponse | Awaitable[LeaveGroupResponse]:
    if not request.group_id:
        return _refuse(ErrorCode.INVALID_GROUP_ID)
    return answer(broker.groups.ask(request.group_id, request, context), LeaveGroupResponse, _refuse)


def _refuse(code: ErrorCode) -> LeaveGroupResponse:
    return LeaveGroupResponse(error_code=code)
