"""Reads of tables whose rows are where other partitioners put them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import streamlog
from streamlog.client.producer import Producer
from streamlog.env import real_env
from streamlog.web.answers import Found, GetMany, Staleness
from streamlog.web.elsewhere import ROWS_TELLING_MIN, get_anywhere, is_elsewhere
from streamlog.web.http import HttpClient
from streamlog.web.server import WebServer

STALENESS = Staleness(partition=0, state="running", position=None, lag=0, committed=False, behind=0)


@pytest.mark.parametrize("rows", [4, 40])
async def test_rows_are_found_wherever_a_topics_producers_put_them(rows: int, tmp_path: Path) -> None:
    """By key, by many, and by watching, through a client and through HTTP; keys that are nowhere are not found."""
    app = streamlog.App("planes", partitions=4)
    planes = app.topic("planes", key=str, value=str, partitions=4)
    events = app.topic("events", key=str, value=str, partitions=4)
    table = app.Table("by_tail", key=str, value=str, source=planes)

    @app.agent(events.stream().join(table))
    async def look(stream: streamlog.Stream[str, tuple[str, str]]) -> None:
        async for _ in stream:
            pass

    server = WebServer(port=0)
    async with app.running(data_dir=str(tmp_path / "data"), extensions=[server]) as worker:
        async with Producer(worker.broker, env=real_env()) as producer:
            for number in range(rows):  # round and round, as no hash does
                value = b'"%d"' % number
                await producer.send("planes", value, key=b"N%d" % number, partition=number % 4)
        async with streamlog.connect_async(worker.broker, app=app) as live:
            found = live.table("by_tail", key=str, value=str)
            expected = {f"N{number}": str(number) for number in range(rows)}
            async with asyncio.timeout(30):
                while await found.count() < rows:
                    await asyncio.sleep(0.05)
            assert {key: await found.get(key) for key in expected} == expected
            assert await found.get_many([*expected, "nowhere"]) == expected
            assert await found.get("nowhere") is None
            ready = asyncio.Event()
            watching = asyncio.ensure_future(anext(aiter(found.watch("N3", ready=ready))))
            async with asyncio.timeout(30):
                await ready.wait()
                async with Producer(worker.broker, env=real_env()) as producer:
                    await producer.send("planes", b'"new"', key=b"N3", partition=0)
                assert (await watching).value == "new"
        assert worker.endpoint is not None
        http = HttpClient()
        statuses = [
            (await http.request(worker.endpoint, "GET", f"/tables/by_tail/{key}", timeout_s=10)).status
            for key in (*expected, "nowhere")
        ]
        await http.close()
        assert statuses == [200] * rows + [404]


async def test_only_a_partition_with_misplaced_rows_sends_readers_elsewhere() -> None:
    """Where all rows are at home, a key that is missing costs one request."""
    asked: list[int] = []

    async def ask(wanted: GetMany) -> Found:
        asked.append(wanted.partition)
        return Found(values=[None for _ in wanted.keys], staleness=STALENESS)

    found = await get_anywhere(ask, GetMany(partition=2, keys=[b"a", b"b"]), 4)
    assert (found.values, asked) == ([None, None], [2])


def test_few_rows_prove_nothing_and_one_stranger_does() -> None:
    """Rows at home are believed when there are enough of them."""
    at_home = [key for key in (b"%d" % number for number in range(400)) if not is_elsewhere([key] * 20, 1, 4)]
    assert len(at_home) > ROWS_TELLING_MIN
    assert not is_elsewhere(at_home, 1, 4)
    assert is_elsewhere(at_home[: ROWS_TELLING_MIN - 1], 1, 4)
    stranger = next(key for key in (b"%d" % number for number in range(400)) if key not in at_home)
    assert is_elsewhere([*at_home, stranger], 1, 4)
    assert not is_elsewhere([], 0, 1)
