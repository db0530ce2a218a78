"""`streamlog -A ... reset`: an app that begins again."""

from __future__ import annotations

import json
from collections import Counter

from tests.cli.shell import Running, Shell, until

COUNTING = """
import streamlog

app = streamlog.App("{name}")
numbers = app.topic("{name}-in", key=str, value=int)
counts = app.Table("counts", key=str, value=int, default=int)


@app.agent(numbers.stream().group_by(lambda number: str(number % 10), key=str))
async def count(stream: streamlog.Stream[str, int]) -> None:
    async for key, _ in stream.items():
        counts[key] += 1
"""

CASTING = """
import streamlog

app = streamlog.App("{name}", partitions=2)
lines = app.topic("{name}-lines", value=str, partitions=2)
counts = app.Table("counts", key=str, value=int, default=int)


@app.agent(lines)
async def split(stream: streamlog.Stream[str, str]) -> None:
    async for line in stream:
        for word in line.split():
            await count.cast(word, key=word)


@app.agent()
async def count(stream: streamlog.Stream[str, str]) -> None:
    async for word in stream:
        counts[word] += 1
"""


def _app(shell: Shell, name: str, text: str) -> None:
    (shell.path / f"{name}.py").write_text(text.replace("{name}", name))


def _worker(shell: Shell, name: str, tasks: int) -> Running:
    running = shell.start("-A", name, "worker", "--web", "127.0.0.1:0")
    running.wait_for(r"task=\d+ epoch=\d+ state=running", count=tasks)
    return running


def _counts(shell: Shell, name: str) -> dict[str, int]:
    done = shell.run("tables", "scan", name, "counts", "--json")
    return {row["key"]: row["value"] for row in map(json.loads, done.out.splitlines())} if done.code == 0 else {}


def test_an_app_whose_topic_grew_says_reset_and_goes_on_after_it(on_broker: Shell) -> None:
    """It refuses while a worker runs, shows what it will do, asks; then all is counted once, on all partitions."""
    name = "regrowing"
    _app(on_broker, name, COUNTING)
    on_broker.ok("topics", "create", f"{name}-in", "-p", "2")
    worker = _worker(on_broker, name, 2)
    on_broker.ok("produce", f"{name}-in", "-q", stdin="".join(f"{number}\n" for number in range(100)))
    once = {str(digit): 10 for digit in range(10)}
    until("counted", lambda: _counts(on_broker, name) == once)
    done = on_broker.run("-A", name, "reset", "--yes")
    assert (done.code, "1 running worker: stop them first" in done.err) == (1, True)
    assert worker.stop() == 0
    on_broker.ok("topics", "alter", f"{name}-in", "-p", "4")
    done = on_broker.run("-A", name, "worker", "--no-web")
    assert done.code == 1
    assert "run `streamlog -A MODULE reset`" in done.err

    planned = on_broker.run("-A", name, "reset", "--dry-run", "--json").json
    own = [f"{name}-count-key-repartition", f"{name}-counts-changelog"]
    assert (planned["changed"], len(planned["topics"]), planned["topics"][1]) == (False, 2, own[1])
    assert sorted(path.rpartition("/")[2] for path in planned["state"]) == ["task-0", "task-1"]
    assert [(row["partition"], row["after"]) for row in planned["offsets"]] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    done = on_broker.run("-A", name, "reset", stdin="n\n")
    assert (done.code, done.err) == (1, "Nothing was changed.\n")
    assert f"{name}-counts-changelog" in done.out
    assert on_broker.run("-A", name, "reset", "--json").code == 2
    assert own[1] in on_broker.ok("topics", "list"), "nothing has been done so far"

    assert on_broker.ok("-A", name, "reset", stdin="y\n").endswith(f"App {name} was reset.\n")
    assert own[1] not in on_broker.ok("topics", "list")
    worker = _worker(on_broker, name, 4)
    until("counted again", lambda: _counts(on_broker, name) == once)
    assert worker.stop() == 0
    assert on_broker.run("-A", name, "reset", "--yes", "--keep-offsets", "--json").json["offsets"] == []
    worker = _worker(on_broker, name, 4)
    on_broker.ok("produce", f"{name}-in", "-q", stdin="7\n")
    until("with empty tables, where it was", lambda: _counts(on_broker, name) == {"7": 1})
    assert worker.stop() == 0


def test_what_an_agent_fills_is_not_read_twice(on_broker: Shell) -> None:
    """Words that were cast before the reset are cast again; --input says that they have to be read all the same."""
    name = "recasting"
    _app(on_broker, name, CASTING)
    worker = _worker(on_broker, name, 2)
    on_broker.ok("produce", f"{name}-lines", "-q", stdin='"to be or not to be"\n"to go"\n')
    counted = dict(Counter(["to", "be", "or", "not", "to", "be", "to", "go"]))
    until("counted", lambda: _counts(on_broker, name) == counted)
    assert worker.stop() == 0
    planned = on_broker.run("-A", name, "reset", "--dry-run", "--json").json
    filled = {row["topic"]: row["begins_at"] for row in planned["offsets"]}
    assert filled == {f"{name}-lines": "its first record", f"{name}-count": "its end: agent split fills it"}
    changed = on_broker.run("-A", name, "reset", "--dry-run", "--json", "--input", f"{name}-count").json
    assert {row["topic"] for row in changed["offsets"]} == {f"{name}-lines", f"{name}-count"}
    done = on_broker.run("-A", name, "reset", "--yes", "--input", "nowhere")
    assert (done.code, f"It reads: {name}-count, {name}-lines" in done.err) == (1, True)

    on_broker.ok("-A", name, "reset", "--yes")
    worker = _worker(on_broker, name, 2)
    until("counted again", lambda: _counts(on_broker, name) == counted)
    assert worker.stop() == 0


def test_a_no_changes_nothing_and_says_so(on_broker: Shell) -> None:
    """It is an answer, not an accident."""
    on_broker.ok("topics", "create", "flights")
    done = on_broker.run("-A", "flights_app", "reset", stdin="n\n")
    assert (done.code, done.err.splitlines()[-1]) == (1, "Nothing was changed.")
