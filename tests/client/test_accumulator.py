"""The producer's core against a model broker that refuses, forgets and answers late."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlog.client.accumulator import DEFINITE, Accumulator, Limits, Verdict
from streamlog.client.producer_queue import NO_IDENTITY, Batch, PartitionKey, ProducerIdentity
from streamlog.errors import LocalProtocolError
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.records import Compression, decode_batch_header, decode_records

KEY = ("t", 0)
NODE = 1


class Driver:
    """What the accumulator asks of its driver: time by hand, one leader, no jitter."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.leader_id: int | None = NODE
        self.ready = 0

    def opening_batch(self) -> int:
        return self.now_ms

    def check_partition(self, key: PartitionKey) -> None:
        """Every partition may exist."""

    def batch_ready(self) -> None:
        self.ready += 1

    def leader(self, key: PartitionKey) -> int | None:
        return self.leader_id

    def draw(self) -> float:
        return 0.5

    def may_send(self, key: PartitionKey) -> bool:
        return True

    def on_gap(self, key: PartitionKey) -> None:
        raise AssertionError("there are no transactions here")


def made(driver: Driver, *, idempotent: bool = True, batch_size_bytes: int = 300, linger_ms: int = 5) -> Accumulator:
    accumulator = Accumulator(
        Limits(batch_size_bytes, 1_000_000, linger_ms, 10_000, 100, 1_000, idempotent, Compression.NONE, None), driver
    )
    if idempotent:
        accumulator.identity = ProducerIdentity(7, 0)
    return accumulator


def add(accumulator: Accumulator, *values: int) -> None:
    for value in values:
        accumulator.append(KEY, None, b"%d" % value, 1_000, ())


def contents(batch: Batch) -> list[int]:
    assert batch.encoded is not None
    return [int(value or b"") for value in decode_records(batch.encoded).values]


def drained(accumulator: Accumulator, now_ms: int) -> list[Batch]:
    return [batch for _, batch in accumulator.drain(NODE, now_ms)]


def test_a_batch_leaves_when_its_linger_is_over() -> None:
    """Not before, and then with everything appended so far."""
    driver = Driver()
    accumulator = made(driver)
    add(accumulator, 1, 2)
    accumulator.close_lingering(4)
    assert drained(accumulator, 4) == []
    assert accumulator.next_deadline_ms(sending=True) == 5
    accumulator.close_lingering(5)
    (batch,) = drained(accumulator, 5)
    assert contents(batch) == [1, 2]


def test_a_full_batch_does_not_linger() -> None:
    """When a batch has its size the driver is told at once."""
    driver = Driver()
    accumulator = made(driver, batch_size_bytes=100)
    add(accumulator, *range(1, 20))
    assert driver.ready >= 1
    assert contents(drained(accumulator, 0)[0])[0] == 1


def test_flush_covers_what_was_appended_before_and_nothing_after() -> None:
    """A ticket is done when its batches are, whatever comes later."""
    accumulator = made(Driver())
    add(accumulator, 1)
    ticket = accumulator.close_all()
    add(accumulator, 2)
    assert not accumulator.flushed(ticket)
    (batch,) = drained(accumulator, 0)
    assert accumulator.on_answer(KEY, batch, 0, 0, base_offset=10) is not None
    assert accumulator.flushed(ticket)
    assert not accumulator.flushed(accumulator.close_all())


def test_the_first_batch_travels_alone_and_then_five_at_a_time() -> None:
    """Until the broker has acknowledged something under the epoch it would take any sequence."""
    accumulator = made(Driver())
    for number in range(10):
        add(accumulator, number)
        accumulator.close_all()
    (first,) = drained(accumulator, 0)
    assert drained(accumulator, 0) == []
    accumulator.on_answer(KEY, first, 0, 0, base_offset=0)
    flying = [batch for _ in range(7) for batch in drained(accumulator, 0)]
    assert [batch.sequence for batch in flying] == [1, 2, 3, 4, 5]


