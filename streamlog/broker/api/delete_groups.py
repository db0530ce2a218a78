"""DeleteGroups (API 42): delete groups without members, and their offsets (KIP-229)."""

from __future__ import annotations

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.coordinator.group.requests import DeleteGroup
from streamlog.broker.coordinator.groups import wait_for
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.delete_groups import DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse


async def handle(broker: Broker, context: RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse:
    results: list[DeletableGroupResult] = []
    for group_id in dict.fromkeys(request.groups_names):
        future = broker.groups.ask(group_id, DeleteGroup(group_id), context)
        code = await wait_for(future, ErrorCode, _same)
        results.append(DeletableGroupResult(group_id=group_id, error_code=code))
    return DeleteGroupsResponse(results=results)


def _same(code: ErrorCode) -> ErrorCode:
    return code
