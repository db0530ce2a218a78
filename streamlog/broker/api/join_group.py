"""JoinGroup (API 11): become or stay a member of a group, and wait for its next generation.

The answer may take as long as a rebalance does.
"""

from __future__ import annotations

from collections.abc import Awaitable

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.coordinator.group.rebalance import join_error
from streamlog.broker.coordinator.groups import answer
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.join_group import JoinGroupRequest, JoinGroupResponse


def handle(
    broker: Broker, context: RequestContext, request: JoinGroupRequest
) -> JoinGroupResponse | Awaitable[JoinGroupResponse]:
    def refuse(code: ErrorCode) -> JoinGroupResponse:
        return join_error(context.version, code, request.member_id)

    if not request.group_id:
        return refuse(ErrorCode.INVALID_GROUP_ID)
    return answer(broker.groups.ask(request.group_id, request, context), JoinGroupResponse, refuse)
