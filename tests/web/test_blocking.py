"""What a failed or interrupted read leaves behind: nothing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streamlog.env import LoopThread, all_of
from streamlog.errors import EnvironmentFailure


async def test_the_first_failure_is_raised_alone_and_the_others_have_ended_by_then() -> None:
    """As itself, with its cause: whoever asks several workers need not know that it asked several."""
    ended: list[str] = []

    async def wait() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("waiting")
        return 1

    async def fail() -> int:
        raise EnvironmentFailure("first") from ValueError("cause")

    with pytest.raises(EnvironmentFailure, match="first") as failure:
        await all_of([wait(), fail(), wait(), fail()])
    assert ended == ["waiting", "waiting"]
    assert isinstance(failure.value.__cause__, ValueError)


async def test_answers_come_in_the_order_of_the_questions() -> None:
    """Whichever is there first; none for none."""

    async def after(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    assert await all_of([after(3), after(1), after(2)]) == [3, 1, 2]
    empty: list[int] = await all_of([])
    assert empty == []


async def test_who_is_cancelled_cancels_what_it_waits_for() -> None:
    """And waits for its end."""
    ended: list[int] = []
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    asking = asyncio.ensure_future(all_of([wait(), wait()]))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert ended == [1, 1]


def test_a_loop_that_is_closed_ends_what_runs_there_first() -> None:
    """Otherwise the garbage collector does, on a loop that is closed. Whoever waits for it is told."""
    thread = LoopThread("test-loop")
    begun = threading.Event()
    ended: list[str] = []
    said: list[str] = []

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("task")

    def ask() -> None:
        try:
            thread.run(wait())
        except RuntimeError as error:
            said.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    assert begun.wait(30)
    thread.close()
    assert ended == ["task"]
    asking.join(30)
    assert said == ["test-loop was closed"]
