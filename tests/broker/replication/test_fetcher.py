"""The loop that follows one leader, against a leader that answers when the test likes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

from streamlog.broker.disk_watch import DiskWatch
from streamlog.broker.log.config import LogConfig
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.partition import Partition
from streamlog.broker.replication.fetcher import Fetcher
from streamlog.broker.replication.follower import FollowerState
from streamlog.broker.replication.leader import IsrProposal
from streamlog.broker.replication.settings import FetchSettings
from streamlog.env import Scope, real_env
from streamlog.wire.frames import decode_request_header, encode_response_parts
from streamlog.wire.messages.api_versions import ApiVersion, ApiVersionsResponse
from streamlog.wire.messages.fetch import FetchRequest

TOPIC_ID = UUID(int=7)


class SlowLeader:
    """Tells what it serves when `may_answer`, and then keeps the first fetch."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.fetch: asyncio.Future[FetchRequest] = asyncio.get_running_loop().create_future()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header, _ = decode_request_header(await self._read(reader))
        self.is_asked.set()
        await self.may_answer.wait()
        offered = ApiVersionsResponse(
            api_keys=[ApiVersion(api_key=FetchRequest.api_key, min_version=4, max_version=17)]
        )
        for part in encode_response_parts(18, header.request_api_version, header.correlation_id, offered):
            writer.write(part)
        frame = await self._read(reader)
        header, position = decode_request_header(frame)
        self.fetch.set_result(FetchRequest.decode(frame, header.request_api_version, position))
        await reader.read()
        writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


class NoChanges:
    def submit(self, partition: Partition, proposal: IsrProposal) -> None:
        raise AssertionError("followers propose nothing")


async def test_a_partition_may_leave_while_its_fetcher_connects(tmp_path: Path) -> None:
    """The others are fetched then: it is not looked up among those that are followed."""
    env, leader = real_env(), SlowLeader()
    server = await asyncio.start_server(leader.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    logs = LogDirectory.open(env, str(tmp_path), node_id=2, now_ms=0)
    async with Scope("test") as scope:
        flusher = Flusher(env, scope)

        def follower_of(index: int) -> Partition:
            log = logs.open_partition("t", index, TOPIC_ID, LogConfig(), 0)
            watch = DiskWatch(env.clock)
            partition = Partition("t", index, TOPIC_ID, log, flusher, scope, watch, env.clock, NoChanges())
            partition.follow(1, FollowerState(1, 1, 1000), 2)
            return partition

        fetcher = Fetcher(
            env,
            scope,
            flusher,
            FetchSettings(),
            node_id=2,
            leader_id=1,
            address=lambda: (host, port),
            own_broker_epoch=lambda: 1,
            may_fetch=lambda partition: True,
            on_bytes=lambda partition, count: None,
            save_log_starts=lambda: None,
        )
        stays, leaves = follower_of(0), follower_of(1)
        fetcher.follow(stays)
        fetcher.follow(leaves)
        await leader.is_asked.wait()
        fetcher.leave(leaves)
        leader.may_answer.set()
        async with asyncio.timeout(10):
            request = await leader.fetch
        assert (0, 0) in [(at.partition, at.fetch_offset) for topic in request.topics for at in topic.partitions]
        fetcher.leave(stays)
    server.close()
    logs.close()
    env.offload.close()
