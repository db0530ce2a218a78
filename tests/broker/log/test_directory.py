"""The data directory: who may use it, what it remembers, and what must not come back."""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from streamlog.broker.log.checkpoint import (
    CLEANER_FILE,
    HIGH_WATERMARK_FILE,
    LOG_START_FILE,
    RECOVERY_POINT_FILE,
    decode_meta_properties,
    decode_offsets,
)
from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.log.flusher import Flusher
from streamlog.broker.log.partition import PartitionLog
from streamlog.broker.log.refusal import PartitionOffline
from streamlog.env import Env, Scope, real_env
from streamlog.errors import EnvironmentFailure, UserError
from tests.broker.log.faulty_storage import PowerCut, cut_power_at, faulty_env
from tests.broker.log.harness import NOW_MS, TINY, append, batch_of, values_of

TOPIC_ID = uuid.UUID(int=5)


def open_directory(
    tmp_path: Path, env: Env | None = None, *, node_id: int = 1, cluster_id: str | None = None
) -> LogDirectory:
    return LogDirectory.open(
        env or real_env(), str(tmp_path / "data"), node_id=node_id, cluster_id=cluster_id, now_ms=NOW_MS
    )


def open_orders(directory: LogDirectory, partition: int = 0, topic_id: uuid.UUID = TOPIC_ID) -> PartitionLog:
    return directory.open_partition("orders", partition, topic_id, TINY, NOW_MS)


def test_second_process_is_told_who_is_in_the_way(tmp_path: Path) -> None:
    """One process at a time; the message names the directory and what to do."""
    directory = open_directory(tmp_path)
    with pytest.raises(UserError, match="in use by another process") as caught:
        open_directory(tmp_path)
    assert str(tmp_path / "data") in str(caught.value)
    directory.close()
    open_directory(tmp_path).close()


def test_directory_remembers_its_node_and_cluster(tmp_path: Path) -> None:
    """meta.properties is Kafka's; another node or cluster is refused."""
    directory = open_directory(tmp_path, cluster_id="abc")
    directory_id = directory.directory_id
    directory.close()
    properties = decode_meta_properties((tmp_path / "data" / "meta.properties").read_bytes())
    assert (properties["version"], properties["cluster.id"], properties["node.id"]) == ("1", "abc", "1")
    with pytest.raises(UserError, match="belongs to node 1"):
        open_directory(tmp_path, node_id=2)
    with pytest.raises(UserError, match="belongs to cluster abc"):
        open_directory(tmp_path, cluster_id="xyz")
    again = open_directory(tmp_path)
    assert (again.cluster_id, again.directory_id) == ("abc", directory_id)
    again.close()


def test_clean_stop_leaves_nothing_to_recover(tmp_path: Path) -> None:
    """The marker carries the broker epoch, counts once, and means that nothing is walked."""
    directory = open_directory(tmp_path)
    log = open_orders(directory)
    for number in range(20):
        append(log, batch_of(b"%d" % number))
    log.high_watermark = 12
    directory.close(broker_epoch=44)
    directory = open_directory(tmp_path)
    assert (directory.was_clean, directory.clean_shutdown_epoch) == (True, 44)
    log = open_orders(directory)
    assert log.recovery_report.walked_bytes == 0
    assert (log.log_end_offset, log.high_watermark) == (20, 12)
    directory.abandon()
    directory = open_directory(tmp_path)
    assert (directory.was_clean, directory.clean_shutdown_epoch) == (False, None)
    directory.close()


def test_deleted_topic_does_not_haunt_its_successor(tmp_path: Path) -> None:
    """A topic created under the old name starts at 0, whatever the checkpoint files said."""
    directory = open_directory(tmp_path)
    log = open_orders(directory)
    for number in range(20):
        append(log, batch_of(b"%d" % number))
    log.high_watermark = 20
    log.delete_records_before(15)
    directory.close()
    directory = open_directory(tmp_path)
    open_orders(directory)
    directory.delete_partition("orders", 0, NOW_MS)
    assert directory.get("orders", 0) is None
    new = open_orders(directory, topic_id=uuid.UUID(int=6))
    assert (new.log_start_offset, new.log_end_offset, new.high_watermark) == (0, 0, 0)
    append(new, batch_of(b"new"))
    directory.abandon()
    directory = open_directory(tmp_path)
    assert values_of(open_orders(directory, topic_id=uuid.UUID(int=6))) == {0: b"new"}
    files, directories = directory.take_doomed(NOW_MS)
    directory.remove(files, directories)
    assert not [path.name for path in (tmp_path / "data").iterdir() if path.name.endswith("-delete")]
    directory.close()


