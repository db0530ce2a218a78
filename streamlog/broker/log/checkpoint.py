"""The small text files of a data directory, byte for byte as Kafka writes them.

Three shapes. Offset checkpoints (`recovery-point-offset-checkpoint`, `replication-offset-checkpoint`,
`log-start-offset-checkpoint`, `cleaner-offset-checkpoint`) and `leader-epoch-checkpoint` are a version line, a
count line and one entry a line. `partition.metadata` is two `name: value` lines. `meta.properties` is a Java
properties file. All are written with `Storage.write_atomic`, so a reader sees the old file or the new one; the
count line still catches a file that somebody else cut.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TypeAlias

from streamlog.errors import EnvironmentFailure
from streamlog.wire.uuids import uuid_from_text, uuid_to_text

RECOVERY_POINT_FILE = "recovery-point-offset-checkpoint"
HIGH_WATERMARK_FILE = "replication-offset-checkpoint"
LOG_START_FILE = "log-start-offset-checkpoint"
CLEANER_FILE = "cleaner-offset-checkpoint"
LEADER_EPOCH_FILE = "leader-epoch-checkpoint"
PARTITION_METADATA_FILE = "partition.metadata"
META_PROPERTIES_FILE = "meta.properties"
CLEAN_SHUTDOWN_FILE = ".kafka_cleanshutdown"

CHECKPOINT_VERSION = 0

TopicPartition: TypeAlias = tuple[str, int]


class DamagedCheckpoint(EnvironmentFailure):
    """A checkpoint file does not parse. The message names what is wrong; the caller knows the path."""


def encode_offsets(offsets: Mapping[TopicPartition, int]) -> bytes:
    """`0`, the count, then `topic partition offset` lines, sorted so that equal maps give equal files."""
    return _encode_lines(f"{topic} {partition} {offset}" for (topic, partition), offset in sorted(offsets.items()))


def decode_offsets(data: bytes) -> dict[TopicPartition, int]:
    """The inverse of `encode_offsets`. Kafka creates these files empty. Raises DamagedCheckpoint."""
    if not data:
        return {}
    offsets: dict[TopicPartition, int] = {}
    for fields in _decode_lines(data, field_count=3):
        offsets[fields[0], _integer(fields[1])] = _integer(fields[2])
    return offsets


def encode_epochs(entries: Iterable[tuple[int, int]]) -> bytes:
    """`leader-epoch-checkpoint`: `epoch start_offset` lines in rising order."""
    return _encode_lines(f"{epoch} {start_offset}" for epoch, start_offset in entries)


def decode_epochs(data: bytes) -> list[tuple[int, int]]:
    """(epoch, start offset) pairs, both strictly or weakly rising as Kafka keeps them. Raises DamagedCheckpoint."""
    entries = [(_integer(fields[0]), _integer(fields[1])) for fields in _decode_lines(data, field_count=2)]
    for (epoch, start), (next_epoch, next_start) in pairwise(entries):
        if next_epoch <= epoch or next_start < start:
            raise DamagedCheckpoint(f"leader epochs do not rise: {epoch}@{start} then {next_epoch}@{next_start}")
    return entries


def encode_partition_metadata(topic_id: uuid.UUID) -> bytes:
    return f"version: 0\ntopic_id: {uuid_to_text(topic_id)}".encode()


def is_torn_partition_metadata(data: bytes) -> bool:
    """Whether this is the beginning of a `partition.metadata` and not all of it."""
    whole = encode_partition_metadata(uuid.UUID(int=0))
    head = whole[: whole.rindex(b" ") + 1]
    return len(data) < len(whole) and (head.startswith(data) or data.startswith(head))


def decode_partition_metadata(data: bytes) -> uuid.UUID:
    """The topic id a partition directory belongs to (KIP-516). Raises DamagedCheckpoint."""
    values = _decode_pairs(data, ":")
    if values.get("version") != "0" or "topic_id" not in values:
        raise DamagedCheckpoint("partition.metadata has no version 0 with a topic_id")
    try:
        return uuid_from_text(values["topic_id"])
    except ValueError as error:
        raise DamagedCheckpoint(f"partition.metadata: {error}") from None


def encode_meta_properties(*, cluster_id: str, node_id: int, directory_id: uuid.UUID) -> bytes:
    """`meta.properties` version 1, as `kafka-storage format` writes it."""
    lines = [
        "#",
        f"cluster.id={cluster_id}",
        f"directory.id={uuid_to_text(directory_id)}",
        f"node.id={node_id}",
        "version=1",
    ]
    return ("\n".join(lines) + "\n").encode()


def decode_meta_properties(data: bytes) -> dict[str, str]:
    """All properties. Raises DamagedCheckpoint when the three that identify a directory are not there."""
    values = _decode_pairs(data, "=")
    for name in ("version", "cluster.id", "node.id"):
        if name not in values:
            raise DamagedCheckpoint(f"meta.properties has no {name}")
    return values


def _encode_lines(entries: Iterable[str]) -> bytes:
    lines = list(entries)
    return "\n".join([str(CHECKPOINT_VERSION), str(len(lines)), *lines, ""]).encode()


def _decode_lines(data: bytes, *, field_count: int) -> list[list[str]]:
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise DamagedCheckpoint("the checkpoint is not text") from error
    if len(lines) < 2 or _integer(lines[0]) != CHECKPOINT_VERSION:
        raise DamagedCheckpoint(f"expected version {CHECKPOINT_VERSION} and a count")
    entries = [line.split() for line in lines[2:] if line]
    if len(entries) != _integer(lines[1]):
        raise DamagedCheckpoint(f"the count says {lines[1]} entries, the file has {len(entries)}")
    for fields in entries:
        if len(fields) != field_count:
            raise DamagedCheckpoint(f"expected {field_count} fields in {' '.join(fields)!r}")
    return entries


def _decode_pairs(data: bytes, separator: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for line in data.decode(errors="replace").splitlines():
        name, found, value = line.partition(separator)
        if found and not line.startswith("#"):
            values[name.strip()] = value.strip()
    return values


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise DamagedCheckpoint(f"{text!r} is not a number") from error
