"""What only RocksDB has: options that must take effect, damage that must be noticed, handles that must be let go."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from streamlog.env import RealStorage
from streamlog.errors import EnvironmentFailure, UserError
from streamlog.state.rocksdb import RocksEngine, RocksStore
from streamlog.state.store import CommitBatch, Position, StoreCorrupt
from tests.small_disk import fill as fill_disk
from tests.small_disk import small_disk

MB = 1024 * 1024


@pytest.fixture
def engine() -> RocksEngine:
    return RocksEngine(RealStorage(), cache_bytes=16 * MB, memtable_bytes=4 * MB)


def fill(store: RocksStore, rows: int = 20_000) -> None:
    """Random values, so that the file is large, flushed by the memtable budget."""
    for start in range(0, rows, 1000):
        store.commit(CommitBatch({"t": [(b"%08d" % n, os.urandom(300)) for n in range(start, start + 1000)]}))


def options_files(path: str) -> str:
    newest = max(name for name in os.listdir(path) if name.startswith("OPTIONS"))
    return Path(path, newest).read_text()


def test_options_of_every_table_survive_reopening(engine: RocksEngine, tmp_path: Path) -> None:
    """rocksdict drops the options of existing column families unless they are passed on every open."""
    path = str(tmp_path / "task-0")
    for table in ("a", "b", "c"):
        store = engine.open(path)
        store.commit(CommitBatch({table: [(b"k", b"v")]}))
        store.check_options(16 * MB)
        store.close()
    engine.open(path).close()
    text = options_files(path)
    families = text.count('[CFOptions "')
    assert families == 4
    assert text.count("filter_policy=bloomfilter") == families
    assert text.count("block_size=8192") == families
    assert text.count("write_buffer_size=16777216") == families + text.count("db_write_buffer_size=16777216")
    assert text.count("compression=kLZ4Compression") == families


def test_a_store_on_a_full_disk_lets_go_of_it_and_opens_again_when_there_is_room(
    engine: RocksEngine, tmp_path: Path
) -> None:
    """RocksDB refuses to close such a store in order; whoever closes it hears of the disk, and the lock is gone."""
    with small_disk(tmp_path / "disk", 8 * MB) as disk:
        store = engine.open(str(disk / "task-0"))
        store.commit(CommitBatch({"t": [(b"k", b"v")], "u": [(b"k", b"v")]}))
        ballast = fill_disk(disk)
        with pytest.raises(EnvironmentFailure, match="No space left"):
            fill(store)
        with pytest.raises(EnvironmentFailure, match="task-0"):
            store.close()
        ballast.unlink()
        again = engine.open(str(disk / "task-0"))
        assert again.get("t", b"k") == b"v"
        again.close()


def test_a_table_that_lost_its_options_is_noticed(engine: RocksEngine, tmp_path: Path) -> None:
    """The check checks: another cache size is found."""
    store = engine.open(str(tmp_path / "task-0"))
    store.commit(CommitBatch({"t": [(b"k", b"v")]}))
    with pytest.raises(AssertionError, match="a block cache of its own"):
        store.check_options(8 * MB)
    store.close()


def test_all_stores_of_a_process_share_one_memory_budget(engine: RocksEngine, tmp_path: Path) -> None:
    """Ten stores do not cost ten caches. The bound is soft: a store flushes its memtable when it next writes."""
    stores = [engine.open(str(tmp_path / f"task-{number}")) for number in range(10)]
    for store in stores:
        fill(store, 5000)
        assert len(list(store.scan("t"))) == 5000
    assert engine.memory_bytes < 2 * 16 * MB
    for store in stores:
        store.close()


def damage(path: str) -> None:
    """Overwrite bytes all over the largest data file."""
    files = [os.path.join(path, name) for name in os.listdir(path) if name.endswith(".sst")]
    largest = max(files, key=os.path.getsize)
    with open(largest, "r+b") as file:
        for part in range(1, 19):
            file.seek(os.path.getsize(largest) * part // 20)
            file.write(b"damaged" * 10)


@pytest.fixture
def damaged(engine: RocksEngine, tmp_path: Path) -> RocksStore:
    path = str(tmp_path / "task-0")
    store = engine.open(path)
    fill(store)
    store.commit(CommitBatch(positions={"t": Position(7)}))
    store.close()
    damage(path)
    return engine.open(path)


def test_a_scan_over_a_damaged_block_fails_instead_of_ending_early(damaged: RocksStore) -> None:
    """rocksdict's iterators just stop there: a silent loss of rows."""
    with pytest.raises(StoreCorrupt, match="is damaged"):
        list(damaged.scan("t"))
    with pytest.raises(StoreCorrupt, match="is damaged"):
        list(damaged.scan("t", reverse=True))
    with damaged.snapshot() as snapshot, pytest.raises(StoreCorrupt):
        list(snapshot.scan("t"))
    damaged.close()


