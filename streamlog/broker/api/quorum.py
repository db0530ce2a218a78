"""What the replicas of the metadata quorum ask each other, and who changes its voters asks the leader.

Vote (52), BeginQuorumEpoch (53), EndQuorumEpoch (54), Fetch (1) of the metadata log, FetchSnapshot (59), AddRaftVoter
(80), RemoveRaftVoter (81), UpdateRaftVoter (82): all of them are translated, put to the core, and answered when the
core answers.
"""

from __future__ import annotations

from streamlog.broker.raft import rpc
from streamlog.broker.raft.quorum import Quorum
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.message import Request, Response


async def handle(quorum: Quorum, request: Request) -> Response:
    """Raises RemoteProtocolError when the request is about another partition than the quorum's."""
    try:
        asked = rpc.decode_request(request, quorum.cluster_id)
    except rpc.OtherCluster:
        return rpc.refuse(request, ErrorCode.INCONSISTENT_CLUSTER_ID)
    return rpc.encode_response(await quorum.ask(asked), request)
