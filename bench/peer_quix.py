"""Quix Streams' side of the streams rows, run by its own interpreter: ROW BOOTSTRAP TOPIC EVENTS COMMIT_MS."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from datetime import timedelta
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found]  # installed in the peer's own environment


def main() -> None:
    row, bootstrap, source = sys.argv[1:4]
    events, commit_ms = int(sys.argv[4]), int(sys.argv[5])
    name = f"bench-quix-{row}-{time.time_ns()}"
    app = Application(
        broker_address=bootstrap,
        consumer_group=name,
        auto_offset_reset="earliest",
        commit_interval=commit_ms / 1000,
        state_dir=tempfile.mkdtemp(prefix="bench-quix-"),
        loglevel="ERROR",
    )
    seen = 0
    began_s = began_cpu_s = 0.0

    def tick(value: Any) -> None:
        nonlocal seen, began_s, began_cpu_s
        seen += 1
        if seen == events // 4:
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
        elif seen == events:
            measured = events - events // 4
            rate = measured / (time.perf_counter() - began_s)
            cpu_us = (time.process_time() - began_cpu_s) / measured * 1e6
            print(json.dumps({"events_per_s": rate, "cpu_us_per_event": cpu_us}), flush=True)
            app.stop()

    def double(value: dict[str, Any]) -> dict[str, Any]:
        value["amount"] *= 2
        return value

    def count(value: dict[str, Any], state: Any) -> int:
        total: int = state.get("count", 0) + 1
        state.set("count", total)
        return total

    stream = app.dataframe(app.topic(source, value_deserializer="json", key_deserializer="str"))
    if row == "map":
        stream = stream.apply(double).to_topic(app.topic(f"{name}-out", value_serializer="json", key_serializer="str"))
    elif row == "count":
        stream = stream.apply(count, stateful=True)
    elif row == "tumbling":
        stream = stream.tumbling_window(timedelta(seconds=60)).count().current()
    else:
        raise SystemExit(f"no row {row!r}")
    stream.update(tick)
    app.run()


if __name__ == "__main__":
    main()