def test_partition_of_another_topic_id_is_quarantined(tmp_path: Path) -> None:
    """It is neither served nor removed."""
    directory = open_directory(tmp_path)
    append(open_orders(directory), batch_of(b"old"))
    directory.close()
    directory = open_directory(tmp_path)
    log = open_orders(directory, topic_id=uuid.UUID(int=9))
    assert log.log_end_offset == 0
    (stray,) = (tmp_path / "data").glob("orders-0.*-stray")
    assert (stray / "00000000000000000000.log").stat().st_size > 0
    directory.close()


def test_partitions_that_the_cluster_does_not_know_are_quarantined(tmp_path: Path) -> None:
    """After the metadata is known, what nobody expects here is moved aside."""
    directory = open_directory(tmp_path)
    for partition in range(3):
        open_orders(directory, partition)
    directory.close()
    directory = open_directory(tmp_path)
    assert directory.existing() == [("orders", 0), ("orders", 1), ("orders", 2)]
    assert len(directory.quarantine_strays([("orders", 1)])) == 2
    assert directory.existing() == [("orders", 1)]
    directory.close()


def test_damaged_partition_does_not_stop_the_others(tmp_path: Path) -> None:
    """It is listed as offline with the reason."""
    directory = open_directory(tmp_path)
    for partition in range(2):
        log = open_orders(directory, partition)
        for number in range(20):
            append(log, batch_of(b"%d" % number))
    directory.close()
    sorted((tmp_path / "data" / "orders-0").glob("*.log"))[1].unlink()
    directory = open_directory(tmp_path)
    with pytest.raises(PartitionOffline):
        open_orders(directory, 0)
    assert "orders-0" in directory.offline["orders", 0]
    assert len(values_of(open_orders(directory, 1))) == 20
    directory.close()
    assert decode_offsets((tmp_path / "data" / RECOVERY_POINT_FILE).read_bytes())["orders", 0] == 20


def test_truncation_below_the_recovery_point_survives_a_crash(tmp_path: Path) -> None:
    """The lower recovery point is on disk before the first byte goes, at every step."""
    number = 0
    finished = False
    while not finished:
        env, faults = faulty_env()
        root = tmp_path / str(number)
        directory = open_directory(root, env)
        log = open_orders(directory)
        for record in range(20):
            append(log, batch_of(b"%d" % record))
        directory.close()
        directory = open_directory(root, env)
        log = open_orders(directory)
        cut_power_at(faults, number)
        with suppress(PowerCut):
            log.truncate_to(7, NOW_MS)
            finished = True
        faults.before = lambda name, path: None
        directory.abandon()
        directory = open_directory(root, env)
        values = values_of(open_orders(directory))
        assert 7 <= len(values) <= 20
        assert values == {offset: b"%d" % offset for offset in range(len(values))}
        directory.close()
        number += 1


def test_damaged_log_start_file_is_not_ignored(tmp_path: Path) -> None:
    """Deleted records must not come back silently."""
    open_directory(tmp_path).close()
    (tmp_path / "data" / "log-start-offset-checkpoint").write_bytes(b"0\n3\norders 0 1\n")
    with pytest.raises(EnvironmentFailure, match="log-start-offset-checkpoint is damaged"):
        open_directory(tmp_path)


def test_very_long_topic_names_can_be_deleted(tmp_path: Path) -> None:
    """The renamed directory still fits a directory entry."""
    directory = open_directory(tmp_path)
    name = "x" * 249
    directory.open_partition(name, 0, TOPIC_ID, TINY, NOW_MS)
    directory.delete_partition(name, 0, NOW_MS)
    assert directory.existing() == []
    directory.close()


async def test_checkpoint_files_follow_the_partitions(tmp_path: Path) -> None:
    """What was saved is what a restart after a crash starts from."""
    env = real_env()
    directory = open_directory(tmp_path, env)
    log = open_orders(directory)
    for number in range(40):
        append(log, batch_of(b"%d" % number))
    log.high_watermark = 30
    log.delete_records_before(5)
    async with Scope("test") as scope:
        assert await Flusher(env, scope).checkpoint(log)
    directory.cleaner_offsets["orders", 0] = 3
    assert sorted(directory.unsaved()) == sorted(
        [RECOVERY_POINT_FILE, HIGH_WATERMARK_FILE, LOG_START_FILE, CLEANER_FILE]
    )
    directory.save_checkpoints()
    assert directory.unsaved() == {}
    saved = {
        name: decode_offsets((tmp_path / "data" / name).read_bytes()) for name in (RECOVERY_POINT_FILE, CLEANER_FILE)
    }
    assert saved == {RECOVERY_POINT_FILE: {("orders", 0): 40}, CLEANER_FILE: {("orders", 0): 3}}
    directory.abandon()
    directory = open_directory(tmp_path, env)
    log = open_orders(directory)
    assert (log.log_start_offset, log.high_watermark, log.recovery_report.walked_bytes < 200) == (5, 30, True)
    assert directory.cleaner_offsets == {("orders", 0): 3}
    directory.close()
    env.offload.close()
