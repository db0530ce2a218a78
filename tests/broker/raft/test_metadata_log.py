"""The metadata log and its snapshots on disk: what a crash leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamlog.broker.log.directory import LogDirectory
from streamlog.broker.metadata.topic_names import CLUSTER_METADATA
from streamlog.broker.raft.messages import SnapshotId
from streamlog.broker.raft.metadata_log import MetadataLog
from streamlog.broker.raft.quorum import DIRECTORY_NAME, LOG_CONFIG
from streamlog.broker.raft.snapshot import encode_snapshot
from streamlog.env import real_env
from streamlog.wire.uuids import METADATA_TOPIC_ID


@contextmanager
def opened(path: Path) -> Iterator[MetadataLog]:
    """Left as a killed process leaves it."""
    env = real_env()
    logs = LogDirectory.open(env, str(path), node_id=1, now_ms=0)
    partition = logs.open_partition(CLUSTER_METADATA, 0, METADATA_TOPIC_ID, LOG_CONFIG, 0)
    yield MetadataLog(env, str(path / DIRECTORY_NAME), partition)
    logs.abandon()
    env.offload.close()


@pytest.mark.parametrize("end_offset", [4, 8, 10, 12])
def test_a_log_that_a_received_snapshot_was_to_replace_is_gone_after_a_crash(tmp_path: Path, end_offset: int) -> None:
    """The snapshot had its name, and the log was still there: from offset 5 on with records of a dead epoch that were
    never committed. Longer than the snapshot or shorter, it must not be taken for what follows it."""
    with opened(tmp_path) as log:
        for _ in range(2):
            log.append_values(1, [b"never committed"] * 5, 0)
    snapshot_id = SnapshotId(end_offset, 5)
    data = encode_snapshot([b"fold"], epoch=5, voters=None, last_timestamp_ms=0, now_ms=0)
    (tmp_path / DIRECTORY_NAME / snapshot_id.file_name).write_bytes(data)
    with opened(tmp_path) as log:
        assert (log.start_offset, log.end_offset, log.last_epoch) == (end_offset, end_offset, 5)
        found = log.take_snapshot()
        assert found is not None
        assert (found[0], list(found[1].values)) == (snapshot_id, [b"fold"])
        log.append_values(5, [b"committed"], 0)
    with opened(tmp_path) as log:
        assert [record.value for record in log.records(end_offset, end_offset + 1)] == [b"committed"]


def test_a_log_stays_behind_a_snapshot_of_its_own(tmp_path: Path) -> None:
    """What it holds beyond the snapshot may be committed, also where an epoch ends with the snapshot."""
    with opened(tmp_path) as log:
        for epoch in (1, 5):
            log.append_values(epoch, [b"committed"] * 5, 0)
            log.partition.high_watermark = log.end_offset
        log.store_snapshot(SnapshotId(5, 1), [b"fold"], None, 0)
    with opened(tmp_path) as log:
        assert (log.end_offset, log.last_epoch) == (10, 5)
        assert len(list(log.records(5, 10))) == 5
