"""Reading from a broker that lost data, changes its mind, or sends damage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamlog.client.config import ConnectionSettings
from streamlog.client.consumer import Consumer
from streamlog.client.fetched import OffsetReset
from streamlog.client.values import TopicPartition
from streamlog.env import Env
from streamlog.wire.error_codes import ErrorCode, KafkaError
from tests.client.fake_broker import FakeBroker, batch, fake_broker

ZERO = TopicPartition("t", 0)


@pytest.fixture
async def fake() -> AsyncIterator[FakeBroker]:
    async with fake_broker() as broker:
        yield broker


def consumer(fake: FakeBroker, env: Env, offset_reset: OffsetReset = "earliest") -> Consumer:
    quick = ConnectionSettings(metadata_max_age_ms=100, retry_backoff_ms=5, reconnect_backoff_ms=5)
    made = Consumer(
        f"127.0.0.1:{fake.port}", env=env, auto_offset_reset=offset_reset, connection=quick, fetch_max_wait_ms=200
    )
    made.assign([ZERO])
    return made


async def offsets(reader: Consumer) -> list[int]:
    async with asyncio.timeout(10):
        while True:
            batches = await reader.fetch(timeout_ms=1_000)
            if batches:
                return batches[0].columns.offsets


async def test_a_truncated_log_is_noticed_and_read_again_from_where_it_diverged(fake: FakeBroker, env: Env) -> None:
    """After an unclean election the new leader ends the old epoch earlier than we read (KIP-320)."""
    fake.batches = {0: batch(0, 10)}
    async with consumer(fake, env) as reader:
        assert await offsets(reader) == list(range(10))
        fake.batches = {6: batch(6, 3, leader_epoch=1), 10: batch(10, 1, leader_epoch=1)}
        fake.epoch_end = (0, 6)
        fake.leader_epoch = 1
        fake.close_connections()
        assert await offsets(reader) == [6, 7, 8]


async def test_a_truncated_log_is_an_error_without_a_reset_policy(fake: FakeBroker, env: Env) -> None:
    """Nothing is skipped and nothing is read twice behind the application's back."""
    fake.batches = {0: batch(0, 10)}
    async with consumer(fake, env, "none") as reader:
        reader.seek(ZERO, 0)
        assert await offsets(reader) == list(range(10))
        fake.epoch_end = (0, 6)
        fake.leader_epoch = 1
        fake.close_connections()
        with pytest.raises(KafkaError, match="was truncated to offset 6 after 10 had been read") as refused:
            await offsets(reader)
        assert refused.value.code is ErrorCode.OFFSET_OUT_OF_RANGE


async def test_a_new_leader_that_has_everything_goes_on(fake: FakeBroker, env: Env) -> None:
    """The epoch is checked once, and reading continues where it was."""
    fake.batches = {0: batch(0, 10)}
    async with consumer(fake, env) as reader:
        assert await offsets(reader) == list(range(10))
        fake.batches = {10: batch(10, 2, leader_epoch=1)}
        fake.epoch_end = (0, 10)
        fake.leader_epoch = 1
        fake.close_connections()
        assert await offsets(reader) == [10, 11]


async def test_damaged_records_are_an_error_and_the_position_stays(fake: FakeBroker, env: Env) -> None:
    """A flipped bit is told; when the broker has mended itself, the same records come."""
    damaged = bytearray(batch(0, 3))
    damaged[-1] ^= 1
    fake.batches = {0: bytes(damaged)}
    async with consumer(fake, env) as reader:
        with pytest.raises(KafkaError, match="t-0 at offset 0 is damaged") as refused:
            await offsets(reader)
        assert refused.value.code is ErrorCode.CORRUPT_MESSAGE
        fake.batches = {0: batch(0, 3)}
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await offsets(reader) == [0, 1, 2]
                    break
                except KafkaError as again:
                    assert again.code is ErrorCode.CORRUPT_MESSAGE  # noqa: PT017  # fetched ahead, before it was mended


async def test_bytes_that_are_no_batch_are_an_error_of_that_partition(fake: FakeBroker, env: Env) -> None:
    """The consumer lives, and goes on when the broker makes sense again."""
    fake.batches = {0: b"x" * 200}
    async with consumer(fake, env) as reader:
        with pytest.raises(KafkaError, match="cannot read t-0 at offset 0"):
            await offsets(reader)
        fake.batches = {0: batch(0, 1)}
        assert await offsets(reader) == [0]


async def test_passing_errors_are_retried_with_fresh_metadata(fake: FakeBroker, env: Env) -> None:
    """A broker that is not the leader yet is asked again, not reported."""
    fake.error_code = ErrorCode.NOT_LEADER_OR_FOLLOWER
    async with consumer(fake, env) as reader:
        assert await reader.fetch(timeout_ms=200) == []
        assert 1 < fake.fetches < 100, "neither once nor in a frenzy"
        fake.error_code = ErrorCode.NONE
        fake.batches = {0: batch(0, 2)}
        assert await offsets(reader) == [0, 1]


async def test_nothing_is_left_behind_after_closing(fake: FakeBroker, env: Env) -> None:
    """No task survives its consumer."""
    fake.batches = {0: batch(0, 1)}
    before = len(asyncio.all_tasks())
    async with consumer(fake, env) as reader:
        assert await offsets(reader) == [0]
        assert len(asyncio.all_tasks()) > before
    assert len(asyncio.all_tasks()) == before
