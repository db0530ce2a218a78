"""ListGroups (API 16): the groups that this broker coordinates, filtered by state (KIP-518) and type (KIP-848)."""

from __future__ import annotations

import asyncio

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.coordinator.group.requests import ListShard
from streamlog.broker.coordinator.groups import wait_for
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.list_groups import ListedGroup, ListGroupsRequest, ListGroupsResponse


async def handle(broker: Broker, context: RequestContext, request: ListGroupsRequest) -> ListGroupsResponse:
    states = frozenset(state.lower() for state in request.states_filter)
    types = frozenset(kind.lower() for kind in request.types_filter)
    groups: list[ListedGroup] = []

    def refuse(code: ErrorCode) -> list[ListedGroup]:
        if code is not ErrorCode.NOT_COORDINATOR:
            raise KafkaError(code)
        return []  # the partition has just moved: its new leader lists its groups

    asked = broker.groups.ask_all(ListShard(states, types), context)
    if asked:
        await asyncio.wait(asked)
    for future in asked:
        groups += await wait_for(future, list, refuse)
    return ListGroupsResponse(groups=groups)
