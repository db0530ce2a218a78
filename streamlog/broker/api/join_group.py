"""JoinGroup (API 11): become or stay a member of a group, and wait for its next generation.

The answer may take as long as a rebalance does. A new member is given an id first and comes again with it; until its
first generation is there its connection is all there is of it, and the group need not wait for who has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.coordinator.group.rebalance import join_error
from streamlog.broker.coordinator.groups import answer
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.join_group import JoinGroupRequest, JoinGroupResponse

EXPECTED_MAX: Final = 100
"""Member ids that one connection is expected to come back with; clients have one. Beyond it their sessions end them."""


def handle(
    broker: Broker, context: RequestContext, request: JoinGroupRequest
) -> JoinGroupResponse | Awaitable[JoinGroupResponse]:
    def refuse(code: ErrorCode) -> JoinGroupResponse:
        return join_error(context.version, code, request.member_id)

    if not request.group_id:
        return refuse(ErrorCode.INVALID_GROUP_ID)
    future = broker.groups.ask(request.group_id, request, context)
    context.connection.when_lost.pop(request.member_id, None)
    if request.group_instance_id is not None:
        return answer(future, JoinGroupResponse, refuse)
    return _answer_dynamic(broker, context, request, future, refuse)


async def _answer_dynamic(
    broker: Broker,
    context: RequestContext,
    request: JoinGroupRequest,
    future: asyncio.Future[object],
    refuse: Callable[[ErrorCode], JoinGroupResponse],
) -> JoinGroupResponse:
    """Cancelling (the client has left) takes out who is no member yet."""
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        if request.member_id:
            future.cancel()
            broker.groups.forget_newcomer(request.group_id, request.member_id, context)
        else:
            future.add_done_callback(partial(_forget_unread, broker, context, request.group_id))
        raise
    response = answer(future, JoinGroupResponse, refuse)
    assert isinstance(response, JoinGroupResponse), "the future is done"
    if response.error_code == ErrorCode.MEMBER_ID_REQUIRED:
        _expect(broker, context, request.group_id, response.member_id)
    return response


def _expect(broker: Broker, context: RequestContext, group_id: str, member_id: str) -> None:
    """The client is to come again with this id; unless its connection ends before."""
    when_lost = context.connection.when_lost
    if len(when_lost) >= EXPECTED_MAX:
        del when_lost[next(iter(when_lost))]
    when_lost[member_id] = partial(broker.groups.forget_newcomer, group_id, member_id, context)


def _forget_unread(broker: Broker, context: RequestContext, group_id: str, future: asyncio.Future[object]) -> None:
    """The id was given to somebody who had left by then."""
    if not future.cancelled() and future.exception() is None:
        response = future.result()
        if isinstance(response, JoinGroupResponse) and response.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            broker.groups.forget_newcomer(group_id, response.member_id, context)
