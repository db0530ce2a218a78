"""DescribeGroups (API 15): state, protocol and members of classic groups."""

from __future__ import annotations

from streamlog.broker.authorized_operations import GROUP_OPERATIONS
from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.coordinator.group.requests import DescribeGroup
from streamlog.broker.coordinator.groups import wait_for
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.describe_groups import DescribedGroup, DescribeGroupsRequest, DescribeGroupsResponse


async def handle(broker: Broker, context: RequestContext, request: DescribeGroupsRequest) -> DescribeGroupsResponse:
    groups = [await _describe(broker, context, group_id) for group_id in request.groups]
    if request.include_authorized_operations:
        for group in groups:
            group.authorized_operations = GROUP_OPERATIONS
    return DescribeGroupsResponse(groups=groups)


async def _describe(broker: Broker, context: RequestContext, group_id: str) -> DescribedGroup:
    def refuse(code: ErrorCode) -> DescribedGroup:
        return DescribedGroup(group_id=group_id, error_code=code)

    # The empty name is a group's name too: old simple consumers commit under it.
    return await wait_for(broker.groups.ask(group_id, DescribeGroup(group_id), context), DescribedGroup, refuse)