def test_without_idempotence_one_batch_of_a_partition_is_in_flight() -> None:
    """A retry could otherwise overtake."""
    accumulator = made(Driver(), idempotent=False)
    for number in range(3):
        add(accumulator, number)
        accumulator.close_all()
    (first,) = drained(accumulator, 0)
    assert drained(accumulator, 0) == []
    assert accumulator.on_answer(KEY, first, ErrorCode.NOT_LEADER_OR_FOLLOWER, 0, retriable=True) is None
    assert drained(accumulator, 50) == []
    assert [contents(batch) for batch in drained(accumulator, 1_000)] == [[0]]


def test_a_retry_keeps_its_sequence_and_its_bytes() -> None:
    """The broker has to recognise it."""
    accumulator = made(Driver())
    add(accumulator, 1)
    accumulator.close_all()
    (batch,) = drained(accumulator, 0)
    before = bytes(batch.encoded or b"")
    accumulator.on_answer(KEY, batch, ErrorCode.NETWORK_EXCEPTION, 0, retriable=True)
    (again,) = drained(accumulator, 1_000)
    assert again is batch
    assert bytes(again.encoded or b"") == before


def test_what_was_never_sent_expires_as_certainly_not_written() -> None:
    """And what was sent without an answer as unknown."""
    driver = Driver()
    accumulator = made(driver)
    add(accumulator, 1)
    accumulator.close_all()
    (sent,) = drained(accumulator, 0)
    add(accumulator, 2)
    verdicts = accumulator.expire(10_000)
    assert [(one.definite, one.timed_out) for one in verdicts] == [(False, True), (True, True)]
    assert accumulator.buffered_bytes == 0
    assert accumulator.on_answer(KEY, sent, 0, 10_001, base_offset=0) is not None, "late, and nobody is told again"


def test_an_exhausted_epoch_asks_for_a_new_producer_id() -> None:
    """Epochs are 16 bits: behind the last one the broker has to give another id."""
    accumulator = made(Driver())
    accumulator.identity = ProducerIdentity(7, 32_767)
    add(accumulator, 1)
    accumulator.close_all()
    (batch,) = drained(accumulator, 0)
    accumulator.on_answer(KEY, batch, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, 0, retriable=False)
    assert drained(accumulator, 0) == []
    assert accumulator.needs_identity
    accumulator.identity = ProducerIdentity(8, 0)
    (again,) = drained(accumulator, 0)
    assert (again.identity, again.sequence) == (ProducerIdentity(8, 0), 0)


def test_partitions_that_do_not_exist_are_refused() -> None:
    """What waits for a partition that is not there gets a definite answer."""
    driver = Driver()
    driver.leader_id = None
    accumulator = made(driver)
    add(accumulator, 1)
    accumulator.close_all()
    assert list(accumulator.leaderless) == [KEY]
    (verdict,) = accumulator.refuse(KEY, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "no such partition")
    assert verdict.definite
    assert accumulator.leaderless == {}
    assert accumulator.next_deadline_ms(sending=True) is None


class ModelBroker:
    """One partition's idempotence rules as Kafka has them, and its log."""

    def __init__(self, batch_records_max: int) -> None:
        self.log: list[int] = []
        self.batch_records_max = batch_records_max
        self.epoch = -1
        self.next_sequence = 0
        self.cached: deque[tuple[int, int, int]] = deque(maxlen=5)  # sequence, count, offset

    def restart(self) -> None:
        """After kill -9: the log is there, but producers come from a snapshot, which has one batch of each."""
        while len(self.cached) > 1:
            self.cached.popleft()

    def append(self, data: bytes) -> tuple[ErrorCode, int]:
        header = decode_batch_header(data)
        if header.record_count > self.batch_records_max:
            return ErrorCode.MESSAGE_TOO_LARGE, -1
        if header.producer_epoch < self.epoch:
            return ErrorCode.INVALID_PRODUCER_EPOCH, -1
        if header.producer_epoch > self.epoch:
            if self.epoch >= 0 and header.base_sequence != 0:
                return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
            self.cached.clear()
        else:
            for sequence, count, offset in self.cached:
                if (sequence, count) == (header.base_sequence, header.record_count):
                    return ErrorCode.NONE, offset
            if header.base_sequence != self.next_sequence:
                return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
        offset = len(self.log)
        self.epoch = header.producer_epoch
        self.next_sequence = header.base_sequence + header.record_count
        self.cached.append((header.base_sequence, header.record_count, offset))
        self.log += [int(value or b"") for value in decode_records(data).values]
        return ErrorCode.NONE, offset


