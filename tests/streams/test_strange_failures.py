"""Functions of users that fail in unusual ways: all of them are failures, and none ends a worker or stops silently."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

import streamlog
from streamlog.client.admin import Admin
from streamlog.client.producer import Producer
from streamlog.env import real_env
from streamlog.streams.beside import Beside
from streamlog.streams.policies import DeadLetter, OnError, blame
from streamlog.streams.timers import BackgroundTask, Every, Timer, Work, run_task, run_timer
from streamlog.wire.error_codes import ErrorCode, KafkaError
from tests.streams.harness import CollectingOutbox, running
from tests.streams.live import LiveBroker, live_broker
from tests.streams.words import until

log = logging.getLogger(__name__)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[LiveBroker]:
    async with live_broker(tmp_path / "broker") as running_broker:
        yield running_broker


class NoText(Exception):
    def __str__(self) -> str:
        raise ValueError("there is none")


async def something_cancelled() -> None:
    """What a library does that loses its connection, for example."""
    call = asyncio.ensure_future(asyncio.sleep(60))
    call.cancel()
    await call


async def raise_no_text() -> None:
    raise NoText


async def raise_surrogate() -> None:
    raise KeyError("\ud800")


STRANGE: list[Callable[[], Awaitable[None]]] = [something_cancelled, raise_no_text, raise_surrogate]


def failing(fail: Callable[[], Awaitable[object]], on_error: OnError | None) -> streamlog.App:
    """Fails at 2, and counts all other events."""
    app = streamlog.App("failing")
    numbers = app.topic("numbers", key=str, value=int, partitions=1)
    dead = app.topic("dead", key=str, value=int, partitions=1)
    counts = app.Table("counts", key=str, value=int, default=int)

    @app.agent(numbers, on_error=on_error or DeadLetter(dead))
    async def count(stream: streamlog.Stream[str, int]) -> None:
        async for key, value in stream.items():
            if value == 2:
                await fail()
            counts[key] += 1

    return app


@pytest.mark.parametrize("fail", STRANGE)
@pytest.mark.parametrize("on_error", ["skip", "stop", None])
async def test_the_policy_decides_about_every_failure(
    fail: Callable[[], Awaitable[object]], on_error: OnError | None
) -> None:
    """One that says nothing, or nothing that can be encoded, or is a CancelledError of something else."""
    async with running(failing(fail, on_error), {"numbers": 1}) as harness:
        harness.feed("numbers", [("k", "1"), ("k", "2"), ("k", "3")])
        await harness.settle()
        (failed,) = harness.failures
        assert failed.failure.offset == 1
        failed.failure.what.encode()
        assert harness.table("counts") == {"k": 1 if on_error == "stop" else 2}
        assert harness.outbox.values("dead") == ([] if on_error else [b"2"])
        assert harness.task.committable() == {"numbers": 1 if on_error == "stop" else 3}


async def test_a_stop_is_no_failure_of_the_body_it_cancels() -> None:
    """A body that waits for something else than events is cancelled in the end, and that is all."""
    async with running(failing(asyncio.Event().wait, "skip"), {"numbers": 1}) as harness:
        harness.feed("numbers", [("k", "1"), ("k", "2")])
        await harness.settle()
        await harness.task.stop()
        assert harness.failures == []
        assert harness.task.committable() == {"numbers": 1}


class FullTopics(CollectingOutbox):
    """Takes no record with more than so many bytes of headers, and none at all if that is negative."""

    header_bytes_max = 0

    def append(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        if sum(len(content or b"") for _, content in headers) > self.header_bytes_max:
            raise KafkaError(ErrorCode.MESSAGE_TOO_LARGE, "a record of 1048700 bytes is larger than the topic takes")
        super().append(topic, partition, key, value, timestamp_ms, headers)


@pytest.mark.parametrize("room", [100, 0, -1])
async def test_a_record_that_is_as_large_as_one_may_be_is_buried_with_what_fits(room: int) -> None:
    """Without the message, or without headers; a record that is too large by itself stops its partition."""
    async with running(failing(raise_no_text, None), {"numbers": 1}) as harness:
        outbox = FullTopics(harness.outbox.partitions)
        outbox.header_bytes_max = room
        for lane in harness.task.lanes:
            lane.outbox = outbox
        harness.feed("numbers", [("k", "1"), ("k", "2"), ("k", "3")])
        await harness.settle()
        (failed,) = harness.failures
        if room < 0:
            assert "dead letter topic dead does not take the record" in failed.failure.what
            assert harness.task.committable() == {"numbers": 1}
        else:
            ((_, value, _, headers),) = outbox.logs["dead", 0]
            assert value == b"2"
            assert ("__streams.errors.offset" in dict(headers)) == bool(room)
            assert harness.task.committable() == {"numbers": 3}


async def test_a_dead_letter_near_a_megabyte_is_buried(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The source topic took it, so a dead letter topic with the same limit takes it too, if need be without headers."""
    caplog.set_level(logging.CRITICAL)
    app = failing(something_cancelled, None)
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        async with Producer(broker.address, env=real_env()) as producer:
            await producer.send("numbers", b"x" * 1_048_500, key=b"k")
            await producer.send("numbers", b"1", key=b"k")
        await until(lambda: [one.committed for task in worker.status().tasks for one in task.partitions] == [2])
        assert worker.status().healthy
        async with Admin(broker.address, env=real_env()) as admin:
            assert len((await admin.describe_topics(["dead"]))["dead"].partitions) == 1


