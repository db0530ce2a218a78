"""Real processes killed in the middle of commits, and log files cut as a power cut leaves them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from streamlog.env import RealStorage
from streamlog.state.rocksdb import RocksEngine, RocksStore
from streamlog.state.store import CommitBatch, Position, SourceOffset

TABLES = ("a", "b", "b/expiry")

WRITER = """
import sys
from streamlog.env import RealStorage
from streamlog.state.rocksdb import RocksEngine
from tests.state.test_crash import commit_number
store = RocksEngine(RealStorage(), memtable_bytes=1 << 20).open(sys.argv[1])
number = store.source_offsets()[("t", 0)].offset if store.source_offsets() else 0
print("ready", flush=True)
while True:
    number += 1
    commit_number(store, number, int(sys.argv[2]))
    print(number, flush=True)
"""


def commit_number(store: RocksStore, number: int, rows: int) -> None:
    """Every row of every table says which commit wrote it; commit n also deletes what commit n - 3 marked."""
    value = b"%d" % number
    batch = CommitBatch()
    for table in TABLES:
        batch.rows[table] = [
            *((b"row%d" % row, value) for row in range(rows)),
            (b"mark%d" % number, value),
            (b"mark%d" % (number - 3), None),
        ]
        batch.positions[table] = Position(number)
    batch.source_offsets["t", 0] = SourceOffset(number)
    store.commit(batch)


def check_is_commit(store: RocksStore, rows: int) -> int:
    """The store is as one commit left it, whole; returns which."""
    if not store.source_offsets():
        assert store.tables() == [] or all(list(store.scan(table)) == [] for table in TABLES)
        return 0
    number = store.source_offsets()["t", 0].offset
    assert {table: position.offset for table, position in store.positions().items()} == dict.fromkeys(TABLES, number)
    for table in TABLES:
        expected = {b"row%d" % row: b"%d" % number for row in range(rows)}
        expected |= {b"mark%d" % one: b"%d" % one for one in range(max(1, number - 2), number + 1)}
        assert dict(store.scan(table)) == expected
    return number


@pytest.mark.crash
@pytest.mark.parametrize("rows", [3, 2000])
def test_a_process_killed_while_it_commits_loses_nothing_it_was_told_is_done(tmp_path: Path, rows: int) -> None:
    """Rows, deletions, positions and source offsets of all tables are those of one commit, at or after the last one
    that returned; again and again on the same store, at random moments, during memtable flushes too."""
    path = str(tmp_path / "task-0")
    random = Random(rows)
    engine = RocksEngine(RealStorage())
    number = 0
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path, str(rows)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(random.random() * 0.3)
        writer.send_signal(signal.SIGKILL)
        printed = writer.stdout.read().split(b"\n")[:-1]
        writer.stdout.close()
        writer.wait()
        store = engine.open(path)
        number = check_is_commit(store, rows)
        assert number >= (int(printed[-1]) if printed else 0)
        store.close()
    assert number > 8


def test_after_a_power_cut_the_store_is_an_earlier_commit_never_a_torn_one(tmp_path: Path) -> None:
    """The write-ahead log is not synced: whatever prefix of it reached the disk, some commit's state comes back.

    From there the changelog's tail makes it right (test_restore.py); what must not happen is half a commit, or rows
    that do not fit their position.
    """
    path = tmp_path / "task-0"
    engine = RocksEngine(RealStorage())
    store = engine.open(str(path))
    for number in range(1, 41):
        commit_number(store, number, 5)
    frozen = tmp_path / "frozen"
    shutil.copytree(path, frozen)  # what the file system holds while the process lives
    store.close()
    log = max(frozen.glob("*.log"), key=os.path.getsize).name
    size = (frozen / log).stat().st_size
    random = Random(7)
    seen = set()
    for cut in sorted({0, 1, size, *(random.randrange(size) for _ in range(60))}):
        copy = tmp_path / "cut"
        shutil.copytree(frozen, copy)
        with open(copy / log, "r+b") as file:
            file.truncate(cut)
        store = engine.open(str(copy))
        seen.add(check_is_commit(store, 5))
        store.close()
        shutil.rmtree(copy)
    assert max(seen) == 40
    assert len(seen) > 20


def test_a_log_with_a_damaged_middle_gives_the_commits_before_it(tmp_path: Path) -> None:
    """Blocks written out of order leave zeros or old bytes in the middle: nothing after them is believed."""
    path = tmp_path / "task-0"
    engine = RocksEngine(RealStorage())
    store = engine.open(str(path))
    for number in range(1, 41):
        commit_number(store, number, 5)
    frozen = tmp_path / "frozen"
    shutil.copytree(path, frozen)
    store.close()
    log = max(frozen.glob("*.log"), key=os.path.getsize).name
    size = (frozen / log).stat().st_size
    random = Random(8)
    for damage in (bytes(64), b"\xff" * 64):
        for _ in range(15):
            copy = tmp_path / "cut"
            shutil.copytree(frozen, copy)
            with open(copy / log, "r+b") as file:
                file.seek(random.randrange(size - 64))
                file.write(damage)
            store = engine.open(str(copy))
            check_is_commit(store, 5)
            store.close()
            shutil.rmtree(copy)


BULK = """
import sys
from streamlog.env import RealStorage
from streamlog.state.rocksdb import RocksEngine
from streamlog.state.store import Position
store = RocksEngine(RealStorage(), memtable_bytes=1 << 20).open(sys.argv[1])
done = store.positions()["t"].offset if store.positions() else 0
print("ready", flush=True)
while True:
    rows = [(b"%08d" % (number * 7919 % 100000), b"%d" % number) for number in range(done, done + 30000)]
    store.ingest("t", rows, Position(done + 30000))
    done += 30000
    print(done, flush=True)
"""


@pytest.mark.crash
def test_a_process_killed_in_a_bulk_restore_has_all_rows_up_to_its_position(tmp_path: Path) -> None:
    """Bulk writes leave the log out: the rows are flushed before the position says so. Rows may be ahead of it."""
    path = str(tmp_path / "task-0")
    random = Random(3)
    engine = RocksEngine(RealStorage())
    done = 0
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", BULK, path], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.05 + random.random() * 0.4)
        writer.send_signal(signal.SIGKILL)
        printed = writer.stdout.read().split(b"\n")[:-1]
        writer.stdout.close()
        writer.wait()
        store = engine.open(path)
        done = store.positions()["t"].offset if store.positions() else 0
        assert done >= (int(printed[-1]) if printed else 0)
        for number in range(max(0, done - 100_000), done):
            value = store.get("t", b"%08d" % (number * 7919 % 100000))
            assert value is not None
            assert int(value) >= number
            assert int(value) % 100_000 == number % 100_000
        store.close()
    assert done > 0
