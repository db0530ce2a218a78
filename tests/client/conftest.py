"""A broker for the whole session, and for each test a topic of its own and clients that are closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count

import pytest

from streamlog.client.admin import Admin, NewTopic
from streamlog.env import Env, real_env
from tests.brokers import BrokerUnderTest, broker_under_test
from tests.proxy import Proxy

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def broker() -> Iterator[BrokerUnderTest]:
    """The node that tests run against."""
    with broker_under_test() as node:
        yield node


@pytest.fixture
def bootstrap(broker: BrokerUnderTest) -> str:
    """Its address."""
    return broker.bootstrap


@pytest.fixture
def env() -> Iterator[Env]:
    """The machine itself."""
    real = real_env()
    yield real
    real.offload.close()


@pytest.fixture
async def admin(bootstrap: str, env: Env) -> AsyncIterator[Admin]:
    """An open admin client."""
    async with Admin(bootstrap, env=env, timeout_ms=20_000) as client:
        yield client


@pytest.fixture
def name() -> Callable[[str], str]:
    """Makes names that no other test uses."""
    return lambda what: f"{what}-{next(_NUMBERS)}"


@pytest.fixture
async def topic(admin: Admin, name: Callable[[str], str]) -> str:
    """A new topic with three partitions."""
    made = name("topic")
    await admin.create_topics([NewTopic(made, partitions=3, replication_factor=1)])
    return made


@pytest.fixture
async def proxy(broker: BrokerUnderTest) -> AsyncIterator[Proxy]:
    """A proxy in front of a listener of the broker, which advertises the proxy's address."""
    if broker.proxied is None:
        pytest.skip("this broker has no listener that advertises a proxy")
    async with Proxy(broker.proxy_port, broker.proxied) as between:
        yield between