async def test_a_timer_runs_again_after_a_cancelled_call(caplog: pytest.LogCaptureFixture) -> None:
    """Only the cancelling of the timer itself ends it."""
    ticks = 0
    third = asyncio.Event()

    async def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            third.set()
        await something_cancelled()

    with caplog.at_level(logging.ERROR):
        running_timer = asyncio.ensure_future(
            run_timer(Timer("tick", tick, Every(5), on_leader=False), real_env().clock)
        )
        async with asyncio.timeout(20):
            await third.wait()
        running_timer.cancel()
        await asyncio.wait([running_timer])
    assert running_timer.cancelled()
    assert "timer=tick failed: CancelledError: something that was awaited was cancelled" in caplog.text


async def test_a_background_task_that_awaits_something_cancelled_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It ends, as with any exception, and says so."""
    with caplog.at_level(logging.ERROR):
        await run_task(BackgroundTask("watch", something_cancelled, on_leader=False))
    assert "task=watch failed: CancelledError" in caplog.text


async def test_events_flow_after_a_started_hook_that_awaits_something_cancelled(
    broker: LiveBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The hook failed, which is logged; tasks do not wait for it for ever."""
    caplog.set_level(logging.CRITICAL)
    app = failing(something_cancelled, "skip")
    app.on_started(something_cancelled)
    async with app.running(broker=broker.address, data_dir=str(tmp_path / "state")) as worker:
        await app.topics["numbers"].send(1, key="k")
        await until(lambda: [one.committed for task in worker.status().tasks for one in task.partitions] == [1])


class Stopping:
    """An app with two hooks for its end."""

    id = "stopping"
    timers: Sequence[Timer] = ()
    tasks: Sequence[BackgroundTask] = ()
    started: Sequence[Work] = ()
    stopping: Sequence[Work] = (something_cancelled, something_cancelled)


async def test_a_stopping_hook_may_fail_in_a_worker_that_is_being_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """What the task was told before the hook began does not count, or the rest would not be closed after Ctrl-C."""
    beside = Beside(Stopping(), real_env().clock, print)

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await beside.run_stopping()
            await beside.close()
            log.error("closed")

    with caplog.at_level(logging.ERROR):
        worker = asyncio.ensure_future(run())
        await asyncio.sleep(0)
        worker.cancel()
        await asyncio.wait([worker])
    assert caplog.text.count("something_cancelled failed: CancelledError") == 2
    assert caplog.messages[-1] == "closed"


async def test_errors_of_ours_that_quote_odd_or_endless_input_can_be_written_too() -> None:
    """A UserError may be anybody's, and its text is the failure's."""

    async def quote() -> None:
        raise streamlog.UserError("\udfff" + "x" * 5_000_000)

    async with running(failing(quote, None), {"numbers": 1}) as harness:
        harness.feed("numbers", [("k", "2")])
        await harness.settle()
        (failed,) = harness.failures
        assert failed.failure.what == "\\udfff" + "x" * 1999 + "... (5000001 characters)"
        ((_, _, _, headers),) = harness.outbox.logs["dead", 0]
        assert dict(headers)["__streams.errors.message"] == failed.failure.what.encode()


def test_what_failed_is_told_whatever_its_class_does() -> None:
    """The message of a failure can always be made and encoded."""
    assert blame(NoText()).startswith("NoText: (its text cannot be made: ValueError)")
    assert "\\ud800" in blame(KeyError("\ud800"))
