"""The way to the active controller, wherever it is.

On the node that is active it is a call. Everywhere else it is a connection to the leader's controller listener; when
that breaks, when another leads, or when the answer is NOT_CONTROLLER, the leader is looked for again, and asked again,
until the deadline. So a request may be carried out twice: those that must not be name what they build on (epochs,
versions), as Kafka's do.

What clients ask of a broker goes as it came, in an Envelope (KIP-590); what the broker asks itself, as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from ipaddress import ip_address
from typing import Final, TypeAlias

from streamlog.broker.api.decided import TellsErrors, decide, find_service
from streamlog.broker.controller_home import ControllerContext, ControllerHome
from streamlog.broker.peer import NotOffered, PeerConnection, PeerGone, connect
from streamlog.broker.raft.quorum import Quorum
from streamlog.env import Env
from streamlog.errors import LocalProtocolError, RemoteProtocolError
from streamlog.wire.apis import API_TABLE
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.frames import decode_response, encode_request_parts
from streamlog.wire.message import Request, Response

REQUEST_MS_MAX: Final = 30_000
"""Kafka's request.timeout.ms: as long as clients wait by default."""

CONNECT_MS_MAX: Final = 2_000
"""An address that does not even answer is given up before the leader's followers give it up."""

RETRY_MS: Final = 20
"""Pause before the leader is looked for again."""

FORWARDED_MAX: Final = 8
"""Clients' requests that are under way at a time; more of them wait. What the broker asks itself never waits behind
them: a heartbeat that is late costs it its leaderships."""

ANONYMOUS: Final = b"\x00\x00\x05User\x0aANONYMOUS\x00\x00"
"""Kafka's DefaultPrincipalData, version 0, of a client that did not say who it is."""

_Ask: TypeAlias = Callable[[PeerConnection], Awaitable[Response | None]]
"""One attempt over a connection; None: the peer is not the active controller."""


