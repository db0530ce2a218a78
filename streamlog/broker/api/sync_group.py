"""SyncGroup (API 14): the leader hands in the assignment of a generation, every member receives its part."""

from __future__ import annotations

from collections.abc import Awaitable

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.coordinator.groups import answer
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.sync_group import SyncGroupRequest, SyncGroupResponse


def handle(
    broker: Broker, context: RequestContext, request: SyncGroupRequest
) -> SyncGroupResponse | Awaitable[SyncGroupResponse]:
    if not request.group_id:
        return _refuse(ErrorCode.INVALID_GROUP_ID)
    return answer(broker.groups.ask(request.group_id, request, context), SyncGroupResponse, _refuse)


def _refuse(code: ErrorCode) -> SyncGroupResponse:
    return SyncGroupResponse(error_code=code)
