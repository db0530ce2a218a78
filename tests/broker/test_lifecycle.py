"""When a broker registers, what its heartbeats ask for, and when it may go."""

from __future__ import annotations

import pytest

from streamlog.broker.lifecycle import (
    LEAVE_MS_MAX,
    LEAVING_MS,
    RETRY_MS,
    SILENCE_MS_MAX,
    Beat,
    BrokerState,
    Lifecycle,
    Register,
)
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.broker_heartbeat import BrokerHeartbeatResponse
from streamlog.wire.messages.broker_registration import BrokerRegistrationResponse

BEAT_MS = 500
S = BrokerState

ALIVE = Beat(want_fence=False, want_shut_down=False)
LEAVING = Beat(want_fence=False, want_shut_down=True)
RECOVERING = Beat(want_fence=True, want_shut_down=False)


def registered(epoch: int = 7) -> BrokerRegistrationResponse:
    return BrokerRegistrationResponse(broker_epoch=epoch)


def answer(*, fenced: bool = False, leave: bool = False, code: ErrorCode = ErrorCode.NONE) -> BrokerHeartbeatResponse:
    return BrokerHeartbeatResponse(error_code=code, is_caught_up=True, is_fenced=fenced, should_shut_down=leave)


def running(now_ms: int = 0) -> Lifecycle:
    found = Lifecycle(BEAT_MS)
    found.start(now_ms)
    assert found.due(now_ms) == Register()
    found.on_registration_response(registered(), now_ms)
    found.on_caught_up()
    found.on_ready(now_ms)
    assert found.due(now_ms) == ALIVE
    found.on_heartbeat_response(answer(), now_ms)
    assert found.state is S.RUNNING
    return found


def test_a_broker_that_has_nothing_to_recover_runs_without_waiting() -> None:
    """Registered, unfenced: no pause in between, so that a single node starts at once."""
    found = running(now_ms=10)
    assert (found.epoch, found.is_fenced, found.next_at_ms) == (7, False, 10 + BEAT_MS)


def test_a_broker_that_recovers_beats_and_wants_to_stay_fenced() -> None:
    """It is there, and serves nobody."""
    found = Lifecycle(BEAT_MS)
    found.start(0)
    found.due(0)
    found.on_registration_response(registered(), 0)
    assert found.due(BEAT_MS - 1) is None
    assert found.due(BEAT_MS) == RECOVERING
    found.on_heartbeat_response(answer(fenced=True), BEAT_MS)
    states = [found.state]
    found.on_caught_up()
    assert [*states, found.state] == [S.STARTING, S.RECOVERY]
    found.on_ready(BEAT_MS + 1)
    assert found.due(BEAT_MS + 1) == ALIVE


def test_a_broker_that_lags_behind_asks_again_soon() -> None:
    """It wants to serve."""
    found = Lifecycle(BEAT_MS)
    found.start(0)
    found.due(0)
    found.on_registration_response(registered(), 0)
    found.on_caught_up()
    found.on_ready(0)
    found.due(0)
    found.on_heartbeat_response(answer(fenced=True), 0)
    assert (found.state, found.next_at_ms) == (S.RECOVERY, LEAVING_MS)


@pytest.mark.parametrize(
    "code", [ErrorCode.DUPLICATE_BROKER_REGISTRATION, ErrorCode.NOT_CONTROLLER, ErrorCode.REQUEST_TIMED_OUT]
)
def test_a_registration_that_time_can_mend_is_tried_again(code: ErrorCode) -> None:
    """The session of the process before it runs out."""
    found = Lifecycle(BEAT_MS)
    found.start(0)
    found.due(0)
    found.on_registration_response(BrokerRegistrationResponse(error_code=code), 0)
    assert found.due(RETRY_MS - 1) is None
    assert found.due(RETRY_MS) == Register()


