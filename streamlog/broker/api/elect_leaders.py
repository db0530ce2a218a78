"""ElectLeaders (API 43): leaders are elected now. Who can be: metadata/elections.py."""

from __future__ import annotations

from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.metadata.elections import elect_leaders
from streamlog.wire.error_codes import KafkaError
from streamlog.wire.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)


async def handle(
    home: ControllerHome, request: ElectLeadersRequest, context: ControllerContext
) -> ElectLeadersResponse:
    """Cancelling (the client has left) does not stop the elections."""
    return await home.controller.write(lambda image: elect_leaders(image, home.settings, request))


def refuse(request: ElectLeadersRequest, error: KafkaError, version: int) -> ElectLeadersResponse:
    results = [
        ReplicaElectionResult(
            topic=topic.topic,
            partition_result=[
                PartitionResult(partition_id=index, error_code=error.code, error_message=error.message)
                for index in topic.partitions
            ],
        )
        for topic in request.topic_partitions or ()
    ]
    return ElectLeadersResponse(error_code=error.code if version >= 1 else 0, replica_election_results=results)
