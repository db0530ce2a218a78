"""Records leave while the lease is held, and only then: whatever the broker, the connection and time do meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from streamlog.client.config import ConnectionSettings
from streamlog.client.consumer import Consumer
from streamlog.client.failures import DeliveryUnknown, NotDelivered
from streamlog.client.lease import Lease
from streamlog.client.producer import Producer
from streamlog.client.values import TopicPartition
from streamlog.env import Env
from tests.client.test_producer import NOW_MS, read_all
from tests.proxy import Proxy

LONG_MS = 60_000

ABSENCE_S = 0.3
"""What is let pass before we look that nothing came: a hundred times what records take."""


def hold(lease: Lease, env: Env) -> None:
    lease.give(env.clock.mono_ms() + LONG_MS)


def lapse(lease: Lease, env: Env) -> None:
    lease.give(env.clock.mono_ms())


async def values(bootstrap: str, env: Env, topic: str) -> list[bytes | None]:
    """All there are in partition 0."""
    return [one.value for one in (await read_all(bootstrap, env, topic)).get(0, [])]


async def end_offset(bootstrap: str, env: Env, topic: str) -> int:
    one = TopicPartition(topic, 0)
    async with Consumer(bootstrap, env=env) as consumer:
        return (await consumer.end_offsets([one]))[one]


async def test_records_wait_while_the_lease_has_run_out_and_go_when_it_is_prolonged(
    bootstrap: str, env: Env, topic: str
) -> None:
    """Also what was taken before it ran out and had not left yet. They go in order, once."""
    lease = Lease(env.clock)
    hold(lease, env)
    async with asyncio.timeout(30), Producer(bootstrap, env=env, lease=lease, linger_ms=20) as producer:
        await producer.send(topic, b"0", partition=0)
        producer.append(topic, 0, None, b"1", NOW_MS)  # lingers
        lapse(lease, env)
        second = producer.send_nowait(topic, b"2", partition=0)
        producer.hurry()
        third = producer.send_nowait(topic, b"3", partition=0)
        producer.hurry()
        await asyncio.sleep(ABSENCE_S)
        assert await end_offset(bootstrap, env, topic) == 1
        hold(lease, env)
        assert [(await one).offset for one in (second, third)] == [2, 3]
        await producer.flush()
    assert await values(bootstrap, env, topic) == [b"0", b"1", b"2", b"3"]


async def test_a_lease_ends_by_itself(bootstrap: str, env: Env, topic: str) -> None:
    """Nobody has to say so: a process that was frozen hears nothing before it goes on."""
    lease = Lease(env.clock)
    hold(lease, env)
    async with asyncio.timeout(30), Producer(bootstrap, env=env, lease=lease) as producer:
        await producer.send(topic, b"0", partition=0)
        lease.give(env.clock.mono_ms() + 50)
        while lease.held:
            await asyncio.sleep(0.01)
        late = producer.send_nowait(topic, b"late", partition=0)
        producer.hurry()
        await asyncio.sleep(ABSENCE_S)
        assert not late.done()
        assert await end_offset(bootstrap, env, topic) == 1
        lease.give(None)
        with pytest.raises(NotDelivered, match="others have taken over"):
            await late


async def test_what_waits_when_the_lease_is_lost_fails_and_the_next_batches_go_through(
    bootstrap: str, env: Env, topic: str
) -> None:
    """So does what comes while it is lost. Nothing of both is ever sent, and no gap of numbers stops the partition."""
    lease = Lease(env.clock)
    hold(lease, env)
    async with asyncio.timeout(30), Producer(bootstrap, env=env, lease=lease) as producer:
        await producer.send(topic, b"0", partition=0)
        lapse(lease, env)
        producer.append(topic, 0, None, b"lost", NOW_MS)
        flushed = asyncio.ensure_future(producer.flush())
        await asyncio.sleep(ABSENCE_S)
        assert not flushed.done()
        lease.give(None)
        with pytest.raises(NotDelivered):
            await flushed
        for _ in range(3):
            with pytest.raises(NotDelivered, match="others have taken over"):
                await producer.send(topic, b"lost too", partition=0)
        lingering = producer.send_nowait(topic, b"lost as well", partition=0)
        await asyncio.sleep(0)
        hold(lease, env)
        sent = [producer.send_nowait(topic, b"%d" % index, partition=0) for index in range(1, 4)]
        assert [(await one).offset for one in sent] == [1, 2, 3]
        with pytest.raises(NotDelivered):
            await lingering
    assert await values(bootstrap, env, topic) == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("lost", [False, True], ids=["prolonged", "lost"])
async def test_a_batch_in_doubt_is_not_sent_again_without_the_lease(
    proxy: Proxy, env: Env, topic: str, lost: bool
) -> None:
    """It was sent in time and its answer got lost. A retry of who has lost the right would be as late as any write."""
    lease = Lease(env.clock)
    hold(lease, env)
    settings = ConnectionSettings(request_timeout_ms=500, retry_backoff_ms=10)
    async with (
        asyncio.timeout(30),
        Producer(proxy.bootstrap, env=env, lease=lease, connection=settings) as producer,
    ):
        await producer.send(topic, b"0", partition=0)
        proxy.swallowing = True
        doubtful = producer.send_nowait(topic, b"1", partition=0)
        producer.hurry()
        await asyncio.sleep(ABSENCE_S)
        lapse(lease, env)
        proxy.cut()
        proxy.swallowing = False
        behind = producer.send_nowait(topic, b"2", partition=0)
        await asyncio.sleep(ABSENCE_S)
        assert not doubtful.done()
        assert not behind.done()
        if lost:
            lease.give(None)
            with pytest.raises(DeliveryUnknown):
                await doubtful
            with pytest.raises(NotDelivered):
                await behind
            hold(lease, env)
            assert (await producer.send(topic, b"3", partition=0)).offset == 2
            assert (await producer.send(topic, b"4", partition=0)).offset == 3
            assert await values(proxy.bootstrap, env, topic) == [b"0", b"1", b"3", b"4"]
        else:
            hold(lease, env)
            await doubtful
            assert (await behind).offset == 2
            assert await values(proxy.bootstrap, env, topic) == [b"0", b"1", b"2"]


async def test_a_batch_in_flight_when_the_lease_is_lost_has_no_second_attempt(
    proxy: Proxy, env: Env, topic: str
) -> None:
    """Not even under the next lease: its answer never comes, and then nobody knows what became of it."""
    lease = Lease(env.clock)
    hold(lease, env)
    settings = ConnectionSettings(retry_backoff_ms=10)
    async with (
        asyncio.timeout(30),
        Producer(proxy.bootstrap, env=env, lease=lease, connection=settings) as producer,
    ):
        await producer.send(topic, b"0", partition=0)
        proxy.swallowing = True
        doubtful = producer.send_nowait(topic, b"1", partition=0)
        producer.hurry()
        await asyncio.sleep(ABSENCE_S)
        lease.give(None)
        hold(lease, env)
        proxy.cut()
        proxy.swallowing = False
        with pytest.raises(DeliveryUnknown):
            await doubtful
        assert (await producer.send(topic, b"2", partition=0)).offset == 2


async def test_a_request_without_an_answer_is_broken_off_when_the_lease_runs_out(
    proxy: Proxy, env: Env, topic: str
) -> None:
    """Long before its own time is up: what of it is still in this machine must not leave later."""
    lease = Lease(env.clock)
    hold(lease, env)
    async with asyncio.timeout(30), Producer(proxy.bootstrap, env=env, lease=lease) as producer:
        await producer.send(topic, b"0", partition=0)
        connections = proxy.connections
        proxy.swallowing = True
        doubtful = producer.send_nowait(topic, b"1", partition=0)
        producer.hurry()
        lease.give(env.clock.mono_ms() + 300)
        await asyncio.sleep(2 * ABSENCE_S)
        assert not doubtful.done()
        proxy.swallowing = False
        hold(lease, env)
        await doubtful
        assert proxy.connections > connections, "on the old one its answer was still to come"
    assert await values(proxy.bootstrap, env, topic) == [b"0", b"1"]


async def test_a_consumer_holds_the_lease_as_long_as_it_is_a_member(bootstrap: str, env: Env, topic: str) -> None:
    """From its first generation, beyond several heartbeats, to its leaving; not longer than a session from any."""
    lease = Lease(env.clock)
    async with (
        asyncio.timeout(30),
        Consumer(
            bootstrap,
            env=env,
            group_id=f"g-{topic}",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=200,
            lease=lease,
        ) as consumer,
    ):
        assert lease.lost
        changes: list[int] = []
        lease.on_change(lambda: changes.append(env.clock.mono_ms()))
        consumer.subscribe([topic])
        while not consumer.assignment() or len(changes) < 5:
            await consumer.fetch(timeout_ms=50)
            assert lease.lost == (not changes)
        assert lease.held
    assert lease.lost