def test_a_read_of_a_damaged_block_fails(damaged: RocksStore) -> None:
    """One by one and together."""
    keys = [b"%08d" % number for number in range(20_000)]
    with pytest.raises(StoreCorrupt):
        damaged.get_many("t", keys)
    with pytest.raises(StoreCorrupt):
        [damaged.get("t", key) for key in keys]
    damaged.close()


def test_a_store_that_met_damage_is_set_aside_when_it_closes(
    damaged: RocksStore, engine: RocksEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody has to delete files by hand; the evidence stays."""
    with pytest.raises(StoreCorrupt):
        list(damaged.scan("t"))
    damaged.close()
    assert os.path.isdir(damaged.path + ".corrupt-1")
    assert "state=corrupt moved_to=" in caplog.text
    fresh = engine.open(damaged.path)
    assert fresh.tables() == []
    assert dict(fresh.positions()) == {}
    fresh.close()


@pytest.mark.parametrize("victim", ["MANIFEST", "CURRENT", ".sst"])
def test_a_store_that_cannot_be_opened_says_it_is_damaged(engine: RocksEngine, tmp_path: Path, victim: str) -> None:
    """Whichever file is missing or garbage."""
    path = str(tmp_path / "task-0")
    store = engine.open(path)
    fill(store)
    store.close()
    for name in os.listdir(path):
        if name.startswith(victim) or name.endswith(victim):
            target = Path(path, name)
            if victim == ".sst":
                target.unlink()
            else:
                target.write_bytes(b"garbage" * 100)
    with pytest.raises(StoreCorrupt):
        engine.open(path)
    assert engine.quarantine(path).endswith(".corrupt-1")
    engine.open(path).close()


def test_quarantined_stores_do_not_overwrite_each_other(engine: RocksEngine, tmp_path: Path) -> None:
    """Each keeps its number."""
    path = str(tmp_path / "task-0")
    for number in (1, 2):
        engine.open(path).close()
        assert engine.quarantine(path) == f"{path}.corrupt-{number}"


def test_a_store_of_a_later_format_is_refused_and_left_alone(engine: RocksEngine, tmp_path: Path) -> None:
    """After a downgrade."""
    from streamlog.state import rocksdb

    path = str(tmp_path / "task-0")
    store = engine.open(path)
    db = store._opened()
    db.put(rocksdb._FORMAT_KEY, b"99")
    del db
    store.close()
    with pytest.raises(UserError, match="has format b'99'"):
        engine.open(path)
    with pytest.raises(UserError, match="has format b'99'"):
        engine.open(path)


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_nothing_leaks_when_stores_are_opened_read_and_closed(engine: RocksEngine, tmp_path: Path) -> None:
    """Files, handles and native memory, with scans left half read and snapshots left open."""
    path = str(tmp_path / "task-0")

    def use() -> None:
        store = engine.open(path)
        store.commit(CommitBatch({"t": [(b"%08d" % n, b"v" * 100) for n in range(2000)]}))
        for _ in range(20):
            next(store.scan("t"))
            next(store.snapshot().scan("t"))
        store.drop_table("t")
        store.close()

    for _ in range(10):
        use()
    gc.collect()
    files, memory = len(os.listdir("/proc/self/fd")), resident_bytes()
    for _ in range(60):
        use()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= files
    assert resident_bytes() - memory < 20 * MB
