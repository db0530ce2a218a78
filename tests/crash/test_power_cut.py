"""Power cuts under load: what was acknowledged is on the disk, not only in the page cache (make power)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streamlog.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from tests.broker.killing import read_values
from tests.broker.running import BrokerProcess, RawClient
from tests.crash.disks import Disk, Rack
from tests.crash.load import Load, TopicChurn, commit
from tests.crash.power import MOUNTS, log_bytes, of, read_quorum, write_figures
from tests.kafka_node import free_port

pytestmark = [pytest.mark.power, pytest.mark.timeout(600)]

CUTS = 50
PARTITIONS = 3
LOAD_SECONDS_MAX = 0.3
AGAIN = 0.2
"""How often the power goes a second time, while the node starts."""
START_SECONDS = 0.4
READY_SECONDS_MAX = 1.0

SETTINGS = ("offsets.topic.num.partitions=2", "group.initial.rebalance.delay.ms=0")


class PoweredNode:
    """A broker on a disk of its own, at one address; what it said of the quorum before each cut."""

    def __init__(self, rack: Rack, name: str, *settings: str) -> None:
        self._rack = rack
        self._disk: Disk = rack.disk(name)
        self._settings = settings
        self._data = self._disk.path / "data"
        self.address = f"127.0.0.1:{free_port()}"
        self.ready_seconds: list[float] = []
        self.own_seconds: list[float] = []
        """Without the time that others had the processors."""
        self.lost_bytes: list[int] = []
        """Of logs, at each cut: written, not synced, and gone."""
        self.epochs: list[int] = []
        self.cuts = 0
        self.process = self._start()

    def _start(self) -> BrokerProcess:
        process = BrokerProcess(self._data, *SETTINGS, *self._settings, listen=self.address)
        self.ready_seconds.append(process.ready_seconds)
        self.own_seconds.append(process.ready_seconds - process.queued_seconds)
        self.epochs.append(read_quorum(self._data).leader_epoch)
        return process

    def cut(self, mount: str) -> None:
        """The power goes, now, and comes back: the node does not run, and its disk is what it was."""
        known = read_quorum(self._data)
        written = self._cut(self.process.process, mount)
        self.process.__exit__()
        self.lost_bytes.append(written - log_bytes(self._data))
        known.check_kept(self._data)

    def cut_again(self, mount: str, after_seconds: float) -> None:
        """Once more, somewhere in the recovery from the cut before."""
        known = read_quorum(self._data)
        command = [sys.executable, "-m", "streamlog", "broker", "--data-dir", str(self._data), "--listen", self.address]
        starting = subprocess.Popen([*command, *SETTINGS, *self._settings], stdout=subprocess.DEVNULL)
        time.sleep(after_seconds)
        self._cut(starting, mount)
        known.check_kept(self._data)

    def _cut(self, process: subprocess.Popen[str] | subprocess.Popen[bytes], mount: str) -> int:
        """Whatever the node told anybody before it is dead, it synced before the disks stood still.

        Returns how long its logs were in the page cache.
        """
        self.cuts += 1
        with self._rack.frozen():
            os.kill(process.pid, signal.SIGKILL)
            copy = self._disk.copy()
        process.communicate(timeout=20)
        written = log_bytes(self._data)
        self._disk.replace(copy, mount)
        return written

    def start(self) -> None:
        self.process = self._start()
        assert self.epochs[-1] > self.epochs[-2], "a node that starts leads in an epoch of its own"

    def close(self) -> None:
        self.process.__exit__()

    def figures(self) -> dict[str, object]:
        return {
            "cuts": self.cuts,
            "starts": len(self.ready_seconds) - 1,
            "ready_seconds": of(self.ready_seconds[1:]),
            "ready_seconds_without_waiting_for_a_processor": of(self.own_seconds[1:]),
            "cuts_that_took_bytes_of_a_log": sum(1 for lost in self.lost_bytes if lost),
            "bytes_of_logs_written_and_not_on_the_disk": sum(self.lost_bytes),
            "epochs": [self.epochs[0], self.epochs[-1]],
        }


def make_topic(address: str, partitions: int, configs: dict[str, str] | None = None) -> None:
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic("t", partitions, 1, config=configs or {})])["t"].result(20)


def next_producer_id(address: str) -> int:
    """One that nobody had before."""

    async def ask() -> int:
        host, port = address.split(":")
        client = RawClient(*await asyncio.open_connection(host, int(port)))
        try:
            answer = await client.ask(InitProducerIdRequest(None, 60_000), 4, InitProducerIdResponse)
        finally:
            await client.close()
        assert isinstance(answer, InitProducerIdResponse)
        assert answer.error_code == 0
        return answer.producer_id

    return asyncio.run(ask())


def committed_offset(address: str) -> int:
    reader = ck.Consumer({"bootstrap.servers": address, "group.id": "g", "log_level": 0})
    try:
        return int(reader.committed([ck.TopicPartition("t", 0)], timeout=20)[0].offset)
    finally:
        reader.close()


def check_contents(address: str, load: Load) -> None:
    """Each message is there once and in order, where it was acknowledged; only what nobody acknowledged may lack."""
    for partition, acknowledged in enumerate(load.acknowledged):
        found = read_values(address, "t", partition)
        assert found == [b"%d" % number for number in range(len(found))]
        assert all(number == offset < len(found) for number, offset in acknowledged.items())


def test_a_cut_leaves_what_was_synced_and_nothing_else(rack: Rack) -> None:
    """The injector does what it says: bytes, names and lengths that only the page cache knew are gone."""
    disk = rack.disk("d")
    for name in ("synced", "appended", "renamed-from"):
        with (disk.path / name).open("wb") as file:
            file.write(b"first")
            file.flush()
            os.fsync(file.fileno())
    with (disk.path / "appended").open("ab") as file:
        file.write(b"second")
    (disk.path / "renamed-from").rename(disk.path / "renamed-to")
    (disk.path / "unsynced").write_bytes(b"first")
    with rack.frozen():
        copy = disk.copy()
    disk.replace(copy)
    left = {file.name: file.read_bytes() for file in disk.path.iterdir() if file.is_file()}
    assert left == {"synced": b"first", "appended": b"first", "renamed-from": b"first"}


def test_without_a_sync_acknowledged_messages_are_lost_in_order(rack: Rack) -> None:
    """The test below sees a broker that acknowledges before it syncs; what is left of its log has no gap."""
    node = PoweredNode(rack, "n")
    try:
        make_topic(node.address, 1, {"streamlog.flush": "os"})
        load = Load(node.address, "t", 1, seed=1)
        load.wait_for_acknowledgements(500)
        node.cut("data=ordered")
        node.start()
        found = read_values(node.address, "t", 0)
        assert len(found) < load.acknowledged_count
        assert found == [b"%d" % number for number in range(len(found))]
        load.give_up()
        node.process.stop()
    finally:
        node.close()


def test_fifty_power_cuts_take_nothing_that_was_acknowledged(rack: Rack) -> None:
    """One producer with acks=all goes on over all of them; commits, topics, producer ids and votes stay as well."""
    node = PoweredNode(rack, "n")
    try:
        make_topic(node.address, PARTITIONS)
        load = Load(node.address, "t", PARTITIONS, seed=1)
        churn = TopicChurn(node.address)
        dice = random.Random(2)
        committed, producer_id = 0, -1
        while node.cuts < CUTS:
            consumer = ck.Consumer({"bootstrap.servers": node.address, "group.id": "g", "log_level": 0})
            load.wait_for_acknowledgements(dice.randrange(1, 200))
            committed += commit(consumer, committed + 1, "t")
            producer_id, before = next_producer_id(node.address), producer_id
            assert producer_id > before
            if node.cuts % 5 == 0:
                churn.step()
            until = time.monotonic() + dice.random() * LOAD_SECONDS_MAX
            while time.monotonic() < until:
                load.send()
                committed += commit(consumer, committed + 1, "t")
            if dice.random() < 0.5:
                load.wait_for_acknowledgements(1)
            node.cut(dice.choice(MOUNTS))
            while dice.random() < AGAIN:
                node.cut_again(dice.choice(MOUNTS), dice.random() * START_SECONDS)
            node.start()
            consumer.close()
            churn.settle()
            churn.check()
            assert committed_offset(node.address) == committed
            if node.cuts % 10 == 0:
                check_contents(node.address, load)
        load.finish()
        check_contents(node.address, load)
        sent = {"messages": sum(load.sent), "commits": committed, "topics_made_and_deleted": len(churn.exists)}
        write_figures("one node", node.figures() | sent)
        assert max(node.own_seconds) < READY_SECONDS_MAX, node.figures()
        node.process.stop()
    finally:
        node.close()
