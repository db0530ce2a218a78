"""The `streamlog` command as a person runs it: real processes, in a directory of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
"""Longer than anything takes on a busy machine; what passes passes much sooner."""

POLL_S = 0.02

APP = '''
import asyncio
from datetime import datetime, timedelta

import streamlog

app = streamlog.App("flights", partitions=4)


class Flight(streamlog.Record):
    carrier: str
    origin: str
    delay_min: float
    at: datetime


flights = app.topic("flights", key=str, value=Flight, timestamp=Flight.at)
delay_min = app.Table("delay_min", key=str, value=float, default=float)
last_flight = app.Table("last_flight", key=str, value=Flight)
departures = app.Table("departures", key=str, value=int, default=int).tumbling(hours=1, expires=timedelta(days=365))


@app.agent(flights)
async def by_carrier(stream: streamlog.Stream[str, Flight]) -> None:
    async for flight in stream:
        delay_min[flight.carrier] += flight.delay_min
        last_flight[flight.carrier] = flight
        departures[flight.carrier] += 1


@app.agent()
async def shout(stream: streamlog.Stream[str, str]):
    async for text in stream:
        yield text.upper()


@app.command()
async def greet() -> None:
    """Ask the shout agent."""
    print(await shout.ask("hello"))


@app.command()
async def give_up() -> None:
    """Await something that is cancelled."""
    answer = asyncio.get_running_loop().create_future()
    answer.cancel()
    await answer
'''

CARRIERS = ("AA", "B6", "DL", "UA", "WN", "AS", "F9", "HA")


def flight_line(carrier: str, delay_min: float = 1.0, *, hour: int = 0) -> str:
    """One line for `produce flights -s :`."""
    value = {"carrier": carrier, "origin": "JFK", "delay_min": delay_min, "at": f"2013-01-01T{hour:02d}:30:00Z"}
    return f"{carrier}:{json.dumps(value)}\n"


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, f"exit code {self.code}: {self.err}"
        return json.loads(self.out)


class Running:
    """A command that goes on."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str, *, count: int = 1) -> re.Match[str]:
        """Until its output has `count` matches; returns the last of these."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            found = list(re.finditer(pattern, self.text))
            if len(found) >= count:
                return found[count - 1]
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.text[-3000:]}"
            assert time.monotonic() < give_up_at, f"never said {pattern!r}: {self.text[-3000:]}"
            time.sleep(POLL_S)

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ends(self) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(PATIENCE_S)

    def stop(self) -> int:
        self.send_signal(signal.SIGTERM)
        return self.ends()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Shell:
    """A directory with an app in it, and the processes started there."""

    def __init__(self, path: Path, env: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLOG_")}
        self.env |= {"PYTHONUNBUFFERED": "1", **(env or {})}
        self._running: list[Running] = []
        (path / "flights_app.py").write_text(APP)

    def run(self, *arguments: str, stdin: str = "", timeout_s: float = PATIENCE_S) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "streamlog", *arguments],
            cwd=self.path,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, stdin: str = "") -> str:
        """Standard output of a command that has to work."""
        done = self.run(*arguments, stdin=stdin)
        assert done.code == 0, f"{arguments}: exit code {done.code}: {done.err}"
        return done.out

    def start(self, *arguments: str) -> Running:
        log = self.path / f"output-{len(self._running)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "streamlog", *arguments],
                cwd=self.path,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        running = Running(process, log)
        self._running.append(running)
        return running

    def worker(self, *arguments: str, tasks: int = 4) -> Running:
        """A worker that is running `tasks` tasks."""
        running = self.start("-A", "flights_app", "worker", "--web", "127.0.0.1:0", *arguments)
        running.wait_for(r"task=\d+ epoch=\d+ state=running", count=tasks)
        return running

    def embedded_broker_pid(self) -> int:
        pid: int = json.loads((self.path / "streamlog-data/log/broker.json").read_text())["pid"]
        return pid

    def close(self) -> None:
        for running in self._running:
            running.kill()
        announcement = self.path / "streamlog-data/log/broker.json"
        if announcement.exists():
            try:
                os.kill(self.embedded_broker_pid(), signal.SIGKILL)
            except ProcessLookupError:
                return


def until(claim: str, check: Any) -> Any:
    """What `check` returns once it is true."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < give_up_at, f"never: {claim}"
        time.sleep(POLL_S)
