"""An operator in a cluster: moves partitions to other brokers, has preferred leaders elected, changes its mind."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from streamlog.client.admin import Admin
from streamlog.client.admin_values import Election
from streamlog.client.values import TopicPartition
from streamlog.env import Env
from streamlog.testing.simulator.workload import PASSING, TOPIC, Main, Work, persistent

PAUSE_S: Final = 1.0


def mover(work: Work, name: str) -> Main:
    """The main coroutine of such an operator."""

    async def main(env: Env) -> None:
        setup = work.setup
        random = Random(f"{setup.seed}/{name}.{env.process_id}")
        async with Admin(work.bootstrap, env=env, connection=work.settings(name)) as admin:
            while not work.stopping:
                await asyncio.sleep(random.random() * 2 * PAUSE_S)
                one = TopicPartition(TOPIC, random.randrange(setup.partitions))
                try:
                    await _do(work, admin, random, one)
                except PASSING as error:
                    work.world.note("admin", f"failed: {error}")

    return persistent(work, main)


async def _do(work: Work, admin: Admin, random: Random, one: TopicPartition) -> None:
    choice = random.random()
    if choice < 0.6:
        target = random.sample(range(1, work.setup.nodes + 1), work.setup.replicas)
        work.world.note("admin", f"moves {one} to {target}")
        await admin.alter_partition_reassignments({one: target})
        work.world.sometimes("partition moved")
    elif choice < 0.7:
        # A stream of its own for the target, or whatever this operator does later would be something else.
        target = Random(choice).sample(range(1, work.setup.nodes + 1), work.setup.replicas)
        work.world.note("admin", f"moves {one} to {target}, and cancels it")
        await admin.alter_partition_reassignments({one: target})
        await admin.alter_partition_reassignments({one: None})  # fails if it is done already, or was there before
        work.world.sometimes("move cancelled")
    else:
        failures = await admin.elect_leaders(Election.PREFERRED, [one])
        work.world.note("admin", f"preferred leader of {one}: {failures.get(one)}")
        if failures.get(one, KeyError) is None:
            work.world.sometimes("preferred leader elected")
