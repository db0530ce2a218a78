"""A broker's life as the cluster sees it: when it registers, what its heartbeats ask for, when it may go.

    NOT_RUNNING -> STARTING -> RECOVERY -> RUNNING -> PENDING_CONTROLLED_SHUTDOWN -> SHUTTING_DOWN

    STARTING      registers, again and again until it is taken; then reads the metadata up to its registration
    RECOVERY      opens its partitions, fenced; beats to say that it is there
    RUNNING       everything is open, and it was unfenced. A broker that was fenced for its silence stays in this state:
                  its next heartbeat unfences it
    PENDING_...   asks to leave with each heartbeat, until its leaderships have moved and the others know
    SHUTTING_DOWN may go: it was let go, nobody answers, or somebody else has its number

Who asks to leave and gets no answer goes all the same: with most of the cluster gone there is nobody left who could
lead in its place, and a dead broker is noticed anyhow.

This core says what is to be asked when; lifecycle_driver.py asks it.

Sources: KIP-631, Kafka's BrokerState (the numbers).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.broker_heartbeat import BrokerHeartbeatResponse
from streamlog.wire.messages.broker_registration import BrokerRegistrationResponse

RETRY_MS: Final = 250
"""Pause after a registration that was refused because an older process still counts, or a heartbeat that failed."""

LEAVING_MS: Final = 50
"""Pause between heartbeats that ask to leave: somebody waits for this process to end."""

SILENCE_MS_MAX: Final = 2_000
"""Longest time without an answer before a leaving broker goes unasked: longer than most elections of a controller."""

LEAVE_MS_MAX: Final = 30_000
"""Longest time a leaving broker is kept. Others that must learn of the new leaders are dead by then, or know."""

RETRIABLE: Final = frozenset(
    {ErrorCode.DUPLICATE_BROKER_REGISTRATION, ErrorCode.NOT_CONTROLLER, ErrorCode.REQUEST_TIMED_OUT}
)
"""Reasons for which a registration is tried again: time mends them."""


class BrokerState(IntEnum):
    """As Kafka numbers them."""

    NOT_RUNNING = 0
    STARTING = 1
    RECOVERY = 2
    RUNNING = 3
    PENDING_CONTROLLED_SHUTDOWN = 6
    SHUTTING_DOWN = 7


@dataclass(frozen=True, slots=True)
class Register:
    """Ask to be taken into the cluster."""


@dataclass(frozen=True, slots=True)
class Beat:
    """Say that the broker lives, and what it wants."""

    want_fence: bool
    want_shut_down: bool


Ask: TypeAlias = Register | Beat

UNREGISTERED: Final = -1


class Lifecycle:
    """See the module's essay. One thing is asked at a time; times are monotonic."""

    def __init__(self, heartbeat_ms: int) -> None:
        self.heartbeat_ms = heartbeat_ms
        self.state = BrokerState.NOT_RUNNING
        self.epoch = UNREGISTERED
        """Of this incarnation, once it is registered."""
        self.is_fenced = True
        """By the last answer."""
        self.refusal: ErrorCode | None = None
        """Why the cluster does not take this broker, or not any more. Nothing is asked then."""
        self.next_at_ms: int | None = None
        """When to ask next; None while an answer is awaited, before the start and after the end."""
        self._is_ready = False
        self._answered_at_ms = 0
        self._leave_by_ms = 0  # valid in PENDING_CONTROLLED_SHUTDOWN

    # -- what happens here ----------------------------------------------------------------------------------------

    def start(self, now_ms: int) -> None:
        assert self.state is BrokerState.NOT_RUNNING, "a broker starts once"
        self.state = BrokerState.STARTING
        self.next_at_ms = now_ms

    def on_caught_up(self) -> None:
        """The metadata is read up to the registration."""
        if self.state is BrokerState.STARTING:
            self.state = BrokerState.RECOVERY

    def on_ready(self, now_ms: int) -> None:
        """Everything that is placed here is open: the broker wants to be unfenced."""
        self._is_ready = True
        self._hurry(now_ms)

    def leave(self, now_ms: int) -> None:
        """The process is to end."""
        match self.state:
            case BrokerState.RUNNING:
                self.state = BrokerState.PENDING_CONTROLLED_SHUTDOWN
                self._leave_by_ms = now_ms + LEAVE_MS_MAX
                self._answered_at_ms = now_ms
                self._hurry(now_ms)
            case BrokerState.PENDING_CONTROLLED_SHUTDOWN | BrokerState.SHUTTING_DOWN:
                pass
            case _:
                self._end()  # it has led nothing yet

    def _hurry(self, now_ms: int) -> None:
        if self.next_at_ms is not None:
            self.next_at_ms = min(self.next_at_ms, now_ms)

    def _end(self) -> None:
        self.state = BrokerState.SHUTTING_DOWN
        self.next_at_ms = None

    # -- asking ---------------------------------------------------------------------------------------------------

    def due(self, now_ms: int) -> Ask | None:
        """What to ask now, if it is time. One of the `on_` functions has to follow."""
        if self._has_waited_long_enough(now_ms):
            self._end()
        if self.next_at_ms is None or now_ms < self.next_at_ms:
            return None
        self.next_at_ms = None
        if self.epoch == UNREGISTERED:
            return Register()
        return Beat(want_fence=not self._is_ready, want_shut_down=self.state is BrokerState.PENDING_CONTROLLED_SHUTDOWN)

    def _has_waited_long_enough(self, now_ms: int) -> bool:
        if self.state is not BrokerState.PENDING_CONTROLLED_SHUTDOWN:
            return False
        return now_ms >= self._leave_by_ms or now_ms - self._answered_at_ms >= SILENCE_MS_MAX

    def on_registration_response(self, response: BrokerRegistrationResponse, now_ms: int) -> None:
        code = ErrorCode.of(response.error_code)
        if self.is_over:
            return
        if code is ErrorCode.NONE:
            self.epoch = response.broker_epoch
            self._answered_at_ms = now_ms
            # Whoever recovers for long says so now and then; who is ready at once says only that.
            self.next_at_ms = now_ms if self._is_ready else now_ms + self.heartbeat_ms
        elif code in RETRIABLE:
            self.next_at_ms = now_ms + RETRY_MS
        else:
            self.refusal = code
            self._end()

    def on_heartbeat_response(self, response: BrokerHeartbeatResponse, now_ms: int) -> None:
        if self.is_over:
            return
        code = ErrorCode.of(response.error_code)
        if code is ErrorCode.STALE_BROKER_EPOCH:
            self.refusal = code
            self._end()
            return
        if code is not ErrorCode.NONE:
            self.on_failure(now_ms)
            return
        self._answered_at_ms = now_ms
        self.is_fenced = response.is_fenced
        if self.state is BrokerState.PENDING_CONTROLLED_SHUTDOWN:
            if response.should_shut_down:
                self._end()
            else:
                self.next_at_ms = now_ms + LEAVING_MS
            return
        if self.state is BrokerState.RECOVERY and not response.is_fenced:
            self.state = BrokerState.RUNNING
        # Who wants to be unfenced and has just been told no, because it lags behind, need not wait long.
        self.next_at_ms = now_ms + (LEAVING_MS if self._is_ready and response.is_fenced else self.heartbeat_ms)

    def on_failure(self, now_ms: int) -> None:
        """No answer, or none that says anything."""
        if not self.is_over:
            is_leaving = self.state is BrokerState.PENDING_CONTROLLED_SHUTDOWN
            self.next_at_ms = now_ms + (LEAVING_MS if is_leaving else min(RETRY_MS, self.heartbeat_ms))

    @property
    def is_over(self) -> bool:
        return self.state is BrokerState.SHUTTING_DOWN

    @property
    def wake_at_ms(self) -> int | None:
        """When `due` has something to say at the latest."""
        if self.state is not BrokerState.PENDING_CONTROLLED_SHUTDOWN:
            return self.next_at_ms
        limit = min(self._leave_by_ms, self._answered_at_ms + SILENCE_MS_MAX)
        return limit if self.next_at_ms is None else min(limit, self.next_at_ms)
