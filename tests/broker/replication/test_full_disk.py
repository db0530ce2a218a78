"""A follower whose disk is full: it waits for room without a noise, and is in sync again once there is some."""

from __future__ import annotations

import asyncio
import errno
import logging
from pathlib import Path

import pytest

from tests.broker.log.faulty_storage import faulty_env
from tests.broker.nodes import combined, nodes
from tests.broker.replication.test_cluster import Replicated


async def test_a_follower_without_room_tries_less_and_less_often_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each attempt fetches all that it cannot store, so tries at once and for ever cost the leader, too."""
    caplog.set_level(logging.WARNING, "streamlog.broker")
    env, faults = faulty_env()
    attempts: list[float] = []
    async with nodes(tmp_path, combined(), None) as found:
        full = f"{found.directory(3)}/t-0/"

        def refuse(name: str, path: str) -> None:
            if name == "append" and path.startswith(full):
                attempts.append(asyncio.get_running_loop().time())
                raise OSError(errno.ENOSPC, "No space left on device")

        found.env = env
        await found.start()
        cluster = Replicated(found)
        await cluster.create(assignment=[1, 2, 3])
        await cluster.in_sync(1, 2, 3)
        caplog.clear()
        faults.before = refuse
        await cluster.produce(b"v", acks=1)
        await found.until(lambda: len(attempts) >= 6)
        assert attempts[5] - attempts[0] >= 0.020 + 0.040 + 0.080 + 0.160 + 0.320
        assert ["refusing-writes" in line for line in caplog.messages] == [True]
        faults.before = lambda name, path: None
        await cluster.in_sync(1, 2, 3)
        await cluster.produce(b"w")
        cluster.check_logs()
