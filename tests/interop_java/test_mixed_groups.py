"""One group of a consumer of ours and one of Kafka's: they agree on who reads what, and nothing is passed over."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from streamlog.client.admin import Admin, NewTopic
from streamlog.client.assignors import Assignor, CooperativeStickyAssignor, RangeAssignor
from streamlog.client.consumer import Consumer
from streamlog.client.producer import Producer
from streamlog.env import real_env
from tests.broker.coordinator.broker_process import BrokerProcess

pytestmark = [pytest.mark.interop_java, pytest.mark.timeout(300)]

TOPIC, GROUP, PARTITIONS = "mixed", "g", 6
PATIENCE_S = 60.0


class Ours:
    """Our consumer, which reads what comes from now on and commits by the clock."""

    def __init__(self, address: str, assignor: Assignor) -> None:
        self.read: Counter[bytes] = Counter()
        self._consumer = Consumer(
            address,
            env=real_env(),
            group_id=GROUP,
            assignors=[assignor],
            auto_offset_reset="latest",
            auto_commit=True,
            session_timeout_ms=10_000,
        )

    @property
    def owned(self) -> set[int]:
        return {one.partition for one in self._consumer.assignment()}

    async def run(self) -> None:
        async with self._consumer as consumer:
            consumer.subscribe([TOPIC])
            while True:
                for batch in await consumer.fetch(timeout_ms=200):
                    self.read.update(value or b"" for value in batch.columns.values)


class Javas:
    """Kafka's, which says in lines of JSON what it does."""

    def __init__(self, address: str, assignor: Assignor, libs: Path) -> None:
        self.read: Counter[bytes] = Counter()
        self.owned: set[int] = set()
        name = {"cooperative-sticky": "CooperativeStickyAssignor", "range": "RangeAssignor"}[assignor.name]
        self._command = [
            *("java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{libs}/*"),
            *("org.apache.kafka.tools.VerifiableConsumer", "--bootstrap-server", address, "--topic", TOPIC),
            *("--group-id", GROUP, "--reset-policy", "latest", "--enable-autocommit", "--verbose"),
            *("--session-timeout", "10000", "--group-protocol", "classic"),
            *("--assignment-strategy", f"org.apache.kafka.clients.consumer.{name}"),
        ]

    async def run(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert process.stdout is not None
        try:
            await self._listen(process.stdout)
        except asyncio.CancelledError:
            process.terminate()  # it commits and leaves
            await self._listen(process.stdout)
            raise
        finally:
            await process.wait()

    async def _listen(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            said = json.loads(line)
            match said["name"]:
                case "partitions_assigned":
                    self.owned |= {one["partition"] for one in said["partitions"]}
                case "partitions_revoked":
                    self.owned -= {one["partition"] for one in said["partitions"]}
                case "record_data":
                    self.read[said["value"].encode()] += 1
                case _:
                    pass


@asynccontextmanager
async def running(member: Ours | Javas) -> AsyncIterator[None]:
    """A member that comes, and leaves in order."""
    task = asyncio.ensure_future(member.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"no {what} within {PATIENCE_S:g} s") from None


@pytest.mark.parametrize("first", ["ours", "java"])
@pytest.mark.parametrize("assignor", [RangeAssignor, CooperativeStickyAssignor])
async def test_members_of_both_kinds_share_a_group_and_pass_nothing_over(
    kafka_libs: Path, tmp_path: Path, first: str, assignor: type[Assignor]
) -> None:
    """The first to come leads until it leaves. Records come all the time, and `latest` is where each begins."""
    sent: list[bytes] = []

    async def write(producer: Producer) -> None:
        while True:
            for partition in range(PARTITIONS):
                value = b"%d" % len(sent)
                await producer.send(TOPIC, value, partition=partition)
                sent.append(value)
            await asyncio.sleep(0.02)

    with BrokerProcess(tmp_path / "data") as broker:
        ours, javas = Ours(broker.address, assignor()), Javas(broker.address, assignor(), kafka_libs)
        leader, other = (ours, javas) if first == "ours" else (javas, ours)
        everything = set(range(PARTITIONS))
        async with (
            Admin(broker.address, env=real_env()) as admin,
            Producer(broker.address, env=real_env()) as producer,
            AsyncExitStack() as stack,
        ):
            await admin.create_topics([NewTopic(TOPIC, partitions=PARTITIONS, replication_factor=1)])
            async with running(leader):
                await until(lambda: leader.owned == everything, "ownership of everything")
                async with asyncio.timeout(PATIENCE_S):
                    while len(await admin.list_group_offsets(GROUP)) < PARTITIONS:  # though nothing was read
                        await asyncio.sleep(0.2)
                writing = asyncio.ensure_future(write(producer))
                stack.callback(writing.cancel)
                await stack.enter_async_context(running(other))
                await until(lambda: len(leader.owned) == len(other.owned) == PARTITIONS / 2, "sharing")
                assert leader.owned | other.owned == everything
                shared_at = len(sent)
                await until(lambda: len(sent) > shared_at + 300, "writing")
            await until(lambda: other.owned == everything, "handing over")
            writing.cancel()
            await asyncio.wait([writing])
            await until(lambda: set(ours.read) | set(javas.read) >= set(sent), "reading of everything")
        assert ours.read
        assert javas.read
        # Auto commit is at least once: what was read just before a partition moved may be read again, seldom much.
        assert sum(count - 1 for count in (ours.read + javas.read).values()) < len(sent) / 50