@pytest.mark.parametrize("code", [ErrorCode.INCONSISTENT_CLUSTER_ID, ErrorCode.UNSUPPORTED_VERSION])
def test_a_registration_that_is_refused_for_good_ends_it(code: ErrorCode) -> None:
    """Nothing is asked any more."""
    found = Lifecycle(BEAT_MS)
    found.start(0)
    found.due(0)
    found.on_registration_response(BrokerRegistrationResponse(error_code=code), 0)
    assert (found.refusal, found.state, found.due(10**9)) == (code, S.SHUTTING_DOWN, None)


def test_a_heartbeat_without_an_answer_is_sent_again_soon() -> None:
    """Half a session is lost already."""
    found = running()
    found.due(BEAT_MS)
    found.on_failure(BEAT_MS)
    assert found.due(BEAT_MS + RETRY_MS) == ALIVE


def test_one_thing_is_asked_at_a_time() -> None:
    """The answer decides what comes next."""
    found = running()
    assert found.due(BEAT_MS) == ALIVE
    assert found.due(10 * BEAT_MS) is None


def test_a_broker_that_was_fenced_for_its_silence_goes_on() -> None:
    """Its next heartbeat says what it wants: to serve."""
    found = running()
    found.due(BEAT_MS)
    found.on_heartbeat_response(answer(fenced=True), BEAT_MS)
    assert found.state is S.RUNNING
    assert found.due(BEAT_MS + LEAVING_MS) == ALIVE


def test_a_broker_whose_number_another_process_has_ends() -> None:
    """STALE_BROKER_EPOCH is final: registrations are committed."""
    found = running()
    found.due(BEAT_MS)
    found.on_heartbeat_response(answer(code=ErrorCode.STALE_BROKER_EPOCH), BEAT_MS)
    assert (found.state, found.refusal) == (S.SHUTTING_DOWN, ErrorCode.STALE_BROKER_EPOCH)


def test_a_broker_asks_to_leave_until_it_may() -> None:
    """At once, and in short intervals: somebody waits for the process to end."""
    found = running()
    found.leave(100)
    assert found.state is S.PENDING_CONTROLLED_SHUTDOWN
    assert found.due(100) == LEAVING
    found.on_heartbeat_response(answer(), 110)
    assert found.due(110 + LEAVING_MS) == LEAVING
    found.on_heartbeat_response(answer(fenced=True, leave=True), 170)
    assert (found.state, found.due(10**9)) == (S.SHUTTING_DOWN, None)


def test_a_heartbeat_under_way_does_not_keep_a_broker_from_leaving() -> None:
    """What it was answered counts, and the next one asks."""
    found = running()
    found.due(BEAT_MS)
    found.leave(BEAT_MS + 1)
    assert found.due(BEAT_MS + 1) is None
    found.on_heartbeat_response(answer(), BEAT_MS + 5)
    assert found.due(BEAT_MS + 5 + LEAVING_MS) == LEAVING


def test_a_leaving_broker_that_nobody_answers_goes() -> None:
    """Most of the cluster is gone, too."""
    found = running()
    found.leave(0)
    found.due(0)
    found.on_failure(500)
    assert found.due(500 + LEAVING_MS) == LEAVING
    assert found.wake_at_ms == SILENCE_MS_MAX
    assert found.due(SILENCE_MS_MAX) is None
    assert found.state is S.SHUTTING_DOWN


def test_a_leaving_broker_is_not_kept_for_ever() -> None:
    """Although it is answered."""
    found = running()
    found.leave(0)
    now_ms = 0
    while now_ms < LEAVE_MS_MAX:
        assert found.due(now_ms) == LEAVING
        found.on_heartbeat_response(answer(), now_ms)
        now_ms += LEAVING_MS
    assert found.due(LEAVE_MS_MAX) is None
    assert found.state is S.SHUTTING_DOWN


def test_a_broker_that_never_ran_leaves_at_once() -> None:
    """It leads nothing."""
    found = Lifecycle(BEAT_MS)
    found.start(0)
    found.leave(1)
    assert (found.state, found.due(1)) == (S.SHUTTING_DOWN, None)
