"""`streamlog produce` and `consume` against a real broker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamlog.cli.records import iso_time, parse_json_line, to_json_object
from tests.cli.shell import Shell


def test_lines_become_records_and_come_back(on_broker: Shell) -> None:
    """Keys before the separator, values after it, order kept within a key."""
    on_broker.ok("topics", "create", "lines", "-p", "3")
    done = on_broker.run("produce", "lines", "-s", ":", stdin="a:1\nb:2\na:3:4\n\n".replace("\n\n", "\n"))
    assert (done.code, done.err) == (0, "3 records written to lines.\n")
    read = on_broker.ok("consume", "lines", "--until-end", "-f", "{key}={value}").splitlines()
    assert sorted(read) == ["a=1", "a=3:4", "b=2"]
    assert [line for line in read if line.startswith("a")] == ["a=1", "a=3:4"]


def test_what_consume_writes_as_json_produce_reads(on_broker: Shell) -> None:
    """Objects, text, bytes, tombstones, headers and times all make the trip."""
    on_broker.ok("topics", "create", "first", "second", "-p", "1")
    lines: list[dict[str, Any]] = [
        {"key": "a", "value": {"n": 1, "s": "ü"}, "timestamp_ms": 1_700_000_000_000},
        {"key": None, "value": "plain text", "timestamp_ms": 1_700_000_000_001},
        {"key_base64": "/w==", "value_base64": "gAA=", "timestamp_ms": 1_700_000_000_002},
        {"key": "a", "value": None, "timestamp_ms": 1_700_000_000_003, "headers": {"why": "gone"}},
    ]
    on_broker.ok("produce", "first", "--json", stdin="".join(f"{json.dumps(line)}\n" for line in lines))
    once = on_broker.ok("consume", "first", "--until-end", "-f", "json")
    on_broker.ok("produce", "second", "--json", stdin=once)
    twice = on_broker.ok("consume", "second", "--until-end", "-f", "json")
    assert twice == once.replace('"topic": "first"', '"topic": "second"')
    for line, wanted in zip(once.splitlines(), lines, strict=True):
        assert {name: value for name, value in json.loads(line).items() if name in wanted} == wanted


@given(st.binary(), st.one_of(st.none(), st.binary()))
def test_any_record_survives_its_json_line(key: bytes, value: bytes | None) -> None:
    """Except that JSON objects and arrays lose their spacing, which is what makes them readable."""
    shown = to_json_object("t", 0, 7, 1, key, value, (("h", b"x"),))
    record = parse_json_line(json.dumps(shown), "line 1")
    again = to_json_object("t", 0, 7, 1, record.key, record.value, record.headers)
    assert again == shown


def test_bad_lines_are_named(on_broker: Shell) -> None:
    """With their number, what is wrong, and exit code 1."""
    on_broker.ok("topics", "create", "strict", "-p", "1")
    done = on_broker.run("produce", "strict", "-s", "=", stdin="a=1\nb\n")
    assert (done.code, done.err) == (1, "streamlog: standard input, line 2: no '=' between key and value: 'b'\n")
    (on_broker.path / "bad.txt").write_text('{"key": "a"}\n{"keys": "a"}\n')
    done = on_broker.run("produce", "strict", "bad.txt", "--json")
    assert done.code == 1
    assert done.err == (
        "streamlog: bad.txt, line 2: unknown field 'keys'; records have key, value, headers, partition, timestamp_ms\n"
    )
    done = on_broker.run("produce", "strict", "-p", "4", stdin="a\n")
    assert (done.code, done.err) == (
        1,
        "streamlog: standard input, line 1: topic strict has 1 partition, no number 4\n",
    )


def test_lines_are_sent_as_they_arrive(on_broker: Shell) -> None:
    """A pipe that stays open, as from `tail -f`, does not hold records back."""
    on_broker.ok("topics", "create", "trickle", "-p", "1")
    consumer = on_broker.start("consume", "trickle", "--from-beginning")
    producer = subprocess.Popen(
        [sys.executable, "-m", "streamlog", "produce", "trickle", "-q"],
        cwd=on_broker.path,
        env=on_broker.env,
        stdin=subprocess.PIPE,
    )
    assert producer.stdin is not None
    for word in (b"one", b"two"):
        producer.stdin.write(word + b"\n")
        producer.stdin.flush()
        consumer.wait_for(word.decode())
    producer.stdin.close()
    assert producer.wait(30) == 0
    consumer.send_signal(signal.SIGINT)
    assert consumer.ends() == 130
    assert consumer.text.rstrip() == "one\ntwo"


def test_consume_ends_quietly_when_its_reader_leaves(on_broker: Shell) -> None:
    """`streamlog consume ... | head -1` says nothing about pipes and does not wait for the next record."""
    on_broker.ok("topics", "create", "headed", "-p", "1")
    on_broker.ok("produce", "headed", "-q", stdin="a\nb\nc\n")
    command = f"{sys.executable} -m streamlog consume headed --from-beginning | head -1"
    done = subprocess.run(
        command, shell=True, cwd=on_broker.path, env=on_broker.env, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("a\n", "")


def test_a_topic_that_is_not_there_is_said_at_once(on_broker: Shell) -> None:
    """Neither command waits for it to appear, or creates it."""
    for arguments in (("consume", "typo"), ("produce", "typo")):
        done = on_broker.run(*arguments, stdin="x\n", timeout_s=20)
        assert done.code == 1
        assert done.err == "streamlog: topic 'typo' does not exist; create it first (UNKNOWN_TOPIC_OR_PARTITION)\n"


def test_times_that_no_calendar_has_are_shown_in_ms() -> None:
    """Brokers store any number that a producer sends."""
    assert iso_time(1_700_000_040_000) == "2023-11-14T22:14:00.000Z"
    assert iso_time(316_000_000_000_000) == "316000000000000"
    assert iso_time(2**62) == str(2**62)
    assert iso_time(-1) == ""
