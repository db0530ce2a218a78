"""An app whose tables are declared in another way than they were when their rows were written."""

from __future__ import annotations

from typing import Any

import pytest

import streamlog
from streamlog.errors import UserError
from streamlog.state.memory import MemoryEngine
from tests.streams.harness import TaskHarness, running


async def test_a_task_does_not_begin_with_rows_of_another_declaration() -> None:
    """Before it has changed anything, and it can be opened once the former declaration is back."""

    def counting(*, windowed: bool) -> streamlog.App:
        app = streamlog.App("counting")
        counts = app.Table("counts", key=str, value=int, default=int)
        per_minute: Any = counts.tumbling(60, grace=60) if windowed else counts

        @app.agent(app.topic("events", key=str, value=int))
        async def count(stream: streamlog.Stream[str, int]) -> None:
            async for event in stream.events():
                per_minute[event.key] += 1

        return app

    engine = MemoryEngine()
    async with running(counting(windowed=False), {"events": 1}, engine=engine) as harness:
        harness.feed("events", [("customer-0000012", "1")])
        await harness.settle()
        harness.commit()
    changed = TaskHarness(counting(windowed=True), {"events": 1}, engine=engine)
    for _ in range(2):
        with pytest.raises(UserError, match="table counts has rows"):
            changed.task.open(engine._open.get("store") or engine.open("store"), {}, {}, {})
    engine._open["store"].close()
    await changed.task.stop()
    changed.env.offload.close()
    async with running(counting(windowed=False), {"events": 1}, engine=engine) as harness:
        assert harness.table("counts") == {"customer-0000012": 1}
