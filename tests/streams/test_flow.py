"""What keeps records coming: a partition is fetched again once its lanes have used up what they had."""

from __future__ import annotations

import streamlog
from tests.streams.harness import running


async def test_a_lane_that_waits_for_more_has_let_go_of_what_it_used() -> None:
    """A lane that follows event time waits when its topic has more; were its last batch still counted as buffered, the
    partition would stay paused, and the two would wait for each other."""
    app = streamlog.App("shop")
    orders = app.topic("orders", key=str, value=int)
    prices = app.Table("prices", key=str, value=int, source=app.topic("prices", key=str, value=int))
    totals = app.Table("totals", key=str, value=int, default=int)

    @app.agent(orders.stream().left_join(prices))
    async def total(stream: streamlog.Stream[str, tuple[int, int | None]]) -> None:
        async for amount, _ in stream:
            totals["k"] += amount

    async with running(app, {"orders": 1, "prices": 1}) as harness:
        harness.feed("orders", [("k", "1"), ("k", "2")], end=4)
        await harness.settle()
        assert harness.table("totals") == {"k": 3}
        assert harness.task.buffered("orders") == 0
