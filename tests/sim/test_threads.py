"""Threads of a simulated process: their file operations, and what the loop does between them."""

from __future__ import annotations

import asyncio

from streamlog.env import Env
from streamlog.testing.simulator.world import World

OPERATIONS = 5


def _world() -> World:
    world = World(7)
    world.threads_in_steps = True
    return world


async def _write_in_a_thread(env: Env, seen: list[str]) -> str:
    env.storage.make_directory("/data")
    file = env.storage.open_file("/data/file", create=True)

    def work() -> str:
        for number in range(OPERATIONS):
            file.append(b"x")
            file.fdatasync()
            seen.append(f"thread {number}")
        return "done"

    return await env.offload.run(work)


def test_the_loop_goes_on_between_two_operations_of_a_thread() -> None:
    """Each sync takes its time, in which the program does something else; twice the same in two runs."""

    def perform() -> tuple[list[str], str]:
        world, seen = _world(), list[str]()

        async def tick() -> None:
            while True:
                await asyncio.sleep(0.0005)
                seen.append("loop")

        async def program(env: Env) -> None:
            ticking = asyncio.get_running_loop().create_task(tick())
            seen.append(await _write_in_a_thread(env, seen))
            ticking.cancel()

        async def scenario() -> None:
            await world.machine("node").start(program).ended

        world.run(scenario())
        assert world.reached["loop went on during a thread's work"]
        return seen, world.trace.digest()

    seen, digest = perform()
    assert "loop" in seen[seen.index("thread 0") : seen.index("thread 4")]
    assert seen[-1] == "done"
    assert perform() == (seen, digest)


def test_a_killed_process_leaves_its_threads_where_they_are() -> None:
    """What they had not done to the disk is never done."""
    world, seen = _world(), list[str]()

    async def program(env: Env) -> None:
        await _write_in_a_thread(env, seen)

    async def scenario() -> None:
        machine = world.machine("node")
        machine.start(program)
        while len(seen) < 2:
            await asyncio.sleep(0.0001)
        machine.kill()
        size_bytes = len(machine.disk.file("/data/file").content)
        await asyncio.sleep(1)
        assert len(machine.disk.file("/data/file").content) == size_bytes < OPERATIONS

    world.run(scenario())
    assert len(seen) < OPERATIONS
