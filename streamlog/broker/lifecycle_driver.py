"""Asks the active controller what a broker's lifecycle wants asked, and tells whoever waits for it.

One task from the start to the end. What is asked goes through the controller channel, which finds the active
controller by itself; on a single node that is a call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from streamlog.broker.lifecycle import UNREGISTERED, Ask, BrokerState, Lifecycle, Register
from streamlog.env import Env, Scope
from streamlog.errors import EnvironmentFailure
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.message import Request, Response
from streamlog.wire.messages.broker_heartbeat import BrokerHeartbeatRequest, BrokerHeartbeatResponse
from streamlog.wire.messages.broker_registration import BrokerRegistrationRequest, BrokerRegistrationResponse

log = logging.getLogger(__name__)

ANSWER_MS_MAX: Final = 1_500
"""How long one attempt may take, the search for the active controller included: then another is made, by what the
broker wants by then. Half a session: a connection that swallows a heartbeat must not cost the whole of it."""


class Channel(Protocol):
    async def request(self, message: Request, timeout_ms: int) -> Response:
        """The active controller's answer. Raises KafkaError."""
        ...


class LifecycleDriver:
    def __init__(
        self,
        env: Env,
        channel: Channel,
        registration: BrokerRegistrationRequest,
        heartbeat_ms: int,
        metadata_offset: Callable[[], int],
        majority_heard_ms: Callable[[], int],
    ) -> None:
        """`metadata_offset`: the last offset of the metadata log that this broker follows. `majority_heard_ms`: since
        when the controller of this node, while it leads, may have been replaced without knowing.
        """
        self.core = Lifecycle(heartbeat_ms)
        self._env = env
        self._channel = channel
        self._registration = registration
        self._metadata_offset = metadata_offset
        self._majority_heard_ms = majority_heard_ms
        self.heard_at_ms = 0
        """When the controller last answered a heartbeat. One of our own that hears no majority answers too: it is
        believed as of when it did."""
        self._woken = asyncio.Event()  # the core wants something else than it did
        self._changed: asyncio.Future[None] | None = None  # somebody waits for the core's state to change
        self._told = ""  # the trouble that the log has last been told of; "": there is none
        self._is_over = False  # the task has ended, as it should or not

    def start(self, scope: Scope) -> None:
        """Begin to ask. The task fails, and the scope with it, when another process has this broker's number."""
        self.core.start(self._now_ms())
        scope.spawn("lifecycle", self._run())

    async def registered(self) -> int:
        """The epoch of this incarnation. Raises EnvironmentFailure: the cluster does not take this broker."""
        await self._until(lambda: self.core.epoch != UNREGISTERED)
        if self.core.epoch == UNREGISTERED:
            raise self._not_taken()
        return self.core.epoch

    def on_caught_up(self) -> None:
        self.core.on_caught_up()

    async def serve(self) -> None:
        """Everything is open: return when the broker is unfenced. Raises EnvironmentFailure."""
        self.core.on_ready(self._now_ms())
        self._woken.set()
        await self._until(lambda: self.core.state is not BrokerState.RECOVERY)
        if self.core.state is not BrokerState.RUNNING:
            raise self._not_taken()

    async def leave(self) -> None:
        """Return when the broker may go. Cancelling leaves it asking."""
        self.core.leave(self._now_ms())
        self._woken.set()
        await self._until(lambda: self.core.is_over)

    def _now_ms(self) -> int:
        return self._env.clock.mono_ms()

    def _not_taken(self) -> EnvironmentFailure:
        reason = "its lifecycle has ended" if self.core.refusal is None else self.core.refusal.name
        return EnvironmentFailure(f"the cluster does not take broker {self._registration.broker_id}: {reason}")

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for `condition`, or for the end of the task that could bring it about."""
        while not condition() and not self._is_over:
            if self._changed is None:
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._changed)

    def _tell_changed(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set_result(None)

    async def _run(self) -> None:
        try:
            await self._ask_until_the_end()
        finally:
            self._is_over = True
            self._tell_changed()
        if self.core.refusal is ErrorCode.STALE_BROKER_EPOCH:
            raise EnvironmentFailure(
                f"broker {self._registration.broker_id} was unregistered, or another process is registered in its place"
            )

    async def _ask_until_the_end(self) -> None:
        core = self.core
        while not core.is_over:
            self._woken.clear()
            before, ask = core.state, core.due(self._now_ms())
            if ask is not None:
                await self._ask(ask)
            if core.state is not before:
                number = self._registration.broker_id
                log.info("broker=%d epoch=%d state=%s", number, core.epoch, core.state.name)
            self._tell_changed()
            if ask is None and not core.is_over:
                await self._wait(core.wake_at_ms)

    async def _wait(self, until_ms: int | None) -> None:
        if until_ms is None:
            await self._woken.wait()
            return
        try:
            async with asyncio.timeout(max(0, until_ms - self._now_ms()) / 1000):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _ask(self, ask: Ask) -> None:
        core = self.core
        try:
            if isinstance(ask, Register):
                registered = await self._channel.request(self._registration, ANSWER_MS_MAX)
                assert isinstance(registered, BrokerRegistrationResponse), "the answer is of the request's API"
                self._tell_registration(ErrorCode.of(registered.error_code))
                core.on_registration_response(registered, self._now_ms())
                return
            request = BrokerHeartbeatRequest(
                broker_id=self._registration.broker_id,
                broker_epoch=core.epoch,
                current_metadata_offset=self._metadata_offset(),
                want_fence=ask.want_fence,
                want_shut_down=ask.want_shut_down,
            )
            answered = await self._channel.request(request, ANSWER_MS_MAX)
            assert isinstance(answered, BrokerHeartbeatResponse), "the answer is of the request's API"
            self._told = ""
            if not answered.error_code:
                self.heard_at_ms = self._majority_heard_ms()
            core.on_heartbeat_response(answered, self._now_ms())
        except KafkaError as error:
            self._tell(f"the controller does not answer: {error}")
            if isinstance(ask, Register):
                core.on_registration_response(BrokerRegistrationResponse(error_code=error.code), self._now_ms())
            else:
                core.on_failure(self._now_ms())

    def _tell_registration(self, code: ErrorCode) -> None:
        if code is ErrorCode.DUPLICATE_BROKER_REGISTRATION:
            self._tell(
                f"not registered ({code.name}): another process with this node.id takes part. Each needs a number of "
                "its own; if it has just ended, its session is waited for"
            )
        elif code is not ErrorCode.NONE:
            self._tell(f"not registered: {code.name}")

    def _tell(self, trouble: str) -> None:
        """Once, until there is another: what is asked again is answered as before, several times a second."""
        level = logging.DEBUG if trouble == self._told else logging.WARNING
        self._told = trouble
        log.log(level, "broker=%d %s (asked again)", self._registration.broker_id, trouble)
