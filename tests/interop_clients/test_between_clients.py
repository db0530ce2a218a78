"""What one client wrote, compressed in any way, every other reads: the broker changes nothing on the way."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.broker.running import BrokerProcess
from tests.interop_clients.clients import COMPRESSIONS, KCAT, PATIENCE_S, READERS, WRITERS, check_rows, stored_with

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    settings = ("group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=2")
    with BrokerProcess(tmp_path_factory.mktemp("broker"), *settings) as running:
        yield running


def create(broker: BrokerProcess, topic: str, partitions: int = 1) -> None:
    new = NewTopic(topic, partitions, 1, config={"retention.ms": "-1"})
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([new])[topic].result(PATIENCE_S)


@pytest.mark.parametrize("codec", COMPRESSIONS)
@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_every_client_reads_what_any_client_wrote(broker: BrokerProcess, writer: str, codec: str) -> None:
    """Keys, values, headers, times and offsets; readers differ in nothing."""
    topic = f"{writer}-{codec}"
    create(broker, topic)
    since_ms = int(time.time() * 1000) - 1
    WRITERS[writer](broker.address, topic, codec)
    until_ms = int(time.time() * 1000) + 1
    assert stored_with(broker.data_dir, topic) == {codec}
    for reader, read in READERS.items():
        rows = read(broker.address, topic)
        assert rows, reader
        check_rows(rows, writer, since_ms=since_ms, until_ms=until_ms)


class KcatMember:
    """kcat -G, and what it says about its partitions."""

    def __init__(self, broker: BrokerProcess, topic: str) -> None:
        assert KCAT is not None
        options = ["-X", "heartbeat.interval.ms=200", "-X", "session.timeout.ms=10000", "-u"]
        command = [KCAT, "-b", broker.address, *options, "-G", f"group-{topic}", topic]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def wait_for(self, is_right: Callable[[int], bool]) -> int:
        """Read on until it has been assigned as many partitions as are right; how many that is."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "assigned:" in line:
                count = len(re.findall(r"\[\d+\]", line.split("assigned:")[1]))
                if is_right(count):
                    return count
        raise AssertionError("kcat has ended")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.mark.skipif(KCAT is None, reason="kcat is not installed (apt install kcat)")
def test_a_group_of_kcats_shares_and_takes_over(broker: BrokerProcess) -> None:
    """One has all, two share, the one that stays has all again."""
    create(broker, "kcats", 4)
    first = KcatMember(broker, "kcats")
    try:
        first.wait_for(lambda count: count == 4)
        second = KcatMember(broker, "kcats")
        try:
            second.wait_for(lambda count: count == 2)
            first.wait_for(lambda count: count == 2)
            first.close()
            second.wait_for(lambda count: count == 4)
        finally:
            second.close()
    finally:
        first.process.kill()
        first.process.wait()
