"""`--processes N`: a supervisor with N workers, each a process of its own.

The parent processes nothing. It starts workers, gives their lines a number and writes them to one log, starts one that
crashed again after a pause, and passes signals on. Workers are sessions of their own, so that Ctrl-C reaches them once,
through the parent; their standard input is a pipe from it, so that they notice when it is gone, kill -9 included.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import click

from streamlog.__main__ import EXIT_INTERRUPTED
from streamlog.errors import UserError

log = logging.getLogger(__name__)

RESTART_PAUSE_S_FIRST, RESTART_PAUSE_S_MAX = 0.5, 30.0
"""Before a worker that crashed is started again; twice as long each time."""

STABLE_S = 60.0
"""After so long a worker's next crash counts as its first."""

LINE_BYTES_MAX = 1 << 20

ENDED_AT_ONCE = "ended at once, without the clean stop: what was not committed is processed again"
"""What a second Ctrl-C means for one worker, or for all of a supervisor."""

EXIT_USER = 1
EXIT_FINAL = 78
"""sysexits.h's EX_CONFIG: of a supervised worker whose program is wrong. Not 1, which is also what Python and much else
end with when they crash."""

FINAL_CODES = {0: 0, 2: 2, EXIT_FINAL: EXIT_USER}
"""Ended as asked, the command line is wrong, the user's program is wrong: starting again would change nothing. To each,
what the supervisor ends with then."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    processes: int
    target: str
    arguments: tuple[str, ...]
    web: tuple[str, int] | None
    """Host and first port; process n gets the n-th after it. None: no web server."""
    debug: bool = False

    def command(self, number: int) -> list[str]:
        command = [sys.executable, "-m", "streamlog", *(["--debug"] if self.debug else []), "-A", self.target, "worker"]
        command += ["--supervised", *self.arguments]
        if self.web is None:
            return [*command, "--no-web"]
        host, port = self.web
        return [*command, "--web", f"{host}:{port + number if port else 0}"]


class Supervisor:
    """Keeps the workers of a plan running until told to stop."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._processes: dict[int, asyncio.subprocess.Process] = {}  # running now, by number
        self._stopping = asyncio.Event()
        self._code = 0  # what the whole ends with: the first worker's that ended for good

    async def run(self) -> int:
        """Returns the exit code."""
        loop = asyncio.get_running_loop()
        for which in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(which, self._on_signal, which)
        async with asyncio.TaskGroup() as group:
            for number in range(self._plan.processes):
                group.create_task(self._keep(number))
        for which in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(which)
            signal.signal(which, signal.SIG_IGN)  # they have ended; what the interpreter has left to do takes a moment
        return self._code

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            if number is signal.SIGINT and self._processes and self._code != EXIT_INTERRUPTED:
                self._code = EXIT_INTERRUPTED
                click.echo(f"\nstreamlog: {ENDED_AT_ONCE}", err=True)
            self._signal_all(number)
            return
        log.info("stopping %d workers (Ctrl-C again to end at once)", len(self._processes))
        self._stopping.set()
        self._signal_all(signal.SIGTERM)  # a worker that has only just begun ends without a word, as with no SIGINT

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self, number: int) -> None:
        pause_s = RESTART_PAUSE_S_FIRST
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started_at = loop.time()
            code = await self._run_once(number)
            if self._stopping.is_set():
                return
            if code in FINAL_CODES:
                self._code = FINAL_CODES[code]
                self._stopping.set()
                self._signal_all(signal.SIGTERM)
                return
            if loop.time() - started_at > STABLE_S:
                pause_s = RESTART_PAUSE_S_FIRST
            log.error("worker %d ended with %s; starting it again in %g s", number, _ending(code), pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            pause_s = min(2 * pause_s, RESTART_PAUSE_S_MAX)

    async def _run_once(self, number: int) -> int:
        process = await asyncio.create_subprocess_exec(
            *self._plan.command(number),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_BYTES_MAX,
            start_new_session=True,
        )
        self._processes[number] = process
        if self._stopping.is_set():
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                process.terminate()
        assert process.stdout is not None, "asked for with PIPE"
        try:
            await self._copy(process.stdout, number)
            return await process.wait()
        finally:
            self._processes.pop(number, None)

    async def _copy(self, lines: asyncio.StreamReader, number: int) -> None:
        """A worker's lines, whole, under its number."""
        prefix = f"[{number}] ".encode()
        while True:
            try:
                line = await lines.readline()
            except ValueError:
                continue  # longer than LINE_BYTES_MAX: dropped
            if not line:
                return
            sys.stderr.buffer.write(prefix + line.removesuffix(b"\n") + b"\n")
            sys.stderr.buffer.flush()


@contextlib.contextmanager
def final_errors() -> Iterator[None]:
    """In a worker: end with EXIT_FINAL where the user has to change something first."""
    try:
        yield
    except UserError as error:
        click.echo(f"streamlog: {error}", err=True)
        sys.exit(EXIT_FINAL)


async def supervise(plan: Plan) -> int:
    """Run the plan until it is told to stop, or ends for good. Returns the exit code."""
    log.info("running %d workers of %s", plan.processes, plan.target)
    return await Supervisor(plan).run()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