REFUSALS = [ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.LEADER_NOT_AVAILABLE]
FINAL_REFUSALS = [ErrorCode.INVALID_RECORD, ErrorCode.TOPIC_AUTHORIZATION_FAILED]


class World:
    """A producer core, a connection that breaks, and the model broker."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.driver = Driver()
        self.accumulator = made(self.driver, linger_ms=random.choice([0, 3]))
        self.broker = ModelBroker(batch_records_max=random.choice([2, 5, 100]))
        self.wire: deque[tuple[Batch, bytes]] = deque()  # requests of the connection, in order
        self.zombies: list[bytes] = []  # requests of dead connections that the broker may still find in its buffers
        self.appended = 0
        self.dropped = 0  # values below this may not be sent any more
        self.verdicts: dict[int, Verdict] = {}  # value -> verdict of its batch
        self.values: dict[int, list[int]] = {}  # id of a batch -> its values
        self.pending: list[tuple[Batch, list[int]]] = []

    def step(self) -> None:
        self.driver.now_ms += self.random.choice([0, 0, 1, 20, 150])
        now_ms = self.driver.now_ms
        self.accumulator.close_lingering(now_ms)
        self.accumulator.retries_due(now_ms)
        self.settle(self.accumulator.expire(now_ms))
        for _ in range(5):
            for batch in drained(self.accumulator, now_ms):
                assert batch.encoded is not None
                assert min(contents(batch)) >= self.dropped, "what was dropped is never sent, nor sent again"
                self.wire.append((batch, bytes(batch.encoded)))
            self.settle(self.accumulator.take_unsent())
        event = self.random.random()
        if event < 0.35 and self.appended < 120:
            for _ in range(self.random.randint(1, 4)):
                add(self.accumulator, self.appended)
                self.appended += 1
        elif event < 0.40:
            self.accumulator.close_all()
        elif event < 0.45:
            self.break_connection()
        elif event < 0.47 and self.zombies:
            self.broker.append(self.zombies.pop(0))
        elif event < 0.49:
            self.break_connection()
            self.broker.restart()
        elif event < 0.50:
            self.settle(self.accumulator.drop_all("the lease was lost"))
            self.dropped = self.appended
        else:
            self.answer_one()

    def answer_one(self) -> None:
        if not self.wire:
            return
        batch, data = self.wire.popleft()
        luck = self.random.random()
        if luck < 0.10:
            code, offset = self.random.choice(REFUSALS), -1
        elif luck < 0.12:
            code, offset = self.random.choice(FINAL_REFUSALS), -1
        else:
            code, offset = self.broker.append(data)
        self.tell(batch, code, offset)

    def break_connection(self) -> None:
        reached = self.random.randint(0, len(self.wire))
        for index, (_, data) in enumerate(self.wire):
            if index < reached:
                self.broker.append(data)  # written, and the answer is lost
            elif self.random.random() < 0.3:
                self.zombies.append(data)
        lost, self.wire = self.wire, deque()
        for batch, _ in lost:
            self.tell(batch, ErrorCode.NETWORK_EXCEPTION, -1)

    def tell(self, batch: Batch, code: ErrorCode, offset: int) -> None:
        verdict = self.accumulator.on_answer(
            KEY, batch, code, self.driver.now_ms, base_offset=offset, retriable=code.retriable
        )
        self.settle([verdict] if verdict is not None else [])

    def settle(self, verdicts: list[Verdict]) -> None:
        for verdict in verdicts:
            batch = verdict.batch
            if batch.builder is not None:
                batch.encode(Compression.NONE, None, NO_IDENTITY, -1)
            for value in contents(batch):
                self.verdicts.setdefault(value, verdict)

    def finish(self) -> None:
        """The world calms down: everything gets its answer."""
        self.break_connection()
        for _ in range(600):
            self.driver.now_ms += 200
            self.accumulator.close_all()
            self.accumulator.retries_due(self.driver.now_ms)
            for batch in drained(self.accumulator, self.driver.now_ms):
                assert batch.encoded is not None
                assert min(contents(batch)) >= self.dropped
                code, offset = self.broker.append(bytes(batch.encoded))
                self.tell(batch, code, offset)
            self.settle(self.accumulator.take_unsent())
            self.settle(self.accumulator.expire(self.driver.now_ms))


def test_batches_that_a_restarted_broker_no_longer_recognises_are_not_written_again() -> None:
    """It refuses the older ones as out of order and knows the last: whoever is followed by that one is in the log."""
    driver, broker = Driver(), ModelBroker(100)
    accumulator = made(driver)

    def send(number: int) -> list[Batch]:
        add(accumulator, number)
        accumulator.close_all()
        return drained(accumulator, driver.now_ms)

    (first,) = send(0)
    broker.append(bytes(first.encoded or b""))
    accumulator.on_answer(KEY, first, ErrorCode.NONE, 0, base_offset=0)
    lost = [batch for number in range(1, 4) for batch in send(number)]
    for batch in lost:
        broker.append(bytes(batch.encoded or b""))
    for batch in lost:
        accumulator.on_answer(KEY, batch, ErrorCode.NETWORK_EXCEPTION, 0, retriable=True)
    broker.restart()
    verdicts: list[Verdict] = []
    for _ in range(20):
        driver.now_ms += 1000
        accumulator.retries_due(driver.now_ms)
        for batch in drained(accumulator, driver.now_ms):
            code, offset = broker.append(bytes(batch.encoded or b""))
            verdict = accumulator.on_answer(
                KEY, batch, code, driver.now_ms, base_offset=offset, retriable=code.retriable
            )
            verdicts += [verdict] if verdict is not None else []
    assert broker.log == [0, 1, 2, 3]
    assert [verdict.error_code for verdict in verdicts] == [0, 0, 0]
    assert accumulator.identity.producer_epoch == 0


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_written_once_in_order_and_never_lied_about(seed: int) -> None:
    """Whatever breaks: no record twice, none out of order, and every answer is true."""
    world = World(Random(seed))
    for _ in range(200):
        world.step()
    world.finish()
    log = world.broker.log
    assert log == sorted(set(log)), "a record was written twice or out of order"
    assert sorted(world.verdicts) == list(range(world.appended)), "a record has no answer"
    for value, verdict in world.verdicts.items():
        if verdict.error_code == 0:
            assert value in log, f"{value} was reported as written"
        elif verdict.definite:
            assert value not in log, f"{value} was reported as certainly not written"
    assert world.accumulator.buffered_bytes == 0
    assert world.accumulator.flushed(world.accumulator.close_all())


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_offsets_are_told_truly(seed: int) -> None:
    """Where the broker tells an offset, that is where the record is."""
    world = World(Random(seed))
    for _ in range(150):
        world.step()
    world.finish()
    for value, verdict in world.verdicts.items():
        if verdict.error_code == 0 and verdict.base_offset >= 0:
            index = contents(verdict.batch).index(value)
            assert world.broker.log[verdict.base_offset + index] == value


@pytest.mark.parametrize("code", sorted(DEFINITE))
def test_definite_refusals_are_not_ambiguous_codes(code: ErrorCode) -> None:
    """Codes that a broker may answer after it appended are not on the list."""
    assert code not in (
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.UNKNOWN_SERVER_ERROR,
        ErrorCode.NETWORK_EXCEPTION,
    )


def test_a_batch_that_cannot_be_built_fails_alone_and_its_numbers_go_to_the_next() -> None:
    """Whatever building raises becomes that batch's answer; nothing was sent, so no number was used."""
    accumulator = made(Driver())
    add(accumulator, 1)
    accumulator.close_all()
    limits = accumulator.limits
    accumulator.limits = replace(limits, compression=Compression.GZIP, compression_level=77)
    assert drained(accumulator, 0) == []
    (refused,) = accumulator.take_unsent()
    assert refused.definite
    assert isinstance(refused.cause, LocalProtocolError)
    assert accumulator.buffered_bytes == 0
    accumulator.limits = limits
    add(accumulator, 2)
    accumulator.close_all()
    (batch,) = drained(accumulator, 0)
    assert (contents(batch), batch.sequence) == ([2], 0)
    assert accumulator.take_unsent() == []


