"""The quorum's requests to other nodes: a task each, on connections that are kept between them.

The core asks a peer one thing at a time, unless it has forgotten the last one because its role has changed. Then the
old connection is still busy (a fetch waits up to half a second at the other end), and the new request gets another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from streamlog.broker.peer import NotOffered, PeerConnection, PeerGone, connect
from streamlog.broker.raft.effects import Send
from streamlog.broker.raft.messages import Request, Response, VersionsResponse, VoteRequest, VoteResponse
from streamlog.broker.raft.peers import Peer
from streamlog.env import Env, Scope
from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.wire.error_codes import ErrorCode

log = logging.getLogger(__name__)


class Links:
    def __init__(
        self,
        env: Env,
        scope: Scope,
        *,
        cluster_id: str,
        node_id: int,
        listener: str,
        request_timeout_ms: int,
        on_response: Callable[[Send, Response], None],
        on_failure: Callable[[Send, bool], None],
    ) -> None:
        """`on_failure(send, is_gone)`: nothing came back; `is_gone`: because the peer's connection broke."""
        self._env = env
        self._scope = scope
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._listener = listener
        self._timeout_s = request_timeout_ms / 1000
        self._on_response = on_response
        self._on_failure = on_failure
        self._idle: dict[tuple[str, int], PeerConnection] = {}
        self._foreign: set[tuple[str, int]] = (
            set()
        )  # addresses of peers that belong to another cluster, and it was said
        self._is_closed = False

    def send(self, send: Send) -> None:
        self._scope.spawn(f"ask {send.peer.id}", self._exchange(send))

    def close(self) -> None:
        """What is under way comes to nothing. The tasks are the scope's to end."""
        self._is_closed = True
        for connection in self._idle.values():
            connection.close()
        self._idle.clear()

    async def _exchange(self, send: Send) -> None:
        """Ask, and tell what came of it. Raises nothing: peers are what they are."""
        peer, is_gone = send.peer, False
        response: Response | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._request(peer, send.request)
        except PeerGone as error:
            log.debug("quorum peer=%d is gone: %s", peer.id, error)
            is_gone = True
        except TimeoutError:
            log.debug("quorum peer=%d does not answer", peer.id)
        except RemoteProtocolError as error:
            log.warning("quorum peer=%d does not speak the protocol: %s", peer.id, error)
        if self._is_closed:
            return
        if response is None:
            self._on_failure(send, is_gone)
        else:
            self._on_response(send, response)

    def _note_cluster(self, peer: Peer, response: Response) -> None:
        error = response.error if isinstance(response, VersionsResponse) else response.answer.error
        address = peer.host, peer.port
        if error is not ErrorCode.INCONSISTENT_CLUSTER_ID:
            self._foreign.discard(address)
        elif address not in self._foreign:
            self._foreign.add(address)
            log.warning(
                "quorum peer %s:%d belongs to another cluster: the data directory of this node is of cluster %s. Start "
                "the node with a directory of that other cluster, or name the right controllers",
                *address,
                self._cluster_id,
            )

    async def _request(self, peer: Peer, request: Request) -> Response | None:
        # Not at the top: a quorum of one asks nobody, and these messages would be a twentieth of a broker's start.
        from streamlog.broker.raft import rpc

        address = peer.host, peer.port
        connection = self._idle.pop(address, None)
        if connection is None or connection.closed is not None:
            connection = await connect(self._env, peer.host, peer.port, f"raft-client-{self._node_id}")
        response: Response | None
        try:
            message = await connection.request(rpc.encode_request(request, self._cluster_id))
            response = rpc.decode_response(message, self._listener)
            self._note_cluster(peer, response)
        except (NotOffered, LocalProtocolError) as error:
            log.debug("quorum peer=%d: %s", peer.id, error)
            response = VoteResponse(rpc.unsupported(), granted=False) if isinstance(request, VoteRequest) else None
        except BaseException:
            connection.close()
            raise
        if self._is_closed or address in self._idle:
            connection.close()  # an older request, which nobody waits for any more, came back first
        else:
            self._idle[address] = connection
        return response
