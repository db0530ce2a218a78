"""Faust's side of the streams rows, run by its own interpreter: ROW BOOTSTRAP TOPIC EVENTS COMMIT_MS."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

import faust  # type: ignore[import-not-found]  # installed in the peer's own environment


class Sale(faust.Record, serializer="json"):  # type: ignore[misc,call-arg]
    n: int
    user: str
    amount: float
    country: str
    device: str
    note: str


def main() -> None:
    row, bootstrap, source = sys.argv[1:4]
    events, commit_ms = int(sys.argv[4]), int(sys.argv[5])
    name = f"bench-faust-{row}-{time.time_ns()}"
    app = faust.App(
        name,
        broker=f"aiokafka://{bootstrap}",
        store="rocksdb://",
        datadir=tempfile.mkdtemp(prefix="bench-faust-"),
        topic_partitions=1,
        broker_commit_interval=commit_ms / 1000,
        consumer_auto_offset_reset="earliest",
        topic_replication_factor=1,
        web_enabled=False,
        topic_disable_leader=True,
        worker_redirect_stdouts=False,
    )
    sales = app.topic(source, key_type=str, value_type=Sale)
    out = app.topic(f"{name}-out", key_type=str, value_type=Sale, partitions=1)
    counts = app.Table("counts", key_type=str, value_type=int, default=int, partitions=1)
    windows = app.Table("windows", key_type=str, value_type=int, default=int, partitions=1).tumbling(60.0)
    seen = 0
    began_s = began_cpu_s = 0.0

    def tick() -> None:
        nonlocal seen, began_s, began_cpu_s
        seen += 1
        if seen == events // 4:
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
        elif seen == events:
            measured = events - events // 4
            rate = measured / (time.perf_counter() - began_s)
            cpu_us = (time.process_time() - began_cpu_s) / measured * 1e6
            print(json.dumps({"events_per_s": rate, "cpu_us_per_event": cpu_us}), file=sys.__stdout__, flush=True)
            os._exit(0)  # Faust takes many seconds to stop, and the figure is out

    @app.agent(sales)  # type: ignore[untyped-decorator]
    async def work(stream: Any) -> None:
        async for sale in stream:
            if row == "map":
                sale.amount *= 2
                await out.send(key=sale.user, value=sale)
            elif row == "count":
                counts[sale.user] += 1
            else:
                windows[sale.user] += 1
            tick()

    sys.argv[1:] = ["worker", "-l", "error", "--without-web"]
    app.main()


if __name__ == "__main__":
    main()
