"""Our side of the streams rows, run as a process: `python -m bench.streams_app ROW BOOTSTRAP TOPIC EVENTS COMMIT_MS`.

Prints one line of JSON: events per second over the last three quarters of the events, so that nobody's start counts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time

import streamlog
from streamlog.env import real_env
from streamlog.streams.worker import Worker

WINDOW_S = 60
POLL_S = 0.01


class Sale(streamlog.Record):
    n: int
    user: str
    amount: float
    country: str
    device: str
    note: str


def make_app(row: str, source: str, commit_ms: int, app_id: str = "") -> streamlog.App:
    app = streamlog.App(
        app_id or f"bench-{row}-{time.time_ns()}", commit_interval_ms=commit_ms, commit_events_max=10**9
    )
    sales = app.topic(source, value=Sale, partitions=1)
    if row == "map":
        out = app.topic(f"{app.id}-out", value=Sale, partitions=1)

        @app.agent(sales)
        async def double(stream: streamlog.Stream[str, Sale]) -> None:
            async for sale in stream:
                sale.amount *= 2
                await out.send(sale, key=sale.user)

    elif row == "count":
        counts = app.Table("counts", key=str, value=int, default=int)

        @app.agent(sales)
        async def count(stream: streamlog.Stream[str, Sale]) -> None:
            async for sale in stream:
                counts[sale.user] += 1

    elif row == "tumbling":
        windows = app.Table("windows", key=str, value=int, default=int).tumbling(seconds=WINDOW_S, grace=0)

        @app.agent(sales)
        async def tumble(stream: streamlog.Stream[str, Sale]) -> None:
            async for sale in stream:
                windows[sale.user] += 1

    else:
        raise SystemExit(f"no row {row!r}")
    return app


async def measure(row: str, bootstrap: str, topic: str, events: int, commit_ms: int) -> dict[str, float]:
    app = make_app(row, topic, commit_ms)
    with tempfile.TemporaryDirectory(prefix="bench-app-") as directory:
        async with Worker(app, env=real_env(), broker=bootstrap, data_dir=directory, create_topics=True) as worker:

            def done() -> int:
                assignment = worker.assignment
                task = assignment.tasks.get(0) if assignment is not None else None
                if task is None or not task.lanes:
                    return 0
                return task.lanes[0].committable(task.lanes[0].feeds[0])

            async def reach(count: int) -> None:
                while done() < count:
                    if worker.failure is not None:
                        raise worker.failure
                    await asyncio.sleep(POLL_S)

            await reach(events // 4)
            began, began_s, began_cpu_s = done(), time.perf_counter(), time.process_time()
            await reach(events)
            took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
            rate = (events - began) / took_s
            status = worker.status()
    return {
        "events_per_s": rate,
        "cpu_us_per_event": cpu_s / (events - began) * 1e6,
        "commits": status.commits,
        "commit_took_ms": status.commit_took_ms,
    }


async def measure_restore(bootstrap: str, topic: str, events: int, commit_ms: int) -> dict[str, float]:
    """Seconds from an empty directory to a running task, for the table of all keys that `events` events count."""
    app_id = f"bench-restore-{time.time_ns()}"
    took_s = cpu_s = 0.0
    for restoring in (False, True):
        app = make_app("count", topic, commit_ms, app_id)
        with tempfile.TemporaryDirectory(prefix="bench-app-") as directory:
            async with Worker(app, env=real_env(), broker=bootstrap, data_dir=directory, create_topics=True) as worker:
                began_s, began_cpu_s = 0.0, 0.0
                while True:
                    tasks = worker.status().tasks
                    if tasks and not began_s:
                        began_s, began_cpu_s = time.perf_counter(), time.process_time()
                    if tasks and tasks[0].state == "running":
                        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
                        if restoring or tasks[0].partitions[0].committed == events:
                            break
                    await asyncio.sleep(0.002 if restoring else 0.2)
    keys = min(events, 10**6)
    return {"events_per_s": keys / took_s, "cpu_us_per_event": cpu_s / keys * 1e6, "restore_s": took_s}


def main() -> None:
    row, bootstrap, topic, events, commit_ms = sys.argv[1:6]
    import uvloop

    if row == "restore":
        result = uvloop.run(measure_restore(bootstrap, topic, int(events), int(commit_ms)))
    else:
        result = uvloop.run(measure(row, bootstrap, topic, int(events), int(commit_ms)))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
