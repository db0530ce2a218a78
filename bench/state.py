"""What state costs: reads, writes, commits and restores, beside a bare dict and bare rocksdict.

    python bench/state.py [--keys N] [--rounds N] [--bootstrap HOST:PORT]

The sides take turns within one run, because a shared machine changes its speed from minute to minute: read the
ratios. Each figure is the best of its rounds. With --bootstrap the restore reads a topic that is made there; without
it, record batches in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from rocksdict import Rdict, WriteBatch

from streamlog.env import Env, real_env
from streamlog.serde import key_serde_for, table_value_serde_for
from streamlog.state.changelog import changelog_configs, restored_table
from streamlog.state.consumer_reader import ConsumerReader
from streamlog.state.logs import LogReader, LogState
from streamlog.state.restore import Restorer
from streamlog.state.rocksdb import RocksEngine
from streamlog.state.store import CommitBatch
from streamlog.state.table import TableState
from streamlog.state.windowed import WindowedState
from streamlog.state.windows import Windows
from streamlog.wire.records import HEADER_BYTES, RecordColumns, encode_batch
from streamlog.wire.records_codec import codec

ROW = b"\x01\x05"
BATCH_RECORDS = 20_000
COMMIT_ROWS = 10_000

Work = Callable[[], object]


def ns_per(count: int, rounds: int, works: dict[str, Work]) -> dict[str, float]:
    """Best time per item of each side, the sides taking turns."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter_ns()
            work()
            best[name] = min(best[name], (time.perf_counter_ns() - began) / count)
    return best


def show(title: str, figures: dict[str, float], reference: str) -> None:
    print(f"\n{title}")
    for name, ns in figures.items():
        print(f"  {name:44s} {ns:9.0f} ns   {ns / figures[reference]:6.2f}x")


class Bare:
    """rocksdict by itself, with the options our stores have."""

    def __init__(self, engine: RocksEngine, path: str) -> None:
        self.db = Rdict(path, engine.options(), column_families={"t": engine.options()})
        self.family = self.db.get_column_family("t")
        self.handle = self.db.get_column_family_handle("t")

    def write(self, keys: Sequence[bytes]) -> None:
        batch = WriteBatch(raw_mode=True)
        batch.set_default_column_family(self.handle)
        for key in keys:
            batch[key] = ROW
        self.db.write(batch)


def bench_cache(env: Env, directory: str, keys: int, rounds: int) -> None:
    engine = RocksEngine(env.storage)
    names = [f"key{number:08d}" for number in range(keys)]
    random.Random(1).shuffle(names)
    encoded = [name.encode() for name in names]
    bare = Bare(engine, f"{directory}/bare")
    store = engine.open(f"{directory}/ours")
    for start in range(0, keys, COMMIT_ROWS):
        bare.write(encoded[start : start + COMMIT_ROWS])
        store.commit(CommitBatch({"t": [(key, ROW) for key in encoded[start : start + COMMIT_ROWS]]}))
    key_serde, value_serde = key_serde_for(str), table_value_serde_for(int)
    hot = names[:COMMIT_ROWS]
    hot_bytes = encoded[:COMMIT_ROWS]
    table = TableState("t", store, key_serde, value_serde)
    plain = dict.fromkeys(hot, 5)

    def count_plain() -> None:
        for name in hot:
            plain[name] = plain.get(name, 0) + 1

    def count_table() -> None:
        get, put = table.get, table.set
        for name in hot:
            put(name, get(name, 0) + 1)

    def read_table() -> None:
        get = table.get
        for name in hot:
            get(name)

    def read_bare() -> None:
        get = bare.family.get
        for key in hot_bytes:
            get(key)

    figures = ns_per(
        len(hot),
        rounds,
        {
            "dict: count": count_plain,
            "table: count": count_table,
            "table: read": read_table,
            "rocksdict: read": read_bare,
        },
    )
    show("hot keys", figures, "rocksdict: read")

    def read_cold() -> None:
        fresh = TableState("t", store, key_serde, value_serde)
        get = fresh.get
        for name in names:
            get(name)

    def read_absent() -> None:
        fresh = TableState("t", store, key_serde, value_serde)
        get = fresh.get
        for name in names:
            get("no" + name)

    def read_all_bare() -> None:
        get = bare.family.get
        for key in encoded:
            get(key)

    works: dict[str, Work] = {
        "rocksdict: read": read_all_bare,
        "table: cold read": read_cold,
        "table: absent": read_absent,
    }
    show(f"cold keys, {keys} of them", ns_per(keys, rounds, works), "rocksdict: read")

    def commit_table() -> None:
        dirty = table.take_dirty(0)
        batch = CommitBatch()
        dirty.add_to(batch)
        store.commit(batch)
        table.committed(dirty)

    def dirty_and_commit() -> None:
        count_table()
        commit_table()

    works = {
        "rocksdict: WriteBatch": lambda: bare.write(hot_bytes),
        "table: count, encode and commit": dirty_and_commit,
    }
    show(f"commit of {COMMIT_ROWS} keys, per key", ns_per(len(hot), rounds, works), "rocksdict: WriteBatch")

    def scan_bare() -> None:
        for _ in bare.family.items():
            pass

    def scan_store() -> None:
        for _ in store.scan("t"):
            pass

    def scan_table() -> None:
        for _ in table.items():
            pass

    works = {"rocksdict: scan": scan_bare, "store: scan": scan_store, "table: items, decoded": scan_table}
    show("scan, per row", ns_per(keys, rounds, works), "rocksdict: scan")

    windowed: WindowedState[str, int] = WindowedState(
        "w", store, key_serde, value_serde, Windows(3_600_000, 3_600_000, 0)
    )

    def count_windows() -> None:
        admit, get, put = windowed.admit, windowed.get, windowed.set
        for name in hot:
            for start_ms in admit(10_000_000):
                put(name, start_ms, get(name, start_ms, 0) + 1)

    works = {"table: count": count_table, "windowed: tumbling count": count_windows}
    show("windows, per event", ns_per(len(hot), rounds, works), "table: count")
    store.close()


