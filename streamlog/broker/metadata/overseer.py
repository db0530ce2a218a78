"""The active controller's dealings with brokers: it registers them, hears their heartbeats, and fences who is gone.

The driver of `registration`, `heartbeats` and `liveness`. While another node is the active controller it does nothing.

Two signs that a broker is gone. Its session runs out: slow and certain. Or its connection ends and nobody listens
where it listened: then its process is dead, and its partitions have other leaders within milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from streamlog.broker.metadata.controller import Controller
from streamlog.broker.metadata.decision import ControllerSettings, Decision
from streamlog.broker.metadata.heartbeats import Heartbeat, broker_heartbeat, fence_broker
from streamlog.broker.metadata.image import BrokerRegistration, MetadataImage
from streamlog.broker.metadata.liveness import Liveness
from streamlog.broker.metadata.registration import Registered, register_broker, unregister_broker
from streamlog.env import Env, Scope
from streamlog.wire.error_codes import KafkaError
from streamlog.wire.messages.broker_heartbeat import BrokerHeartbeatRequest, BrokerHeartbeatResponse
from streamlog.wire.messages.broker_registration import BrokerRegistrationRequest, BrokerRegistrationResponse

log = logging.getLogger(__name__)

Probe = Callable[[BrokerRegistration], Awaitable[bool]]
"""Whether a broker is certainly dead: nobody listens where it did. False when nothing can be said."""

STALL_MS: Final = 250
"""A wait that ends later than this was not a wait: this process stood still, and heartbeats lie unread in sockets."""

PROBE_PAUSES_S: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Between looks at a broker whose connection has ended. A kernel closes the sockets of a process that was killed one
after another: its listener may accept for some milliseconds after its connections have been reset."""

RETRY_PAUSE_S: Final = 0.1
"""After a write that failed (a full disk, leadership lost): the next attempt must not come at once."""


