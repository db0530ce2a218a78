"""One run of a broker and its clients: a safety phase with faults, a liveness phase without, then the verdict.

start    broker up, topics made
safety   clients work, the nemesis does what the setup says, invariants are checked between callbacks
healing  no more faults, turns become fair, everybody is started again
liveness a new send is stored in time, producers finish, the group reads everything that is there
verdict  everything is read once more and held against the history; a clean stop; the files are looked at
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Final, TypeVar

from streamlog.broker.config import BrokerConfig, load_config
from streamlog.broker.node import Node
from streamlog.broker.partition import Partition
from streamlog.broker.run import RunOptions, run_broker
from streamlog.client.producer import Producer
from streamlog.client.values import TopicPartition
from streamlog.env import Env
from streamlog.errors import EnvironmentFailure
from streamlog.testing.simulator import workload
from streamlog.testing.simulator.audit import audit
from streamlog.testing.simulator.cluster_watch import ClusterWatch
from streamlog.testing.simulator.commits import check_commit
from streamlog.testing.simulator.history import History, PartitionKey, Send
from streamlog.testing.simulator.invariants import Violation, Watch
from streamlog.testing.simulator.machine import Machine
from streamlog.testing.simulator.members import CLIENT_PORT, DATA_DIR, Members
from streamlog.testing.simulator.mover import mover
from streamlog.testing.simulator.quorum_watch import QuorumWatch
from streamlog.testing.simulator.repeater import repeater
from streamlog.testing.simulator.setup import BROKER, Setup
from streamlog.testing.simulator.stage import Outcome, Stage
from streamlog.testing.simulator.trim_watch import Trim
from streamlog.testing.simulator.workload import GROUP, TABLE, TOPIC, Everything, Work
from streamlog.wire.error_codes import KafkaError

T = TypeVar("T")

WRITERS: Final = ("producer", "repeater", "churn", "trimmer", "mover")

START_S_MAX: Final = 60.0
LIVENESS_S_MAX: Final = 100.0
"""After the last fault: sessions end, backoffs run out, and everything works again in less than this."""

TOPIC_PATIENCE_NS: Final = 60_000_000_000
"""A producer's max_block_ms."""

ANSWER_GRACE_MS: Final = 10_000
"""A send's answer may come this long after its delivery timeout, on a machine that was paused or slow."""