@dataclass(frozen=True, slots=True)
class Fetched:
    topic: str
    partition: int
    columns: RecordColumns
    start_offset: int
    next_offset: int
    leader_epoch: int


class LocalReader:
    """Record batches in memory: decoding and everything behind it, without a network."""

    def __init__(self, batches: list[bytes], records: int) -> None:
        self.batches, self.records = batches, records
        self.next = 0
        self.paused = False

    async def describe(self, topic: str, partition: int, leader_epoch: int = -1) -> LogState:
        return LogState(0, self.records, UUID(int=1))

    async def partition_count(self, topic: str) -> int:
        return 1

    def follow(self, topic: str, partition: int, offset: int) -> None:
        self.topic, self.next = topic, offset // BATCH_RECORDS

    def unfollow(self, topic: str, partition: int) -> None:
        self.paused = False

    def pause(self, topic: str, partition: int) -> None:
        self.paused = True

    def resume(self, topic: str, partition: int) -> None:
        self.paused = False

    async def fetch(self, timeout_ms: int) -> list[Fetched]:
        await asyncio.sleep(0)
        if self.paused or self.next == len(self.batches):
            await asyncio.sleep(0.0005)
            return []
        start = self.next * BATCH_RECORDS
        section = self.batches[self.next][HEADER_BYTES:]
        self.next += 1
        columns = RecordColumns(*codec.decode_records(section, BATCH_RECORDS, start, 0, None))
        return [Fetched(self.topic, 0, columns, start, start + BATCH_RECORDS, 0)]


async def bench_restore(env: Env, directory: str, keys: int, rounds: int, bootstrap: str | None) -> None:
    keys -= keys % BATCH_RECORDS
    order = list(range(keys))
    random.Random(2).shuffle(order)
    table = restored_table("bench", f"restore{env.entropy.randrange(1 << 30)}")
    engine = RocksEngine(env.storage)
    if bootstrap is None:
        batches = [
            bytes(
                encode_batch(
                    keys=[b"key%08d" % number for number in order[start : start + BATCH_RECORDS]],
                    values=[ROW] * BATCH_RECORDS,
                    timestamps_ms=[0] * BATCH_RECORDS,
                )
            )
            for start in range(0, keys, BATCH_RECORDS)
        ]
        reader: LogReader = LocalReader(batches, keys)
    else:
        fill_topic(bootstrap, table.topic, order)
        remote = ConsumerReader(bootstrap, env)
        await remote.open()
        reader = remote
    restorer = Restorer(reader, env)
    best_s, worst_pause_s = float("inf"), 0.0
    for number in range(rounds):
        store = engine.open(f"{directory}/restore-{number}")
        done = asyncio.Event()
        watch = asyncio.ensure_future(longest_pause(done))
        began = time.perf_counter()
        result = await restorer.restore(store, [table], 0)
        best_s = min(best_s, time.perf_counter() - began)
        done.set()
        worst_pause_s = max(worst_pause_s, await watch)
        assert result.records == keys
        assert store.get(table.name, b"key%08d" % order[0]) == ROW
        store.close()
    await restorer.close()
    if isinstance(reader, ConsumerReader):
        await reader.close()
    where = "from memory" if bootstrap is None else f"from {bootstrap}"
    print(f"\nrestore of {keys} keys in random order, {where}")
    print(
        f"  {best_s:.2f} s, {keys / best_s / 1000:.0f}k keys/s; "
        f"the event loop was held for at most {worst_pause_s * 1000:.0f} ms"
    )


async def longest_pause(done: asyncio.Event) -> float:
    longest = 0.0
    while not done.is_set():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - before - 0.001)
    return longest


def fill_topic(bootstrap: str, topic: str, order: list[int]) -> None:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1, config=changelog_configs())])[topic].result()
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for number in order:
        while True:
            try:
                producer.produce(topic, ROW, b"key%08d" % number, 0)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bootstrap")
    arguments = parser.parse_args()
    env = real_env()
    with tempfile.TemporaryDirectory() as directory:
        bench_cache(env, directory, min(arguments.keys, 200_000), arguments.rounds)
        asyncio.run(bench_restore(env, directory, arguments.keys, arguments.rounds, arguments.bootstrap))
    env.offload.close()


if __name__ == "__main__":
    main()
