"""FindCoordinator (API 10): which broker coordinates a group.

Version 4 asks for several keys at once (KIP-699), and is the form everything is brought into.
"""

from __future__ import annotations

from streamlog.broker.api.metadata import send_elsewhere
from streamlog.broker.broker import Broker
from streamlog.broker.context import RequestContext
from streamlog.broker.coordinator.groups import TOPIC
from streamlog.broker.no_transactions import refuse_transactions
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.messages.find_coordinator import Coordinator, FindCoordinatorRequest, FindCoordinatorResponse

BATCH_SINCE = 4
GROUP = 0
TRANSACTION = 1
NO_NODE = -1


async def handle(broker: Broker, context: RequestContext, request: FindCoordinatorRequest) -> FindCoordinatorResponse:
    if context.version >= BATCH_SINCE:
        found = [await _find(broker, context, request.key_type, key) for key in request.coordinator_keys]
        return FindCoordinatorResponse(coordinators=found)
    one = await _find(broker, context, request.key_type, request.key)
    return FindCoordinatorResponse(
        error_code=one.error_code,
        error_message=one.error_message,
        node_id=one.node_id,
        host=one.host,
        port=one.port,
    )


async def _find(broker: Broker, context: RequestContext, key_type: int, key: str) -> Coordinator:
    try:
        if key_type == TRANSACTION:
            raise refuse_transactions(context, key)
        if key_type != GROUP:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"This broker has no coordinator of type {key_type}.")
        partition = await broker.groups.find_partition(key)
        registration = broker.image.partition(TOPIC, partition)
        leader = None if registration is None else broker.image.brokers.get(registration.leader)
        endpoint = None if leader is None or leader.fenced else leader.endpoint(context.listener)
        if leader is None or endpoint is None:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"{TOPIC}-{partition} has no leader")
        led = broker.partitions.opened(TOPIC).get(partition)
        if led is not None and led.is_cut_off:
            send_elsewhere(context)
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"{TOPIC}-{partition}: ask a broker that knows more")
    except KafkaError as error:
        return Coordinator(
            key=key, node_id=NO_NODE, port=NO_NODE, error_code=error.code, error_message=error.message or None
        )
    return Coordinator(key=key, node_id=leader.id, host=endpoint.host, port=endpoint.port, error_message=None)
