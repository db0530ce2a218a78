"""A broker that is frozen keeps its connections and answers nothing; what any other can answer is asked there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamlog.client.admin import Admin
from streamlog.client.config import ConnectionSettings
from streamlog.env import Env


@pytest.fixture
async def frozen() -> AsyncIterator[str]:
    """Accepts, and never says a word."""
    gone = asyncio.Event()

    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.transport.abort()

    server = await asyncio.start_server(stay, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    gone.set()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("seed", range(4))
async def test_a_cluster_is_reached_although_one_address_is_frozen(
    frozen: str, bootstrap: str, env: Env, seed: int
) -> None:
    """Whichever is asked first, in far less than a connection's timeout."""
    settings = ConnectionSettings(question_timeout_ms=200)
    async with asyncio.timeout(5), Admin([frozen, bootstrap], env=env, connection=settings) as admin:
        assert (await admin.describe_cluster()).brokers
