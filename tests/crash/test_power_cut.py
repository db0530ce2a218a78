"""Power cuts under load: what was acknowledged is on the disk, not only in the page cache (make power)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import confluent_kafka as ck
import msgspec
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streamlog.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from tests.broker.killing import read_values
from tests.broker.running import BrokerProcess, RawClient
from tests.crash.disks import Disk, Rack, why_not
from tests.crash.load import Load, TopicChurn, commit
from tests.kafka_node import REPOSITORY, free_port

pytestmark = [pytest.mark.power, pytest.mark.timeout(600)]

CUTS = 50
PARTITIONS = 3
LOAD_SECONDS_MAX = 0.3
AGAIN = 0.2
"""How often the power goes a second time, while the node starts."""
START_SECONDS = 0.4
READY_SECONDS_MAX = 1.0

MOUNTS = ("data=ordered", "data=writeback", "commit=1", "nodelalloc")
"""ext4 keeps most when a file was renamed or the journal was just written, and least in writeback mode."""

SETTINGS = ("offsets.topic.num.partitions=2", "group.initial.rebalance.delay.ms=0")
FIGURES = REPOSITORY / "target" / "power.json"


class QuorumState(msgspec.Struct, rename="camel"):
    """What a voter may not forget."""

    leader_epoch: int
    voted_id: int


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
        self.epochs.append(self._quorum().leader_epoch)
        return process

    def _quorum(self) -> QuorumState:
        return msgspec.json.decode(
            (self._data / "__cluster_metadata-0" / "quorum-state").read_bytes(), type=QuorumState
        )

    def _log_bytes(self) -> int:
        return sum(file.stat().st_size for file in self._data.glob("*/*.log"))

    def cut(self, mount: str) -> None:
        """The power goes, now, and comes back: the node does not run, and its disk is what it was."""
        known = self._quorum()
        written = self._cut(self.process.process, mount)
        self.process.__exit__()
        self.lost_bytes.append(written - self._log_bytes())
        self._check_quorum(known)

    def _check_quorum(self, known: QuorumState) -> None:
        """A vote that the node told of is still given."""
        found = self._quorum()
        assert found.leader_epoch >= known.leader_epoch
        assert found.leader_epoch > known.leader_epoch or found.voted_id == known.voted_id

    def cut_again(self, mount: str, after_seconds: float) -> None:
        """Once more, somewhere in the recovery from the cut before."""
        known = self._quorum()
        command = [sys.executable, "-m", "streamlog", "broker", "--data-dir", str(self._data), "--listen", self.address]
        starting = subprocess.Popen([*command, *SETTINGS, *self._settings], stdout=subprocess.DEVNULL)
        time.sleep(after_seconds)
        self._cut(starting, mount)
        self._check_quorum(known)

    def _cut(self, process: subprocess.Popen[str] | subprocess.Popen[bytes], mount: str) -> int:
        """Whatever the node told anybody before it is dead, it synced before the disks stood still.

        Returns how long its logs were in the page cache.
        """
        self.cuts += 1
        with self._rack.frozen():
            os.kill(process.pid, signal.SIGKILL)
            copy = self._disk.copy()
        process.communicate(timeout=20)
        written = self._log_bytes()
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


def of(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    places = {"min": 0, "median": len(ordered) // 2, "p90": len(ordered) * 9 // 10, "max": -1}
    return {name: round(ordered[place], 3) for name, place in places.items()}


@pytest.fixture(scope="module")
def can_cut(tmp_path_factory: pytest.TempPathFactory) -> None:
    reason = why_not(tmp_path_factory.mktemp("probe"))
    if reason:
        pytest.skip(reason)


@pytest.fixture
def rack(tmp_path: Path, can_cut: None) -> Iterator[Rack]:
    with Rack(tmp_path) as rack:
        yield rack


def write_figures(name: str, figures: dict[str, object]) -> None:
    """Into target/power.json, beside those of other tests."""
    FIGURES.parent.mkdir(exist_ok=True)
    known: dict[str, object] = msgspec.json.decode(FIGURES.read_bytes()) if FIGURES.exists() else {}
    known[name] = figures
    FIGURES.write_bytes(msgspec.json.format(msgspec.json.encode(known)) + b"\n")
    print(f"\n{name}: {figures}")


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