class Overseer:
    """One per controller."""

    def __init__(
        self,
        env: Env,
        controller: Controller,
        settings: ControllerSettings,
        scope: Scope,
        *,
        session_timeout_ms: int,
        own_broker_id: int | None = None,
        probe: Probe | None = None,
        balance_ms: int | None = None,
    ) -> None:
        """`own_broker_id`: the broker that shares this process; it lives as long as this does. `balance_ms`: pause
        between looks for leaderships that can go back to preferred replicas; None: they stay where they are.
        """
        self._env = env
        self._controller = controller
        self._settings = settings
        self._scope = scope
        self._own_broker_id = own_broker_id
        self._probe = probe
        self.liveness = Liveness(session_timeout_ms, own_broker_id)
        self._balance_ms = balance_ms
        self._woken = asyncio.Event()
        self._probing: set[int] = set()  # asked for membership only

    def start(self) -> None:
        self._controller.call_when_active(self._on_active)
        if self._controller.is_active:
            self._on_active()
        self._scope.spawn("oversee brokers", self._run())
        if self._balance_ms is not None:
            self._scope.spawn("balance leaders", self._balance_forever(self._balance_ms))

    def _on_active(self) -> None:
        image = self._controller.state
        self.liveness.begin(image, self._env.clock.mono_ms(), self._controller.quorum.heard_ms)
        for broker in image.brokers.values():
            self._ask_after(broker)
        self._woken.set()

    # -- requests -------------------------------------------------------------------------------------------------

    async def register(self, request: BrokerRegistrationRequest) -> BrokerRegistrationResponse:
        """Raises KafkaError of the decision, or of `Controller.write`."""
        now_ms = self._env.clock.mono_ms()

        def decide(image: MetadataImage) -> Decision[Registered]:
            decision = register_broker(
                image, self._settings, self.liveness, request, self._controller.next_offset, now_ms
            )
            self.liveness.on_registered(request.broker_id, decision.response.epoch, now_ms)
            return decision

        registered = await self._controller.write(decide)
        log.info("broker=%d epoch=%d registered new=%s", request.broker_id, registered.epoch, registered.is_new)
        return BrokerRegistrationResponse(broker_epoch=registered.epoch)

    async def heartbeat(self, request: BrokerHeartbeatRequest) -> BrokerHeartbeatResponse:
        """Raises KafkaError STALE_BROKER_EPOCH, or of `Controller.write`."""
        now_ms = self._env.clock.mono_ms()
        broker_id, epoch = request.broker_id, request.broker_epoch

        def decide(image: MetadataImage) -> Decision[Heartbeat]:
            decision = broker_heartbeat(image, self._settings, self.liveness, request)
            self.liveness.on_heartbeat(broker_id, epoch, request.current_metadata_offset, now_ms)
            if decision.response.begins_shutdown:
                last_offset = self._controller.next_offset - 1 + len(decision.records)
                self.liveness.on_shutdown_begun(broker_id, epoch, last_offset, now_ms)
            if decision.response.is_gone:
                self.liveness.on_gone(broker_id)
            if decision.records:
                told = decision.response.response
                state = "leaving" if decision.response.begins_shutdown else "fenced" if told.is_fenced else "unfenced"
                log.info("broker=%d epoch=%d state=%s records=%d", broker_id, epoch, state, len(decision.records))
            return decision

        return (await self._controller.write(decide)).response

    async def unregister(self, broker_id: int) -> None:
        """Raises KafkaError BROKER_ID_NOT_REGISTERED, or of `Controller.write`."""
        await self._controller.write(lambda image: unregister_broker(image, self._settings, broker_id))
        self.liveness.on_gone(broker_id)

    # -- who is gone ----------------------------------------------------------------------------------------------

    def on_connection_lost(self, broker_id: int, epoch: int) -> None:
        """The connection that a broker's heartbeats came by has ended."""
        if not self._controller.is_active:
            return
        self.liveness.on_connection_lost(broker_id, epoch)
        broker = self._controller.state.brokers.get(broker_id)
        if broker is not None and broker.epoch == epoch:
            self._ask_after(broker)

    def _ask_after(self, broker: BrokerRegistration) -> None:
        if self._probe is None or broker.fenced or broker.id == self._own_broker_id or broker.id in self._probing:
            return
        self._probing.add(broker.id)
        self._scope.spawn("ask after a broker", self._fence_if_dead(self._probe, broker))

    async def _fence_if_dead(self, probe: Probe, broker: BrokerRegistration) -> None:
        try:
            is_dead = await is_dead_by_now(probe, broker, lambda: self.liveness.is_lost(broker.id))
        finally:
            self._probing.discard(broker.id)
        if is_dead and self.liveness.is_lost(broker.id) and self._controller.is_active:
            await self._fence(broker.id, broker.epoch, "its connection has ended and nobody listens where it did")

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            if not self._controller.is_active:
                await self._woken.wait()
                continue
            clock = self._env.clock
            began_ms = clock.mono_ms()
            pause_ms = self.liveness.session_timeout_ms
            deadline_ms = self.liveness.deadline_ms(self._controller.state)
            if deadline_ms is not None:
                pause_ms = max(0, min(pause_ms, deadline_ms - began_ms))
            if await self._pause(pause_ms / 1000):
                continue
            late_ms = clock.mono_ms() - began_ms - pause_ms
            if late_ms > STALL_MS:
                self.liveness.on_stalled(late_ms)
            await self._fence_silent()

    async def _pause(self, seconds: float) -> bool:
        """Wait; returns whether this was woken before."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True

    async def _fence_silent(self) -> None:
        while self._controller.is_active:
            image = self._controller.state
            broker_id = self.liveness.expired(image, self._env.clock.mono_ms())
            if broker_id is None:
                return
            if not await self._fence(broker_id, image.brokers[broker_id].epoch, "its session has run out"):
                return

    async def _fence(self, broker_id: int, epoch: int, reason: str) -> bool:
        try:
            is_fenced = await self._controller.write(
                lambda image: fence_broker(image, self._settings, broker_id, epoch)
            )
        except KafkaError as error:
            log.warning("broker=%d epoch=%d could not be fenced: %s", broker_id, epoch, error)
            await asyncio.sleep(RETRY_PAUSE_S)
            return False
        if is_fenced:
            self.liveness.on_gone(broker_id)
            log.warning("broker=%d epoch=%d fenced: %s", broker_id, epoch, reason)
        return True

    # -- leaders --------------------------------------------------------------------------------------------------

    async def _balance_forever(self, pause_ms: int) -> None:
        while True:
            await asyncio.sleep(pause_ms / 1000)
            await self.balance()

    async def balance(self) -> None:
        """Give leaderships back to preferred replicas, some at a time."""
        # Not at the top: minutes pass before it is needed, and its messages would take their time at every start.
        from streamlog.broker.metadata.elections import balance_leaders

        has_more = self._controller.is_active
        while has_more:
            try:
                has_more = await self._controller.write(lambda image: balance_leaders(image, self._settings))
            except KafkaError as error:
                log.warning("leaders could not be balanced: %s", error)
                return


async def is_dead_by_now(probe: Probe, broker: BrokerRegistration, is_lost: Callable[[], bool]) -> bool:
    """Whether nobody listens any more where the broker did, now or in a moment; False once it is not lost."""
    for pause_s in PROBE_PAUSES_S:
        if await probe(broker):
            return True
        await asyncio.sleep(pause_s)
        if not is_lost():
            return False
    return await probe(broker)
