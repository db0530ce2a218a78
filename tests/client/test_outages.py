"""What the log says of a broker that does not answer: at once, now and then, and when it is over."""

from __future__ import annotations

import logging

import pytest

from streamlog.client.cluster import Cluster
from streamlog.client.config import Address, ConnectionSettings
from streamlog.client.failures import BrokerUnreachable
from streamlog.client.outages import REMINDER_MS, Outages
from streamlog.env import Env
from tests.client.fake_broker import fake_broker
from tests.kafka_node import free_port
from tests.proxy import Proxy

ONE, OTHER = Address("one", 1), Address("other", 2)


def test_an_outage_is_reported_at_first_and_then_every_so_often() -> None:
    """Many failures, few lines, each address for itself."""
    outages = Outages()
    said = [at for at in range(0, 3 * REMINDER_MS, 100) if outages.on_failure(ONE, at) is not None]
    assert said == [0, REMINDER_MS, 2 * REMINDER_MS]
    assert outages.on_failure(OTHER, 50) is not None


def test_the_end_of_an_outage_is_reported_once() -> None:
    """With how long it took; connections to a healthy broker say nothing."""
    outages = Outages()
    assert outages.on_success(ONE) is None
    outages.on_failure(ONE, 1_000)
    outages.on_failure(ONE, 2_000)
    over = outages.on_success(ONE)
    assert over is not None
    assert (over.attempts, over.lasted_s(3_000)) == (2, 2.0)
    assert outages.on_success(ONE) is None


async def test_a_broker_that_is_not_there_is_named_in_the_log_at_once(
    env: Env, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning with the address, not one for every attempt."""
    address = f"127.0.0.1:{free_port()}"
    cluster = Cluster(address, env, ConnectionSettings(reconnect_backoff_ms=10, retry_backoff_ms=10))
    with caplog.at_level(logging.WARNING, "streamlog.client"), pytest.raises(BrokerUnreachable):
        await cluster.open(timeout_ms=500)
    await cluster.close()
    assert [one.levelname for one in caplog.records] == ["WARNING"]
    assert f"no broker reached, trying again: cannot connect to {address}" in caplog.text


async def test_a_broker_that_does_not_answer_is_named_while_we_wait(env: Env, caplog: pytest.LogCaptureFixture) -> None:
    """A host that drops packets, or a process that is stopped: connecting takes ten seconds, the log does not."""
    async with fake_broker() as broker:
        broker.mute = True
        cluster = Cluster(f"127.0.0.1:{broker.port}", env, ConnectionSettings(connect_slow_ms=50))
        with caplog.at_level(logging.WARNING, "streamlog.client"), pytest.raises(BrokerUnreachable):
            await cluster.open(timeout_ms=500)
        await cluster.close()
        assert f"broker=127.0.0.1:{broker.port} has not answered for 0.05 s; giving it up to 10 s" in caplog.text


async def test_a_broker_that_comes_back_is_said_to_be_back(env: Env, caplog: pytest.LogCaptureFixture) -> None:
    """A known broker that is gone is a warning with its address; the end of that is a line as well."""
    async with fake_broker() as broker:
        listening, broker.port = broker.port, free_port()  # it advertises an address where nobody is yet
        settings = ConnectionSettings(reconnect_backoff_ms=10, retry_backoff_ms=10)
        cluster = Cluster(f"127.0.0.1:{listening}", env, settings)
        with caplog.at_level(logging.INFO, "streamlog.client"):
            await cluster.open()
            for _ in range(2):
                with pytest.raises(BrokerUnreachable):
                    await cluster.connection(1)
            async with Proxy(broker.port, ("127.0.0.1", listening)):
                await cluster.connection(1)
                await cluster.close()
    lines = [(one.levelname, one.getMessage().split(":", 2)[1]) for one in caplog.records]
    assert lines[0] == ("WARNING", f"{broker.port} is unreachable, trying again")
    assert len(lines) == 2
    assert f"broker=127.0.0.1:{broker.port} is back after" in caplog.records[1].getMessage()