class ControllerChannel:
    def __init__(self, env: Env, quorum: Quorum, node_id: int, home: ControllerHome | None) -> None:
        """`home`: this node's controller, None where there is none."""
        self._env = env
        self._quorum = quorum
        self._node_id = node_id
        self._home = home
        self._idle: list[PeerConnection] = []
        self._open: dict[PeerConnection, tuple[str, int]] = {}  # idle and busy, with whom they lead to
        self._forwarding = asyncio.Semaphore(FORWARDED_MAX)
        self._is_closed = False
        quorum.on_leader_moved.append(self._drop_others)

    async def request(self, message: Request, timeout_ms: int = REQUEST_MS_MAX) -> Response:
        """The active controller's answer to what this node asks itself.

        Raises KafkaError: REQUEST_TIMED_OUT, or UNSUPPORTED_VERSION when the controller does not know such a request.
        Cancelling leaves the request to come to whatever it comes to.
        """
        api = API_TABLE[message.api_key]

        async def ask(connection: PeerConnection) -> Response | None:
            response = await connection.request(message)
            is_elsewhere = isinstance(response, TellsErrors) and response.error_code == ErrorCode.NOT_CONTROLLER
            return None if is_elsewhere else response

        return await self._until_answered(message, api.stable_max_version, ask, nullcontext(), timeout_ms)

    async def forward(
        self, message: Request, version: int, client_host: str = "", timeout_ms: int = REQUEST_MS_MAX
    ) -> Response:
        """The active controller's answer to what a client asked in `version`. Raises as `request` does."""

        async def ask(connection: PeerConnection) -> Response | None:
            # Not at the top: a quorum of one forwards nothing.
            from streamlog.wire.messages.envelope import EnvelopeRequest, EnvelopeResponse

            data = b"".join(encode_request_parts(message, version, 0, None))[4:]
            envelope = EnvelopeRequest(
                request_data=data,
                request_principal=ANONYMOUS,
                client_host_address=ip_address(client_host or "127.0.0.1").packed,
            )
            wrapped = await connection.request(envelope)
            assert isinstance(wrapped, EnvelopeResponse), "the answer is of the request's API"
            if wrapped.error_code == ErrorCode.NOT_CONTROLLER:
                return None
            if wrapped.error_code or wrapped.response_data is None:
                raise KafkaError(ErrorCode.of(wrapped.error_code or ErrorCode.UNKNOWN_SERVER_ERROR))
            return decode_response(API_TABLE[message.api_key].response, version, wrapped.response_data)[1]

        return await self._until_answered(message, version, ask, self._forwarding, timeout_ms)

    def close(self) -> None:
        """Requests under way fail."""
        self._is_closed = True
        for connection in list(self._open):
            connection.close()
        self._open.clear()
        self._idle.clear()

    # -- one attempt after the other --------------------------------------------------------------------------

    async def _until_answered(
        self, message: Request, version: int, ask: _Ask, turn: AbstractAsyncContextManager[None], timeout_ms: int
    ) -> Response:
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while True:
                    response = await self._try_once(message, version, ask, turn)
                    if response is not None:
                        return response
                    if self._is_closed:
                        raise KafkaError(ErrorCode.BROKER_NOT_AVAILABLE, "this node is being stopped")
                    await asyncio.sleep(RETRY_MS / 1000)
        except TimeoutError:
            self._drop_idle()
            raise KafkaError(ErrorCode.REQUEST_TIMED_OUT, "no controller answers") from None

    async def _try_once(
        self, message: Request, version: int, ask: _Ask, turn: AbstractAsyncContextManager[None]
    ) -> Response | None:
        """None: whoever leads has to be found, and asked again."""
        if self._quorum.leader_id == self._node_id:
            return await self._ask_here(message, version)
        async with turn:
            address = self._quorum.leader_address
            return None if address is None or self._is_closed else await self._ask_there(address, ask)

    async def _ask_here(self, message: Request, version: int) -> Response | None:
        assert self._home is not None, "who leads the quorum is a controller"
        row = find_service(message.api_key)
        assert row is not None, "controllers serve what is asked of them"
        try:
            return await decide(self._home, row, message, ControllerContext(version))
        except KafkaError:
            return None  # NOT_CONTROLLER: everything else is in the response

    async def _ask_there(self, address: tuple[str, int], ask: _Ask) -> Response | None:
        connection: PeerConnection | None = None
        try:
            connection = await self._connection(address)
            response = await ask(connection)
        except (PeerGone, RemoteProtocolError, TimeoutError):
            if connection is not None:
                self._forget(connection)
            return None
        except (NotOffered, LocalProtocolError) as error:
            assert connection is not None, "only a request can be unknown"
            self._keep(connection)
            raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, str(error)) from error
        except BaseException:
            if connection is not None:
                self._forget(connection)
            raise
        self._keep(connection)
        return response

    # -- connections ------------------------------------------------------------------------------------------

    async def _connection(self, address: tuple[str, int]) -> PeerConnection:
        while self._idle:
            found = self._idle.pop()
            if found.closed is None and self._open.get(found) == address:
                return found
            self._forget(found)
        try:
            async with asyncio.timeout(CONNECT_MS_MAX / 1000):
                made = await connect(self._env, *address, f"broker-{self._node_id}")
        except TimeoutError as error:
            raise PeerGone(f"{address[0]}:{address[1]} does not answer") from error
        self._open[made] = address
        if self._is_closed or self._quorum.leader_address != address:
            self._forget(made)
            raise PeerGone("another leads by now")
        return made

    def _keep(self, connection: PeerConnection) -> None:
        if connection in self._open and connection.closed is None:
            self._idle.append(connection)
        else:
            self._forget(connection)

    def _forget(self, connection: PeerConnection) -> None:
        self._open.pop(connection, None)
        connection.close()

    def _drop_idle(self) -> None:
        """An answer did not come. Where answers are lost and requests are not, each of these would take one heartbeat
        to the controller and give us another session, in which we could neither read the metadata nor replicate."""
        idle, self._idle = self._idle, []
        for connection in idle:
            self._forget(connection)

    def _drop_others(self) -> None:
        """Another leads, or nobody: whoever was asked need not be waited for."""
        address = self._quorum.leader_address
        for connection, leads_to in list(self._open.items()):
            if leads_to != address:
                connection.close()