def test_a_batch_that_could_not_be_written_to_the_connection_gives_its_numbers_back() -> None:
    """It never left, so the next batch continues where the last one that left ended."""
    accumulator = made(Driver())
    add(accumulator, 1)
    accumulator.close_all()
    (first,) = drained(accumulator, 0)
    accumulator.on_answer(KEY, first, 0, 0, base_offset=0)
    add(accumulator, 2, 3)
    accumulator.close_all()
    (second,) = drained(accumulator, 0)
    assert second.sequence == 1
    verdict = accumulator.on_unsendable(KEY, second, MemoryError())
    assert verdict.definite
    add(accumulator, 4)
    accumulator.close_all()
    (third,) = drained(accumulator, 0)
    assert (contents(third), third.sequence, third.identity) == ([4], 1, second.identity)


def test_a_retry_that_cannot_be_sent_breaks_the_sequence() -> None:
    """It was sent before, nobody knows what became of it, and others were numbered behind it: a new epoch begins."""
    accumulator = made(Driver())
    add(accumulator, 1)
    accumulator.close_all()
    (first,) = drained(accumulator, 0)
    accumulator.on_answer(KEY, first, ErrorCode.NETWORK_EXCEPTION, 0, retriable=True)
    (again,) = drained(accumulator, 1_000)
    verdict = accumulator.on_unsendable(KEY, again, MemoryError())
    assert not verdict.definite
    add(accumulator, 2)
    accumulator.close_all()
    (second,) = drained(accumulator, 1_000)
    assert (second.identity, second.sequence) == (ProducerIdentity(7, 1), 0)


def test_a_record_that_would_make_a_batch_too_large_for_a_request_opens_the_next_one() -> None:
    """Small ones do not have to be split off again after a broker refused them together."""
    accumulator = Accumulator(Limits(900, 1_000, 5, 10_000, 100, 1_000, True, Compression.NONE, None), Driver())
    accumulator.identity = ProducerIdentity(7, 0)
    accumulator.append(KEY, None, b"1" * 450, 1_000, ())
    accumulator.append(KEY, None, b"2" * 480, 1_000, ())
    accumulator.close_all()
    (first,) = drained(accumulator, 0)
    accumulator.on_answer(KEY, first, 0, 0, base_offset=0)
    (second,) = drained(accumulator, 0)
    assert (first.record_count, second.record_count) == (1, 1)
    assert [contents(one) for one in (first, second)] == [[int("1" * 450)], [int("2" * 480)]]
    accumulator.on_answer(KEY, second, 0, 0, base_offset=1)
    assert accumulator.buffered_bytes == 0