class BrokerRun:
    def __init__(self, setup: Setup, tell: Callable[[str], None] | None) -> None:
        self.setup = setup
        self.stage = Stage(setup, tell)
        self.world, self.services = self.stage.world, self.stage.services
        self.history = History(lambda: self.world.loop.now_ns, setup.forgets, setup.forgets_groups, setup.expires)
        self.history.violations = self.stage.violations
        self.history.on_stored = self._on_stored
        self.nodes: dict[str, Node] = {}
        """Running brokers, by machine."""
        self.members = Members.of(self.world, setup) if setup.shape == "cluster" else None
        self.watch = (
            Watch(forgets=setup.forgets)
            if self.members is None
            else ClusterWatch(setup.forgets, setup.doubtful, setup.moves, setup.forgets_groups)
        )
        self.quorum = None if self.members is None else QuorumWatch.of(self.members.machines)
        self.machines = (
            {1: self.world.machine(BROKER, names=setup.names)} if self.members is None else self.members.machines
        )
        """Of brokers, by node id."""
        bootstrap = [f"{machine.host}:{CLIENT_PORT}" for machine in self.machines.values()]
        self.work = Work(self.world, setup, ",".join(bootstrap), self.history)
        self.work.on_committed = self._on_committed
        self.work.newest_epoch_led = self._newest_epoch_led
        self.work.begin_trim, self.work.end_trim = self._begin_trim, self._end_trim

    def go(self) -> Outcome:
        outcome = self.stage.perform(self._scenario(), self._check)
        outcome.acked = sum(send.offset >= 0 for send in self.history.sends.values())
        return outcome

    def _check(self) -> None:
        self.watch.check((self.services[name].machine, node) for name, node in self._up())
        if self.quorum is not None:
            self.quorum.check((node.broker.node_id, node.quorum, node.broker.logs) for _, node in self._up())

    def _up(self) -> Iterator[tuple[str, Node]]:
        """Nodes whose process runs: one that has just been started again is not there yet."""
        for name, node in self.nodes.items():
            process = self.services[name].machine.process
            if process is not None and process.env is node.env:
                yield name, node

    def _running(self, before_ns: int) -> list[tuple[Machine, Node]]:
        """Brokers that are up, and were started before a time."""
        found = []
        for name, node in self._up():
            machine = self.services[name].machine
            if machine.process is not None and machine.process.started_ns < before_ns:
                found.append((machine, node))
        return found

    def _on_stored(self, send: Send) -> None:
        try:
            self.watch.check_answer(self._running(send.sent_ns), send.topic, send.partition, send.offset)
        except Violation as violation:
            self.history.violations.append(violation)

    def _on_committed(self, offsets: Mapping[TopicPartition, int], began_ns: int) -> None:
        try:
            check_commit(self._running(began_ns), GROUP, offsets, self.watch.is_newest)
        except Violation as violation:
            self.history.violations.append(violation)

    def _begin_trim(self, key: PartitionKey) -> Trim | None:
        return self.watch.trims.begin(*key) if isinstance(self.watch, ClusterWatch) else None

    def _end_trim(self, trim: Trim, start_offset: int | None) -> None:
        assert isinstance(self.watch, ClusterWatch), "it has begun"
        if start_offset is None or self.setup.forgets:
            self.watch.trims.give_up(trim)
            return
        running = [(self.services[name].machine, node) for name, node in self._up()]
        try:
            self.watch.trims.end(trim, start_offset, running)
        except Violation as violation:
            self.history.violations.append(violation)

    def _newest_epoch_led(self, node_id: int, index: int) -> int | None:
        machine = self.machines.get(node_id)
        node = None if machine is None else dict(self._up()).get(machine.name)
        partition = None if node is None else node.broker.partitions.find(TOPIC, index)
        if partition is None or not partition.is_leader or not self.watch.is_newest(partition):
            return None
        return partition.leader_epoch

    def _judge_ends(self, everything: Everything) -> None:
        for topic, partition, offset in self.history.reads:
            end = everything.ends.get(TopicPartition(topic, partition))
            if end is not None and offset >= end and not self.setup.forgets:
                self.history.violate(14, f"{topic}-{partition} ends at {end}, and {offset} was read")

    # -- programs ---------------------------------------------------------------------------------------------

    def _config(self, number: int, machine: Machine) -> BrokerConfig:
        if self.members is not None:
            return self.members.config(number)
        config, _ = load_config({"listeners": f"PLAINTEXT://{machine.host}:{CLIENT_PORT}", **self.setup.broker})
        return config

    def _serve(self, number: int, machine: Machine) -> Callable[[Env], Coroutine[Any, Any, object]]:
        config = self._config(number, machine)

        def started(node: Node) -> None:
            self.nodes[machine.name] = node
            self.world.note(machine.name, "is up")

        async def main(env: Env) -> None:
            self.nodes.pop(machine.name, None)
            if self.members is not None:
                self.members.format(env, number)
            try:
                await run_broker(env, config, RunOptions(DATA_DIR), lambda line: None, started)
            except EnvironmentFailure:
                self.world.sometimes("broker ended by itself")
                raise

        return main

    def _add_clients(self) -> None:
        setup, work = self.setup, self.work
        for number in range(setup.producers):
            name = f"producer{number}"
            self.stage.add(name, self.world.machine(name), workload.producer(work, name))
        for number in range(setup.consumers):
            name = f"consumer{number}"
            self.stage.add(name, self.world.machine(name), workload.member(work, name))
        for number in range(setup.readers):
            name = f"reader{number}"
            self.stage.add(name, self.world.machine(name), workload.reader(work, name))
        if setup.repeats and not (
            setup.forgets or setup.expires or setup.trims
        ):  # a producer is forgotten with its records
            self.stage.add("repeater", self.world.machine("repeater"), repeater(work, "repeater"))
        if setup.trims:
            self.stage.add("trimmer", self.world.machine("trimmer"), workload.trimmer(work, "trimmer"))
        if setup.moves:
            self.stage.add("mover", self.world.machine("mover"), mover(work, "mover"))
        if setup.churn:
            self.stage.add("churn", self.world.machine("churn"), workload.churn(work, "churn"))

    # -- phases -----------------------------------------------------------------------------------------------

    async def _scenario(self) -> None:
        for number, machine in self.machines.items():
            self.stage.add(machine.name, machine, self._serve(number, machine))
        while len(self.nodes) < len(self.machines):  # a topic wants them all
            await asyncio.sleep(0.01)
        await self.stage.once("maker", lambda env: workload.make_topics(self.work, env), START_S_MAX)
        self._add_clients()
        await self.stage.until_healed()
        try:
            everything = await self._live()
        except TimeoutError:
            self._violate_liveness("too long")
            return
        except (EnvironmentFailure, KafkaError) as error:
            self._violate_liveness(str(error))
            return
        self._judge(everything)
        await self._stop_and_audit(everything)

    def _violate_liveness(self, what: str) -> None:
        self.history.violate(77, f"{self._waiting_for}: {what} ({self.stage.states()})")

    async def _live(self) -> Everything:
        work = self.work
        self._waiting_for = "a send after the last fault"
        await self.stage.once("prober", self._probe, LIVENESS_S_MAX)
        self._waiting_for = "producers to finish"
        work.stopping = True
        await self._ended([name for name in self.services if name.startswith(WRITERS)])
        self._waiting_for = "the ends of the logs"
        ends = await self.stage.once("ends", lambda env: workload.log_ends(work, env), LIVENESS_S_MAX)
        work.log_ends = {one: end for one, end in ends.items() if one.topic == TOPIC}
        self._waiting_for = "consumers to read everything"
        await self._ended([name for name in self.services if name.startswith(("consumer", "reader"))])
        self._waiting_for = "all replicas to have everything"
        async with asyncio.timeout(LIVENESS_S_MAX):
            while not self._is_replicated():
                await asyncio.sleep(0.1)
        self._waiting_for = "the last reading"
        return await self.stage.once("auditor", lambda env: workload.read_everything(work, env), LIVENESS_S_MAX)

    def _is_replicated(self) -> bool:
        """Whether every replica that should be there is, and is in sync, and knows it."""
        if self.members is None:
            return True
        nodes = [node for _, node in self._up()]
        if len(nodes) < len(self.machines):
            return False
        replicas: dict[tuple[str, int], list[Partition]] = {}
        for node in nodes:
            for partition in node.broker.partitions:
                replicas.setdefault((partition.topic, partition.index), []).append(partition)
        for found in replicas.values():
            ends = {end for one in found for end in (one.log.log_end_offset, one.log.high_watermark)}
            if len(found) < found[0].replica_count or len(ends) > 1:
                return False
        return True

    async def _probe(self, env: Env) -> None:
        """A new producer gets a record in."""
        async with Producer(self.work.bootstrap, env=env, connection=self.work.settings("prober")) as producer:
            value = b"probe"
            send = self.history.send(value, TOPIC, None, "prober", 0)
            told = await producer.send(TOPIC, value)
            self.history.stored(send, told.partition, told.offset)

    async def _ended(self, names: list[str]) -> None:
        """Wait until these programs have ended with nothing left to do. Who has is not started again."""
        async with asyncio.timeout(LIVENESS_S_MAX):
            while left := [name for name in names if self.services[name].is_wanted]:
                for name in left:
                    self.services[name].is_wanted = not self._is_finished(name)
                await asyncio.sleep(0.1)

    def _is_finished(self, name: str) -> bool:
        """Whether the program has ended of its own accord, with nothing left to do."""
        service = self.services[name]
        if service.machine.process is not None:
            return False
        if name.startswith(WRITERS):
            return True
        if name.startswith("consumer"):
            return self.work.is_done(GROUP, self.work.log_ends)
        last = service.last
        return last is not None and self.work.is_done(f"{name}.{last.number}", self.work.log_ends)

    # -- verdict ----------------------------------------------------------------------------------------------

    def _judge(self, everything: Everything) -> None:
        history, setup = self.history, self.setup
        self._judge_ends(everything)
        for one, log in everything.logs.items():
            key = (one.topic, one.partition)
            if one.topic == TABLE:
                if setup.shape == "broker" or not setup.forgets:
                    history.check_compacted(key, log)
            else:
                start = everything.starts[one]
                if setup.expires:  # some of it perhaps while it was being read
                    start = log[0][0] if log else everything.ends[one]
                if isinstance(self.watch, ClusterWatch):
                    history.trims_done[key] = self.watch.trims.deleted(*key)
                history.check_log(key, log, start)
        for (topic, partition, wanted_ms), (told, first) in everything.times.items():
            if told != first:
                history.violate(14, f"{topic}-{partition}: first as new as {wanted_ms} is {first}, and {told} was told")
        if not setup.forgets_groups:
            history.check_committed(everything.committed)
        history.check_answers(
            (setup.delivery_timeout_ms + ANSWER_GRACE_MS) * 1_000_000, TOPIC_PATIENCE_NS, self._stopped_ns
        )
        for topic in history.topics:
            if topic not in everything.topics:
                history.violate(40, f"{topic} was created and is not there")

    def _stopped_ns(self, send: Send) -> int:
        """For how long at most the producer of a send was stopped before the answer."""
        machine, told_ms = send.producer.partition(".")[0], send.told_ns // 1_000_000
        pauses = [fault for fault in self.setup.faults if fault.kind == "pause" and fault.on == machine]
        mine = [
            fault for fault in pauses if fault.at_ms <= told_ms and fault.at_ms + fault.for_ms >= send.sent_ns / 1e6
        ]
        return sum(fault.for_ms for fault in mine) * 1_000_000

    async def _stop_and_audit(self, everything: Everything) -> None:
        if not await self.stage.stop_all():
            return
        for number, machine in self.machines.items():
            machine.cut_power()  # a clean stop has nothing to lose
            for violation in audit(machine.disk, DATA_DIR, number, self.setup, everything):
                self.history.violations.append(violation)
