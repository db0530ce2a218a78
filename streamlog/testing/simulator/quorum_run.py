"""One run of a metadata quorum without brokers: controllers, faults, and whoever is active writes.

start    nodes format their disks and start
safety   the active controller writes records, the nemesis does what the setup says, the invariants of Raft are checked
healing  no more faults, turns become fair, everybody is started again
liveness somebody leads, a new record is committed, everybody has it and the same image
verdict  nothing that was acknowledged is missing; clean stops; the disks are looked at
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Any, Final

from streamlog.broker.controller_node import ControllerNode
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.broker.metadata.changes import MIN_ISR
from streamlog.broker.metadata.image import image_records
from streamlog.broker.metadata.records import encode_record
from streamlog.broker.raft.quorum import Quorum
from streamlog.broker.run import RunOptions, run_controller
from streamlog.env import Env
from streamlog.errors import EnvironmentFailure
from streamlog.testing.simulator.invariants import Violation
from streamlog.testing.simulator.log_view import Entry
from streamlog.testing.simulator.machine import Machine
from streamlog.testing.simulator.members import DATA_DIR, METADATA_DIR, Members
from streamlog.testing.simulator.quorum_watch import QuorumWatch, Replica
from streamlog.testing.simulator.setup import Setup
from streamlog.testing.simulator.stage import Outcome, Stage
from streamlog.wire.error_codes import KafkaError
from streamlog.wire.internal.metadata import ConfigRecord

BROKER_CONFIG: Final = 4
NOBODY: Final = "999"
"""Resource type and name of the records that are written: configs of a broker that is not there."""

OFFSET_MAX: Final = 2**63 - 1

LIVENESS_S_MAX: Final = 60.0
"""After the last fault."""


class QuorumRun:
    def __init__(self, setup: Setup, tell: Callable[[str], None] | None) -> None:
        self.setup = setup
        self.stage = Stage(setup, tell)
        self.world, self.services = self.stage.world, self.stage.services
        self.members = Members.of(self.world, setup)
        self.machines = self.members.machines
        self.nodes: dict[int, ControllerNode] = {}
        """Running controllers, by id."""
        self.watch = QuorumWatch.of(self.machines)
        self.sent: dict[str, None] = {}
        self.acked: dict[str, None] = {}
        """Names of config records, each written once."""
        self.agreed: dict[int, Entry] = {}
        """What everybody had in the end, before they were stopped."""
        self.is_stopping = False
        """Nobody writes any more."""

    def go(self) -> Outcome:
        outcome = self.stage.perform(self._scenario(), self._check)
        outcome.acked = len(self.acked)
        return outcome

    def _check(self) -> None:
        self.watch.check(self._up())

    def _up(self) -> Iterator[tuple[int, Quorum, LogDirectory]]:
        for number, node in self.nodes.items():
            process = self.machines[number].process
            if process is not None and process.env is node.env:
                yield number, node.quorum, node.logs

    # -- programs ---------------------------------------------------------------------------------------------

    def _serve(self, number: int, machine: Machine) -> Callable[[Env], Coroutine[Any, Any, object]]:
        config = self.members.config(number)

        async def main(env: Env) -> None:
            self.nodes.pop(number, None)
            self.members.format(env, number)

            def started(node: ControllerNode) -> None:
                self.nodes[number] = node
                self.world.note(machine.name, "is up")
                node.scope.spawn("writer", self._write(node, env.process_id))

            try:
                await run_controller(env, config, RunOptions(DATA_DIR), lambda line: None, started)
            except EnvironmentFailure:
                self.world.sometimes("controller ended by itself")
                raise

        return main

    async def _write(self, node: ControllerNode, process_id: int) -> None:
        """Write while this controller is active, several records at a time."""
        setup = self.setup
        random = Random(f"{setup.seed}/writer {node.node_id}.{process_id}")
        pause_s = setup.safety_ms / 1000 / setup.sends
        number = 0
        while not self.is_stopping:
            await asyncio.sleep(random.random() * 2 * pause_s)
            if node.controller.is_active:
                for _ in range(1 + random.randrange(3)):
                    node.scope.spawn("write", self._write_one(node, f"{node.node_id}.{process_id}.{number}"))
                    number += 1

    async def _write_one(self, node: ControllerNode, name: str) -> None:
        self.sent[name] = None
        value = "." * (self.setup.value_bytes + len(name))
        record = ConfigRecord(resource_type=BROKER_CONFIG, resource_name=NOBODY, name=name, value=value)
        try:
            await node.controller.write_records([record])
        except (KafkaError, PartitionOffline) as error:
            self.world.sometimes("metadata write in doubt")
            self.world.note(f"node{node.node_id}", f"{name} failed: {error}")
            return
        if name not in node.controller.image.config(BROKER_CONFIG, NOBODY):
            self.stage.violate(88, f"{name} is answered, and node {node.node_id} does not know it to be committed")
        self.acked[name] = None
        self.world.note(f"node{node.node_id}", f"{name} is committed")

    # -- phases -----------------------------------------------------------------------------------------------

    async def _scenario(self) -> None:
        for number, machine in self.machines.items():
            self.stage.add(machine.name, machine, self._serve(number, machine))
        await self.stage.until_healed()
        acked = len(self.acked)
        try:
            async with asyncio.timeout(LIVENESS_S_MAX):
                await self._until(lambda: len(self.nodes) == len(self.machines) == len(list(self._up())))
                await self._until(lambda: len(self.acked) > acked)
                self.is_stopping = True
                await self._until(self._agree)
        except TimeoutError:
            leaders = {number: node.quorum.core.leader_id for number, node in self.nodes.items()}
            self.stage.violate(77, f"no new record everywhere; leaders {leaders} ({self.stage.states()})")
            return
        self._judge()
        self.agreed = dict(self.watch.committed)
        await self._stop_and_audit()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.05)

    def _agree(self) -> bool:
        """Whether one node leads, and everybody has committed and applied what it has."""
        leaders = [node for node in self.nodes.values() if node.controller.is_active]
        if len(leaders) != 1:
            return False
        quorum = leaders[0].quorum
        applied = {node.controller.image.applied_offset for node in self.nodes.values()}
        # Not by what is applied: the last record may be one that says who leads, which no image knows of.
        committed = {node.quorum.committed_end_offset for node in self.nodes.values()}
        follows = {node.quorum.core.leader_id for node in self.nodes.values()}
        return len(applied) == 1 and follows == {leaders[0].node_id} and committed == {quorum.log.end_offset}

    # -- verdict ----------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        images = {
            number: [encode_record(record) for record in image_records(node.controller.image)]
            for number, node in self.nodes.items()
        }
        first = next(iter(images))
        for number, records in images.items():
            if records != images[first]:
                self.stage.violate(35, f"nodes {first} and {number} have other images of the same log")
        known = self.nodes[first].controller.image.config(BROKER_CONFIG, NOBODY)
        for name in self.acked:
            if name not in known:
                self.stage.violate(88, f"{name} was committed, and no node knows it")
        for name in known:
            if name not in self.sent and name != MIN_ISR:  # which the first active controller settles
                self.stage.violate(88, f"{name} is known, and nobody wrote it")

    async def _stop_and_audit(self) -> None:
        if not await self.stage.stop_all():
            return
        for number, replica in self.watch.replicas.items():
            replica.machine.cut_power()  # a clean stop has nothing to lose
            replica.view.read_disk()
            try:
                self._audit(number, replica)
            except Violation as violation:
                self.stage.violations.append(violation)

    def _audit(self, number: int, replica: Replica) -> None:
        entries = replica.view.entries
        names = [path for path, _ in replica.machine.disk.walk(METADATA_DIR)]
        if not entries and not any(name.endswith(".checkpoint") for name in names):
            raise Violation(88, f"node {number} has neither log nor snapshot")
        first = next(iter(entries), OFFSET_MAX)
        for base_offset, entry in self.agreed.items():
            if base_offset >= first and entries.get(base_offset) != entry:
                raise Violation(88, f"node {number} has {entries.get(base_offset)}, and committed was {entry}")
