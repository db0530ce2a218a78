"""`streamlog worker`: one worker of an app, or several of them under a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import click

from streamlog.__main__ import EXIT_INTERRUPTED
from streamlog.cli.apps import load_app
from streamlog.cli.invocation import Invocation, app_option, broker_option, runner
from streamlog.cli.logs import set_up_logging
from streamlog.cli.processes import ENDED_AT_ONCE, Plan, final_errors, supervise
from streamlog.cli.progress import show_progress
from streamlog.embedded import EmbeddedLog
from streamlog.env import Env, real_env
from streamlog.streams.app import App
from streamlog.streams.worker import Worker
from streamlog.web.server import PORT_PREFERRED, WebServer

log = logging.getLogger(__name__)

WEB_DEFAULT = f"127.0.0.1:{PORT_PREFERRED}"


@click.command()
@click.option(
    "--web",
    metavar="HOST:PORT",
    help=f"Where to answer queries; port 0 picks one. [{WEB_DEFAULT}, or another port if that is taken]",
)
@click.option("--web-advertised", metavar="HOST:PORT", help="How others reach --web, where that differs.")
@click.option(
    "--no-web", is_flag=True, help="Do not answer queries: streamlog.connect will not see this worker's rows."
)
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    metavar="N",
    default=1,
    show_default=True,
    help="Worker processes to run.",
)
@click.option("--create-topics", is_flag=True, help="Create missing topics even where the app names no partitions=.")
@click.option(
    "-l",
    "--loglevel",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
)
@click.option("--supervised", is_flag=True, hidden=True)
@click.option("--embedded", is_flag=True, hidden=True)
@click.option("--web-gives-way", is_flag=True, hidden=True, help="Another port than that of --web will do.")
@app_option
@broker_option
@click.pass_obj
def worker(
    invocation: Invocation,
    web: str | None,
    web_advertised: str | None,
    no_web: bool,
    processes: int,
    create_topics: bool,
    loglevel: str,
    supervised: bool,
    embedded: bool,
    web_gives_way: bool,
) -> None:
    """Run a worker of the app: process its topics until Ctrl-C.

    Without --broker the app uses an embedded log in the data directory, started if nobody serves it yet. The first
    Ctrl-C finishes the events in hand and commits; a second one ends at once.
    """
    target = invocation.app_target()
    host, port = _address(web, processes)
    required = web is not None and port != 0 and not web_gives_way
    set_up_logging(loglevel, plain=supervised)
    env = real_env()
    with final_errors() if supervised else contextlib.nullcontext():
        app = load_app(target, debug=invocation.debug)

    async def one() -> None:
        async with _log_of(app, invocation, env) as (bootstrap, is_embedded):
            server = None if no_web else WebServer(host, port, web_advertised, port_required=required)
            running = Worker(
                app,
                env=env,
                broker=bootstrap,
                data_dir=_data_dir(app, invocation),
                extensions=[] if server is None else [server],
                embedded=is_embedded or embedded,
                create_topics=create_topics,
            )
            await _run_until_told(running, supervised=supervised)

    async def several() -> int:
        async with _log_of(app, invocation, env) as (bootstrap, is_embedded):
            arguments = ["--loglevel", loglevel, "--data-dir", _data_dir(app, invocation), "--broker", bootstrap]
            arguments += ["--embedded"] if is_embedded else []
            arguments += ["--create-topics"] if create_topics else []
            arguments += [] if required else ["--web-gives-way"]
            plan = Plan(processes, target, tuple(arguments), None if no_web else (host, port), debug=invocation.debug)
            return await supervise(plan)

    if processes > 1:
        if web_advertised is not None:
            raise click.UsageError("--web-advertised does not go with --processes: each process has a port of its own")
        sys.exit(runner()(several()))
    with final_errors() if supervised else contextlib.nullcontext():
        runner()(one())


def _address(web: str | None, processes: int) -> tuple[str, int]:
    """Host and port of the first process; the others have the ports after it."""
    host, separator, port = (web or WEB_DEFAULT).rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise click.UsageError(f"--web {web}: expected HOST:PORT, such as 0.0.0.0:{PORT_PREFERRED}")
    if int(port) and int(port) + processes - 1 > 65535:
        raise click.UsageError(f"--web {web}: {processes} processes need the ports from {port} on; 65535 is the last")
    return host.strip("[]") or "127.0.0.1", int(port)


def _data_dir(app: App, invocation: Invocation) -> str:
    return os.path.abspath(invocation.data_directory(app.settings.data_dir))


@asynccontextmanager
async def _log_of(app: App, invocation: Invocation, env: Env) -> AsyncIterator[tuple[str, bool]]:
    """Addresses of the app's brokers, and whether they are an embedded log's."""
    named = invocation.broker or app.settings.broker or invocation.broker_named()
    if named is not None:
        yield named, False
        return
    async with AsyncExitStack() as stack:
        embedded = await stack.enter_async_context(EmbeddedLog(env, _data_dir(app, invocation)))
        yield embedded.address, True


async def _run_until_told(running: Worker, *, supervised: bool) -> None:
    """Run; stop with the first signal, end hard with the second Ctrl-C."""
    told = asyncio.Event()
    _listen(told, supervised=supervised)
    work = asyncio.create_task(running.run())
    beside = [asyncio.create_task(told.wait()), asyncio.create_task(show_progress(running))]
    if supervised:
        beside.append(asyncio.create_task(_until_orphaned(told)))
    try:
        await asyncio.wait([work, beside[0]], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    finally:
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)
        if told.is_set():  # all is committed and closed: what the interpreter has left to do takes a moment
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)


def _listen(told: asyncio.Event, *, supervised: bool) -> None:
    """Have the first signal set `told`, and a Ctrl-C after it end the process.

    The handlers are Python's, not the loop's: a body that holds the loop would keep it from hearing of either.
    """
    loop = asyncio.get_running_loop()
    signalled = False

    def tell() -> None:
        if not told.is_set():
            log.info("stopping: finishing the events in hand (Ctrl-C again to end at once)")
            told.set()

    def on_signal(number: int, frame: object) -> None:
        nonlocal signalled
        if (signalled or told.is_set()) and number == signal.SIGINT:
            if not supervised:  # else the supervisor has said so, for all of them
                os.write(2, f"\nstreamlog: {ENDED_AT_ONCE}\n".encode())  # print may be what was interrupted
            os._exit(EXIT_INTERRUPTED)
        signalled = True
        loop.call_soon_threadsafe(tell)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


async def _until_orphaned(told: asyncio.Event) -> None:
    """A supervised worker's standard input is a pipe from its supervisor: the end of one is the end of the other."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    if not told.is_set():
        log.error("the supervisor is gone: stopping")
        told.set()
