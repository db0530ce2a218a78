"""kcat, the command line on librdkafka that people reach for first."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.broker.running import BrokerProcess

KCAT = shutil.which("kcat") or shutil.which("kafkacat")

pytestmark = [
    pytest.mark.skipif(KCAT is None, reason="kcat is not installed (apt install kcat)"),
    pytest.mark.timeout(60),
]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    settings = ("group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=2", "num.partitions=2")
    with BrokerProcess(tmp_path_factory.mktemp("broker"), *settings) as running:
        yield running


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return "".join(c if c.isalnum() else "-" for c in request.node.name)


def kcat(broker: BrokerProcess, *arguments: str, stdin: str = "") -> str:
    assert KCAT is not None
    done = subprocess.run(
        [KCAT, "-b", broker.address, *arguments], input=stdin, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_lines_come_back_with_keys_headers_and_offsets(broker: BrokerProcess, topic: str, codec: str) -> None:
    """Produced from stdin, read back as JSON."""
    lines = "".join(f"k{number}|v{number}\n" for number in range(200))
    kcat(broker, "-P", "-t", topic, "-p", "1", "-K", "|", "-H", "from=kcat", "-z", codec, stdin=lines)
    found = [json.loads(line) for line in kcat(broker, "-C", "-t", topic, "-p", "1", "-e", "-q", "-J").splitlines()]
    assert [(one["offset"], one["key"], one["payload"]) for one in found] == [
        (number, f"k{number}", f"v{number}") for number in range(200)
    ]
    assert {tuple(one["headers"]) for one in found} == {("from", "kcat")}
    assert {one["tstype"] for one in found} == {"create"}


def test_metadata_and_offsets_by_time_are_listed(broker: BrokerProcess, topic: str) -> None:
    """-L and -Q."""
    kcat(broker, "-P", "-t", topic, "-p", "0", stdin="a\nb\nc\n")
    listing = json.loads(kcat(broker, "-L", "-J", "-t", topic))
    assert [(one["partition"], one["leader"]) for one in listing["topics"][0]["partitions"]] == [(0, 1), (1, 1)]
    assert kcat(broker, "-Q", "-t", f"{topic}:0:-1").strip() == f"{topic} [0] offset 3"
    assert kcat(broker, "-Q", "-t", f"{topic}:0:-2").strip() == f"{topic} [0] offset 0"
    assert kcat(broker, "-Q", "-t", f"{topic}:0:1000").strip() == f"{topic} [0] offset 0"


def test_a_group_goes_on_where_it_stopped(broker: BrokerProcess, topic: str) -> None:
    """-G: two runs share what there is."""
    kcat(broker, "-P", "-t", topic, stdin="".join(f"{number}\n" for number in range(60)))
    group = ["-X", "auto.offset.reset=earliest", "-q", "-c", "30", "-G", topic, topic]
    first, second = kcat(broker, *group).split(), kcat(broker, *group).split()
    assert sorted(map(int, first + second)) == list(range(60))


def test_a_part_of_a_topic_is_read_from_the_end(broker: BrokerProcess, topic: str) -> None:
    """-o -N and -o N."""
    kcat(broker, "-P", "-t", topic, "-p", "0", stdin="".join(f"{number}\n" for number in range(10)))
    assert kcat(broker, "-C", "-t", topic, "-p", "0", "-o", "-3", "-e", "-q").split() == ["7", "8", "9"]
    assert kcat(broker, "-C", "-t", topic, "-p", "0", "-o", "4", "-c", "2", "-q").split() == ["4", "5"]
