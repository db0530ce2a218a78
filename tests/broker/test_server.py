"""Listening."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from streamlog.broker.connection import Answer, Connection
from streamlog.broker.server import Server
from streamlog.env import real_env
from streamlog.errors import EnvironmentFailure


class Unasked:
    """A dispatcher that no request reaches."""

    def serve(self, connection: Connection, frame: memoryview) -> Answer:
        raise AssertionError("there are no clients")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_port_is_held_from_the_moment_it_is_bound(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Two brokers that started at once on one port both said that they were ready, and one got the other's clients."""

    async def listen_twice() -> None:
        env = real_env()
        first, second = (
            Server(
                env,
                Unasked(),
                request_bytes_max=1 << 20,
                connections_max=10,
                connections_per_ip_max=10,
                connection_idle_ms_max=1_000,
            )
            for _ in range(2)
        )
        try:
            port = await first.listen("PLAINTEXT", "127.0.0.1", 0)
            with pytest.raises(EnvironmentFailure, match="in use"):
                await second.listen("PLAINTEXT", "127.0.0.1", port)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b"", "not started: nobody is served"
            writer.close()
        finally:
            await first.close()
            await second.close()
            env.offload.close()

    run(listen_twice())
