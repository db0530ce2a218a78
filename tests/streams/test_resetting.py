"""What a reset of an app is about, as its program shows it."""

from __future__ import annotations

import streamlog
from streamlog.streams.resetting import reset_of


def test_own_topics_go_and_inputs_begin_again() -> None:
    """Changelogs and repartitioned events are made again; a global table's topic is everybody's."""
    app = streamlog.App("resetting")
    orders = app.topic("orders", key=str, value=int)
    rates = app.topic("rates", key=str, value=int)
    totals = app.Table("totals", key=int, value=int, default=int)
    app.Table("rate", key=str, value=int, source=rates)
    app.GlobalTable("names", key=str, value=str)

    @app.agent(orders.stream().group_by(lambda amount: amount % 2, name="parity", key=int))
    async def add(stream: streamlog.Stream[int, int]) -> None:
        async for key, amount in stream.items():
            totals[key] += amount

    what = reset_of(app.topology(), app.agents)
    assert what.delete == ("resetting-add-parity-repartition", "resetting-totals-changelog")
    assert what.inputs == ("orders", "rates")
    assert what.refilled == {}


def test_topics_that_the_app_fills_are_known_by_who_fills_them() -> None:
    """A sink, a `through`, a send in an agent's code, and one in a function that it calls."""
    app = streamlog.App("filling")
    lines = app.topic("lines", value=str)
    passed = app.topic("passed", value=str)
    sunk = app.topic("sunk", value=str)
    sent = app.topic("sent", value=str)

    async def pass_on(word: str) -> None:
        await sent.send(word)

    @app.agent(lines.stream().through(passed), sink=[sunk])
    async def split(stream: streamlog.Stream[str, str]):  # type: ignore[no-untyped-def]  # as users write it
        async for line in stream:
            for word in line.split():  # no send to an agent of this name
                await count.cast(word, key=word)
                await pass_on(word)
            yield line

    @app.agent()
    async def count(stream: streamlog.Stream[str, str]) -> None:
        async for word in stream:
            assert sent.name != word, "looking at a topic fills nothing"

    @app.agent(sunk, name="last")
    async def last(stream: streamlog.Stream[str, str]) -> None:
        async for word in stream:
            assert word

    @app.agent(sent)
    async def see(stream: streamlog.Stream[str, str]) -> None:
        async for word in stream:
            assert word

    what = reset_of(app.topology(), app.agents)
    assert what.inputs == ("lines",)
    assert what.refilled == {
        "filling-count": "agent split",
        "passed": "agent split-1",
        "sent": "agent split",
        "sunk": "agent split",
    }
