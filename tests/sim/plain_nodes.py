"""Nodes of a simulated cluster that run and do nothing by themselves: what a scenario of its own begins with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from streamlog.broker.node import Node
from streamlog.broker.run import RunOptions, run_broker
from streamlog.env import Env
from streamlog.testing.simulator.members import DATA_DIR, Members
from streamlog.testing.simulator.stage import Stage


async def start_nodes(stage: Stage, members: Members, nodes: dict[int, Node]) -> None:
    """Start every machine's node, and again whenever its machine comes back. Returns when `nodes` has them all; it
    has the newest of each number."""
    for number, machine in members.machines.items():
        stage.add(machine.name, machine, _serve(members, number, nodes))
    while len(nodes) < len(members.machines):
        await asyncio.sleep(0.01)


def _serve(members: Members, number: int, nodes: dict[int, Node]) -> Callable[[Env], Coroutine[Any, Any, object]]:
    config = members.config(number)

    def started(node: Node) -> None:
        nodes[number] = node

    async def main(env: Env) -> None:
        members.format(env, number)
        await run_broker(env, config, RunOptions(DATA_DIR), lambda line: None, started)

    return main
