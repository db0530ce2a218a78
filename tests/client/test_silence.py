"""A broker that is frozen on an open connection: who waits for it is told whom for."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from streamlog.client.admin import Admin
from streamlog.client.config import Address
from streamlog.client.silence import SilenceWatch
from streamlog.env import real_env
from tests.broker.coordinator.broker_process import BrokerProcess


def test_it_is_said_once_for_all_connections(caplog: pytest.LogCaptureFixture) -> None:
    """And once more, when any of them has its answer."""
    caplog.set_level(logging.WARNING)
    watch, address = SilenceWatch(), Address("10.0.0.1", 9092)
    watch.on_answer(address)
    for _ in range(3):
        watch.on_silent(address, "ProduceResponse", 5_000, 25_000)
    for _ in range(2):
        watch.on_answer(address)
    assert [record.getMessage() for record in caplog.records] == [
        "broker=10.0.0.1:9092 is connected and has sent no ProduceResponse for 5 s; giving it up to 25 s more",
        "broker=10.0.0.1:9092 answers again",
    ]


async def test_a_frozen_broker_is_named_after_some_seconds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Long before the request is given up; and what it was asked is answered when it goes on."""
    caplog.set_level(logging.WARNING, "streamlog.client.silence")

    async def said(words: str) -> None:
        async with asyncio.timeout(20):
            while not any(words in record.getMessage() for record in caplog.records):
                await asyncio.sleep(0.02)

    with BrokerProcess(tmp_path) as broker:
        async with Admin(broker.address, env=real_env()) as admin:
            await admin.list_topics()
            broker.freeze()
            try:
                asking = asyncio.ensure_future(admin.list_topics())
                await said(f"broker={broker.address} is connected and has sent no MetadataResponse for 5 s")
            finally:
                broker.thaw()
            assert await asking == []
            await said("answers again")
    assert len(caplog.records) == 2
