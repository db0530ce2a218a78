"""take(): no event of a list may be lost or given twice, whatever ends the list."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import streamlog
from streamlog.state.memory import MemoryEngine
from tests.streams.harness import TaskHarness, running


def numbers(*values: int | str) -> list[tuple[str, str]]:
    return [("k", str(value)) for value in values]


def app_of(
    body: Callable[[streamlog.Stream[str, int]], Any], *, on_error: Any = "stop", concurrency: int = 1
) -> streamlog.App:
    app = streamlog.App("bulk")
    source = app.topic("in", key=str, value=int)
    app.topic("dead", value=bytes)
    if on_error == "dead":
        on_error = streamlog.DeadLetter(app.topics["dead"])
    app.agent(source, name="body", on_error=on_error, concurrency=concurrency)(body)
    return app


async def until(harness: TaskHarness, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_clean_stop_gives_out_the_unfinished_list() -> None:
    """Nothing has to be processed again, and nothing is left out."""
    seen: list[int] = []

    async def body(stream: streamlog.Stream[str, int]) -> None:
        async for values in stream.take(10, within=60):
            await asyncio.sleep(0.01)
            seen.extend(values)

    async with running(app_of(body), {"in": 1}) as harness:
        harness.feed("in", numbers(*range(25)))
        await until(harness, lambda: len(seen) == 20)
        assert harness.task.committable() == {"in": 20}
        assert await harness.task.drain(5)
        assert seen == list(range(25))
        assert harness.commit().offsets == {"in": 25}


async def test_an_unfinished_list_of_each_body_is_given_out_at_a_clean_stop() -> None:
    """With concurrency the lists are not in a row."""
    seen: list[int] = []

    async def body(stream: streamlog.Stream[str, int]) -> None:
        async for values in stream.take(4, within=60):
            await asyncio.sleep(0)
            seen.extend(values)

    async with running(app_of(body, concurrency=3), {"in": 1}) as harness:
        for start in range(0, 30, 3):
            harness.feed("in", numbers(*range(start, start + 3)))
            await harness.settle(5)
        assert await harness.task.drain(5)
        assert sorted(seen) == list(range(30))
        assert harness.commit().offsets == {"in": 30}


async def test_a_task_that_is_lost_does_not_commit_the_unfinished_list() -> None:
    """Stopped without a drain, the list belongs to the next owner."""
    seen: list[int] = []

    async def body(stream: streamlog.Stream[str, int]) -> None:
        async for values in stream.take(10, within=60):
            seen.extend(values)

    async with running(app_of(body), {"in": 1}) as harness:
        harness.feed("in", numbers(*range(15)))
        await harness.settle()
        await harness.task.stop()
        assert seen == list(range(10))
        assert harness.task.committable() == {"in": 10}


async def test_a_list_that_the_body_does_not_wait_for_keeps_its_events() -> None:
    """A body that gives up waiting for a list, and asks again, gets all events."""
    seen: list[int] = []

    async def body(stream: streamlog.Stream[str, int]) -> None:
        while True:
            lists = aiter(stream.take(10, within=60))
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    async for values in lists:
                        seen.extend(values)

    async with running(app_of(body), {"in": 1}) as harness:
        harness.feed("in", numbers(*range(5)))
        await asyncio.sleep(0.05)
        assert harness.task.committable() == {"in": 0}
        harness.feed("in", numbers(*range(5, 12)))
        await until(harness, lambda: len(seen) >= 10)
        assert seen == list(range(10))
        assert harness.task.committable() == {"in": 10}


async def failing_step(on_error: Any, bad: int = 3) -> tuple[TaskHarness, list[list[int]]]:
    """A filter fails at event 3 while a list is being collected."""
    lists: list[list[int]] = []
    attempts: list[int] = []

    def keep(value: int) -> bool:
        if value == bad:
            attempts.append(value)
            if len(attempts) < 4:
                raise ValueError("three")
        return value != 5

    async def body(stream: streamlog.Stream[str, int]) -> None:
        async for values in stream.filter(keep).take(10, within=0.02):
            lists.append(values)

    async with running(app_of(body, on_error=on_error), {"in": 1, "dead": 1}) as harness:
        harness.feed("in", numbers(*range(8)))
        await until(harness, lambda: bool(harness.failures))
        await asyncio.sleep(0.1)
    return harness, lists


async def test_a_step_that_fails_at_an_event_skips_that_event_alone() -> None:
    """The events that were collected before it are given out, and those after it."""
    harness, lists = await failing_step("skip")
    assert lists == [[0, 1, 2], [4, 6, 7]]
    assert [failed.failure.offset for failed in harness.failures] == [3]
    assert harness.task.committable() == {"in": 8}


async def test_a_step_that_fails_at_an_event_buries_that_event_alone() -> None:
    """The dead letter is the event that failed."""
    harness, lists = await failing_step("dead")
    assert lists == [[0, 1, 2], [4, 6, 7]]
    assert [value for _, value, _, _ in harness.outbox.logs["dead", 0]] == [b"3"]
    assert harness.task.committable() == {"in": 8}


async def test_a_step_that_fails_at_an_event_is_tried_again_there() -> None:
    """With retry no event is left out or given out of order."""
    harness, lists = await failing_step(streamlog.Retry(backoff=0.001))
    assert [value for values in lists for value in values] == [0, 1, 2, 3, 4, 6, 7]
    assert harness.task.committable() == {"in": 8}


async def test_a_step_that_fails_at_an_event_stops_there() -> None:
    """What came before it is processed and committed, the event is held."""
    harness, lists = await failing_step("stop")
    assert lists == [[0, 1, 2]]
    assert harness.task.committable() == {"in": 3}


async def test_an_unreadable_event_that_is_tried_again_holds_nothing_else_up_and_repeats_nothing() -> None:
    """The events after it are given out once, when its attempts are used up."""
    seen: list[int] = []

    async def body(stream: streamlog.Stream[str, int]) -> None:
        async for values in stream.take(10, within=0.02):
            seen.extend(values)

    policy = streamlog.Retry(attempts=3, backoff=0.001, then=streamlog.Skip())
    async with running(app_of(body, on_error=policy), {"in": 1}) as harness:
        harness.feed("in", numbers(0, 1, "no number", 3, 4))
        await until(harness, lambda: harness.task.committable() == {"in": 5})
        assert seen == [0, 1, 3, 4]
        assert [failed.failure.offset for failed in harness.failures] == [2, 2, 2]


async def test_a_list_that_failed_is_tried_again_as_it_was() -> None:
    """The same events in one list, and attempts are counted per list even while more events arrive."""
    lists: list[list[int]] = []

    async def body(stream: streamlog.Stream[str, int]) -> None:
        async for values in stream.take(3, within=0.005):
            lists.append(values)
            if 1 in values:
                raise ConnectionError("away")

    policy = streamlog.Retry(attempts=3, backoff=0.001, then=streamlog.Skip())
    async with running(app_of(body, on_error=policy), {"in": 1}) as harness:
        harness.feed("in", numbers(0, 1))
        await until(harness, lambda: len(lists) == 1)
        harness.feed("in", numbers(*range(2, 9)))
        await until(harness, lambda: harness.task.committable() == {"in": 9})
        assert lists[:3] == [[0, 1]] * 3
        assert [value for values in lists[3:] for value in values] == list(range(2, 9))
        assert {failed.failure.offset for failed in harness.failures} == {0}


async def test_a_body_may_use_take_and_then_another_form() -> None:
    """Each form leaves its events where the next one finds them."""
    seen: list[Any] = []

    async def body(stream: streamlog.Stream[str, int]) -> None:
        async for values in stream.take(2, within=60):
            seen.append(values)
            break
        async for value in stream:
            seen.append(value)
            if value % 4 == 0:
                break

    async with running(app_of(body), {"in": 1}) as harness:
        harness.feed("in", numbers(*range(12)))
        await harness.settle()
        assert seen == [[0, 1], 2, 3, 4, [5, 6], 7, 8, [9, 10], 11]
        assert harness.task.committable() == {"in": 12}


async def test_a_loop_inside_a_loop_over_the_same_stream_loses_nothing() -> None:
    """The inner loop takes over; the outer one has ended when it goes on."""
    seen: list[int] = []

    async def body(stream: streamlog.Stream[str, int]) -> None:
        async for value in stream:
            seen.append(value)
            async for values in stream.take(2, within=60):
                seen.extend(values)
                break

    async with running(app_of(body), {"in": 1}) as harness:
        harness.feed("in", numbers(*range(12)))
        await harness.settle()
        assert seen == list(range(12))
        assert await harness.task.drain(5)
        assert harness.task.committable() == {"in": 12}


async def test_a_commit_between_two_attempts_has_all_events_before_the_failed_one() -> None:
    """Otherwise a restart would count them twice, after a clean stop as well."""
    app = streamlog.App("bulk")
    source = app.topic("in", key=str, value=int)
    counts = app.Table("counts", key=str, value=int, default=int)

    @app.agent(source, on_error=streamlog.Retry(backoff=30))
    async def body(stream: streamlog.Stream[str, int]) -> None:
        async for value in stream:
            if value == 3:
                raise ConnectionError("away")
            counts["k"] += 1

    engine = MemoryEngine()
    async with running(app, {"in": 1}, engine=engine) as harness:
        harness.feed("in", numbers(*range(8)))
        await until(harness, lambda: bool(harness.failures))
        assert harness.commit().offsets == {"in": 3}
        assert await harness.task.drain(5)
        assert harness.task.committable() == {"in": 3}


async def test_events_to_be_tried_again_do_not_wait_for_others_to_arrive() -> None:
    """Even when the failure used up the last grant."""
    seen: list[int] = []
    failed: list[int] = []

    async def body(stream: streamlog.Stream[str, int]) -> None:
        async for value in stream:
            if value == 63 and len(failed) < 2:  # the last of the first grant
                failed.append(value)
                raise ConnectionError("away")
            seen.append(value)

    async with running(app_of(body, on_error=streamlog.Retry(backoff=0.001), concurrency=2), {"in": 1}) as harness:
        harness.feed("in", numbers(*range(64)))
        await until(harness, lambda: harness.task.committable() == {"in": 64})
        assert sorted(seen) == list(range(64))


async def test_a_loop_around_broken_off_loops_commits_its_last_event_at_a_clean_stop() -> None:
    """The event it broke off at is processed."""
    seen: list[int] = []

    async def body(stream: streamlog.Stream[str, int]) -> None:
        while True:
            async for value in stream:
                await asyncio.sleep(0.01)
                seen.append(value)
                break

    async with running(app_of(body), {"in": 1}) as harness:
        harness.feed("in", numbers(*range(5)))
        await until(harness, lambda: len(seen) == 2)
        assert await harness.task.drain(5)
        assert harness.task.committable() == {"in": len(seen)}


async def test_a_clean_stop_waits_for_what_a_body_does_after_its_loop() -> None:
    """What it sends there is part of the last commit."""
    ended: list[bool] = []

    async def body(stream: streamlog.Stream[str, int]) -> None:
        async for _ in stream:
            pass
        await asyncio.sleep(0.02)
        ended.append(True)

    async with running(app_of(body), {"in": 1}) as harness:
        harness.feed("in", numbers(1))
        await harness.settle()
        assert await harness.task.drain(5)
        assert ended == [True]
