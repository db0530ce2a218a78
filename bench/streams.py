"""Stream processing beside its peers: one of our workers, one Kafka Streams thread, Faust, Quix Streams.

    python -m bench.streams [--events N] [--rounds N] [--rows map,count,...] [--peers java,faust,quix] [--json PATH]

Everybody reads the same JSON events of 100 bytes (10,000 keys, one partition) from the same kind of broker in the same
run, by turns: ours once from our broker and once from Apache Kafka, the peers from Apache Kafka, or from our broker
where there is no JVM. The first quarter of the events is warm-up. Peers come from their registries into virtual
environments of their own under target/.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from bench.load import write_events
from bench.nodes import Node, apache_kafka, have_kafka, streamlog
from bench.report import Report, Row, say
from tests.kafka_node import REPOSITORY, kafka_libs

KEYS = 10_000
TIMEOUT_S = 240

ASKED = {
    # Kafka Streams does the same work; Python's peers set what a move to streamlog should feel like.
    ("map", "java"): 2.0,
    ("count", "java"): 2.0,
    ("tumbling", "java"): 2.0,
    ("restore", "java"): 1.0,
    ("map", "faust"): 30.0,
    ("count", "faust"): 100.0,
    ("map", "quix"): 3.0,
    ("count", "quix"): 6.0,
    ("tumbling", "quix"): 9.0,
}
PACKAGES = {"faust": ["faust-streaming[rocksdb]", "setuptools<81"], "quix": ["quixstreams"]}
ROWS_OF_PEER = {
    "java": {"map", "count", "tumbling", "restore"},
    "quix": {"map", "count", "tumbling"},
    "faust": {"map", "count", "tumbling"},
}
EVENTS_SHARE = {"java": 1.0, "quix": 0.15, "faust": 0.02}
"""Slow peers get fewer of the events: their rate is per event, and nobody waits ten minutes."""


@dataclass(frozen=True, slots=True)
class Work:
    name: str
    row: str
    commit_ms: int


WORKS = {
    work.name: work
    for work in (
        Work("map", "map", 100),
        Work("count", "count", 100),
        Work("count-30s", "count", 30_000),
        Work("tumbling", "tumbling", 100),
        Work("tumbling-30s", "tumbling", 30_000),
        Work("count-1M-keys", "count", 1_000),
        Work("restore", "restore", 1_000),
    )
}
TOPIC_OF_KEYS = {"count-1M-keys": "many", "restore": "many"}


def peer_python(peer: str) -> Path:
    """The interpreter of a peer's environment, made if it is not there. Raises CalledProcessError: cannot install."""
    directory = REPOSITORY / "target" / f"bench-{peer}"
    python = directory / "bin" / "python"
    if not (directory / ".done").exists():
        say(f"installing {' '.join(PACKAGES[peer])} ...")
        venv.create(directory, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[peer]], check=True, timeout=TIMEOUT_S)
        (directory / ".done").touch()
    return python


def command_of(side: str) -> list[str]:
    """How a side is started; ROW BOOTSTRAP TOPIC EVENTS COMMIT_MS follow."""
    if side == "ours":
        return [sys.executable, "-m", "bench.streams_app"]
    if side == "java":
        return ["java", "-Xmx1g", "-cp", f"{kafka_libs()}/*", str(REPOSITORY / "bench" / "StreamsPeer.java")]
    return [str(peer_python(side)), str(REPOSITORY / "bench" / f"peer_{side}.py")]


def run_side(side: str, work: Work, node: Node, topic: str, events: int) -> dict[str, float]:
    """One measurement. Raises RuntimeError with what the side said."""
    command = [*command_of(side), work.row, node.bootstrap, topic, str(events), str(work.commit_ms)]
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, env=dict(os.environ)
        )
        stack.callback(process.kill)
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{side} {work.name}: {err[-800:]}")
    found: dict[str, float] = json.loads(lines[-1])
    say(f"  {work.name} {side} on {node.name}: {found['events_per_s']:,.0f}/s, {found['cpu_us_per_event']:.2f} us CPU")
    return found


def measure(works: list[Work], peers: list[str], nodes: list[Node], events: int, rounds: int, report: Report) -> None:
    rows: dict[tuple[str, str, str], Row] = {}
    for work in works:
        topic = TOPIC_OF_KEYS.get(work.name, "sales")
        for number in range(rounds):
            try:
                ours = {node.name: run_side("ours", work, node, topic, events) for node in nodes}
            except RuntimeError as error:
                report.remarks.append(str(error))
                continue
            for peer in peers:
                if work.row not in ROWS_OF_PEER[peer]:
                    continue
                if number and EVENTS_SHARE[peer] < 0.1:
                    continue
                try:
                    theirs = run_side(peer, work, nodes[-1], topic, int(events * EVENTS_SHARE[peer]))
                except (RuntimeError, subprocess.SubprocessError) as error:
                    report.remarks.append(f"{peer} {work.name}: {str(error).strip()[-300:]}")
                    continue
                for node in nodes:
                    key = (work.name, peer, node.name)
                    if key not in rows:
                        asked = ASKED.get((work.row, peer)) if work.name != "count-1M-keys" or peer == "java" else None
                        unit = "keys/s" if work.row == "restore" else "events/s"
                        rows[key] = Row(f"{work.name}, ours on {node.name}", unit, peer, asked)
                        report.rows.append(rows[key])
                    row = rows[key]
                    row.ours.append(ours[node.name]["events_per_s"])
                    row.theirs.append(theirs["events_per_s"])
                    our_us, their_us = ours[node.name]["cpu_us_per_event"], theirs["cpu_us_per_event"]
                    row.note = f"CPU/event {our_us:.2f} us, theirs {their_us:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", default=",".join(WORKS))
    parser.add_argument("--peers", default="java,quix,faust")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    report = Report("streams")
    works = [WORKS[name] for name in arguments.rows.split(",")]
    peers = [peer for peer in arguments.peers.split(",") if peer]
    if not have_kafka():
        report.remarks.append("no Apache Kafka here (make interop-java fetches it): its rows are missing")
        peers = [peer for peer in peers if peer != "java"]
    with contextlib.ExitStack() as stack:
        nodes: list[Node] = [stack.enter_context(streamlog({"group.initial.rebalance.delay.ms": "0"}))]
        if have_kafka():
            nodes.append(stack.enter_context(apache_kafka()))
        for node in nodes:
            say(f"writing {arguments.events:,} events to {node.name}")
            if any(work.name not in TOPIC_OF_KEYS for work in works):
                write_events(node.bootstrap, "sales", arguments.events, KEYS)
            if any(work.name in TOPIC_OF_KEYS for work in works):
                write_events(node.bootstrap, "many", arguments.events, min(10**6, arguments.events), shuffled=True)
        measure(works, peers, nodes, arguments.events, arguments.rounds, report)
    report.finish(arguments.json)


if __name__ == "__main__":
    main()
