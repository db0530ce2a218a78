"""`streamlog doctor`: whether everything that is needed is there and works, and what to do where it does not."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import click
import msgspec

from streamlog import embedded
from streamlog.cli.apps import load_app
from streamlog.cli.invocation import Invocation, app_option, broker_option, json_option, run
from streamlog.cli.output import plural, print_json, styled
from streamlog.client.admin import Admin
from streamlog.env import Env, real_env
from streamlog.errors import StreamlogError
from streamlog.streams.app import App
from streamlog.web.http import HttpClient, WorkerUnreachable
from streamlog.web.routing import NoWorkers, Routes

LIBRARIES = ("rocksdict", "msgspec", "cramjam", "crc32c", "uvloop", "starlette", "uvicorn", "click", "rich")

FREE_BYTES_LOW = 1 << 30
CONNECT_MS = 5_000
WORKER_S = 3.0

Verdict = Literal["ok", "note", "problem"]
MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("PROBLEM", "red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    about: str
    verdict: Verdict
    found: str
    advice: str = ""


@click.command()
@json_option
@app_option
@broker_option
@click.pass_obj
def doctor(invocation: Invocation, as_json: bool) -> None:
    """Look at this machine, the brokers and the app, and say what is wrong. Exit code 1 if something is."""
    findings = run(_examine(invocation, real_env()))
    if as_json:
        print_json([asdict(one) for one in findings])
    else:
        width = max(len(one.about) for one in findings)
        for one in findings:
            mark, color = MARKS[one.verdict]
            click.echo(f"{styled(mark.ljust(7), color=color)}  {one.about.ljust(width)}  {one.found}")
            for line in one.advice.splitlines():
                click.echo(f"{' ' * (width + 11)}{line}")
    if any(one.verdict == "problem" for one in findings):
        sys.exit(1)


async def _examine(invocation: Invocation, env: Env) -> list[Finding]:
    findings = [*_python(), *_libraries()]
    app: App | None = None
    if invocation.names_app():
        try:
            app = load_app(invocation.app_target())
            findings.append(Finding("app", "ok", f"{app.id} ({invocation.app_target()})"))
        except StreamlogError as error:
            findings.append(Finding("app", "problem", str(error)))
    data_dir = invocation.data_directory(app.settings.data_dir if app is not None else None)
    findings += _data_dir(env, data_dir)
    named = invocation.broker or (app.settings.broker if app is not None else None) or invocation.broker_named()
    bootstrap = named or embedded.running(env, data_dir)
    if bootstrap is None:
        there = embedded.exists(env, data_dir)
        why = f"the embedded log in {data_dir} is not running" if there else "none named, and no embedded log yet"
        findings.append(Finding("broker", "note", why, "A worker starts the embedded log when it needs it."))
        return findings
    return findings + await _cluster(env, bootstrap, app)


def _python() -> Iterator[Finding]:
    from streamlog.wire.records import CODEC

    ours = _version("streamlog")
    yield Finding("streamlog", "ok", f"{ours} in {os.path.dirname(os.path.abspath(embedded.__file__))}")
    yield Finding("python", "ok", f"{platform.python_version()} {platform.machine()} {sys.executable}")
    if CODEC == "compiled":
        yield Finding("record codec", "ok", "compiled")
    else:
        yield Finding(
            "record codec",
            "note",
            "interpreted: several times slower than compiled",
            "Install a wheel for this platform, or a C compiler and then: pip install --force-reinstall streamlog",
        )
    if _version("uvloop") is None:
        yield Finding("event loop", "note", "asyncio: about half as fast as uvloop", "pip install uvloop")
    else:
        yield Finding("event loop", "ok", f"uvloop {_version('uvloop')}")


def _libraries() -> Iterator[Finding]:
    found = {name: _version(name) for name in LIBRARIES}
    yield Finding("libraries", "ok", ", ".join(f"{name} {text}" for name, text in found.items() if text is not None))
    missing = [name for name, text in found.items() if text is None and name != "uvloop"]
    if missing:
        yield Finding("libraries", "problem", f"{', '.join(missing)} missing", f"pip install {' '.join(missing)}")


def _data_dir(env: Env, path: str) -> Iterator[Finding]:
    about = "data directory"
    shown = os.path.abspath(path)
    if not env.storage.exists(path):
        yield Finding(about, "ok", f"{shown} (a worker makes it)")
        parent = os.path.dirname(shown)
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        shown = parent
    elif not env.storage.is_directory(path):
        yield Finding(about, "problem", f"{shown} is not a directory", "Name another with --data-dir.")
        return
    else:
        apps = [name for name in env.storage.list(path) if name != "log" and env.storage.is_directory(f"{path}/{name}")]
        yield Finding(about, "ok", f"{shown} (state of: {', '.join(apps) or 'no app yet'})")
    if not os.access(shown, os.W_OK):
        yield Finding(about, "problem", f"{shown} cannot be written by this user", "Name another with --data-dir.")
    free = env.storage.free_bytes(shown)
    text = f"{free / (1 << 30):,.1f} GiB free"
    if free < FREE_BYTES_LOW:
        yield Finding("disk", "problem", text, "Free some: the log and the state stop when it is full.")
    else:
        yield Finding("disk", "ok", text)


async def _cluster(env: Env, bootstrap: str, app: App | None) -> list[Finding]:
    findings: list[Finding] = []
    try:
        async with Admin(bootstrap, env=env, client_id="streamlog-doctor", timeout_ms=CONNECT_MS) as admin:
            started_ms = env.clock.mono_ms()
            cluster = await admin.describe_cluster()
            took_ms = env.clock.mono_ms() - started_ms
            brokers = ", ".join(f"{one.node_id} at {one.address}" for one in cluster.brokers)
            findings.append(
                Finding(
                    "broker",
                    "ok",
                    f"{bootstrap} answers in {took_ms} ms: cluster {cluster.cluster_id}, "
                    f"{plural(len(cluster.brokers), 'broker')} ({brokers})",
                )
            )
            topics = await admin.describe_topics(await admin.list_topics(internal=True))
            findings.append(_partitions(topics))
            if app is not None:
                findings += await _app(env, admin, app)
    except StreamlogError as error:
        findings.append(Finding("broker", "problem", str(error)))
    return findings


def _partitions(topics: Any) -> Finding:
    everything = [(name, one) for name, info in sorted(topics.items()) for one in info.partitions]
    headless = [f"{name}-{one.partition}" for name, one in everything if one.leader < 0]
    thin = [f"{name}-{one.partition}" for name, one in everything if len(one.isr) < len(one.replicas)]
    if headless:
        return Finding("partitions", "problem", f"{', '.join(headless[:5])} without a leader", "Start their brokers.")
    if thin:
        return Finding("partitions", "note", f"{len(thin)} have replicas that are not in sync, such as {thin[0]}")
    return Finding("partitions", "ok", f"{plural(len(everything), 'partition')}, all led and in sync")


async def _app(env: Env, admin: Admin, app: App) -> list[Finding]:
    existing = set(await admin.list_topics(internal=True))
    consumed = app.topology().consumed
    missing = [name for name in consumed if name not in existing]
    findings = []
    if missing:
        findings.append(
            Finding("topics", "note", f"{', '.join(missing)} not there yet", f"streamlog topics create {missing[0]}")
        )
    routes = Routes(admin, app.id, env.clock)
    try:
        await routes.refresh()
    except NoWorkers as error:
        return [*findings, Finding("workers", "note", str(error))]
    except StreamlogError as error:
        return [*findings, Finding("workers", "note", str(error))]
    if routes.state != "Stable":
        return [*findings, Finding("workers", "note", f"the group is rebalancing ({routes.state}): look again")]
    findings.append(Finding("workers", "ok", f"{plural(len(routes.workers), 'worker')}, group {routes.state}"))
    http = HttpClient()
    try:
        for worker in routes.workers:
            findings += await _worker(http, worker.endpoint, worker.host)
    finally:
        await http.close()
    return findings


async def _worker(http: HttpClient, endpoint: str | None, host: str) -> list[Finding]:
    """Why a worker's partitions do not progress, where they do not."""
    if endpoint is None:
        return [Finding(f"worker {host}", "note", "runs without a web server: nothing more to see")]
    about = f"worker {endpoint}"
    try:
        answer = await http.request(endpoint, "GET", "/status", timeout_s=WORKER_S)
        status = msgspec.json.decode(answer.body)
    except (WorkerUnreachable, msgspec.MsgspecError) as error:
        return [Finding(about, "problem", str(error), "It may be frozen, or its --web address not be reachable here.")]
    findings = []
    tasks = status["tasks"]
    lag = sum(one["lag"] or 0 for task in tasks for one in task["partitions"])
    running = sum(task["state"] == "running" for task in tasks)
    summary = f"{status['state']}, {running} of {plural(len(tasks), 'partition')} running, lag {lag:,}"
    if status["error"]:
        findings.append(Finding(about, "problem", f"{summary}; {status['error']}"))
    else:
        findings.append(Finding(about, "ok", summary))
    for task in tasks:
        name = f"  partition {task['number']}"
        advice = "Fix the cause and restart the worker; see on_error=."
        findings += [Finding(name, "problem", f"stands still: {failure}", advice) for failure in task["failures"]]
        for one in task.get("late", ()):  # an older worker has none
            what = f"{one['count']:,} writes to table {one['table']} came after their window was closed"
            findings.append(Finding(name, "note", what, "Dropped. Windows take late events for longer with grace=."))
        for one in task["restoring"]:
            done = f"restoring {one['table']}: {one['restored']:,} of {one['total']:,} changes"
            verdict: Verdict = "problem" if one["blocked"] else "note"
            findings.append(Finding(name, verdict, f"{done} {one['blocked'] or ''}".rstrip()))
    return findings


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
