"""The table of topic configs, against the list read out of Kafka 4.3.1, and what it refuses."""

from __future__ import annotations

import pytest

from streamlog.broker.log.config import LogConfig
from streamlog.broker.topic_configs import (
    TOPIC_CONFIGS,
    ConfigSource,
    InvalidConfig,
    effective_values,
    find_value,
    validate_topic_configs,
)
from streamlog.wire.records import Compression

KAFKAS = {
    "cleanup.policy", "compression.gzip.level", "compression.lz4.level", "compression.type", "compression.zstd.level",
    "delete.retention.ms", "file.delete.delay.ms", "flush.messages", "flush.ms",
    "follower.replication.throttled.replicas", "index.interval.bytes", "leader.replication.throttled.replicas",
    "local.retention.bytes", "local.retention.ms", "max.compaction.lag.ms", "max.message.bytes",
    "message.timestamp.after.max.ms", "message.timestamp.before.max.ms", "message.timestamp.type",
    "min.cleanable.dirty.ratio", "min.compaction.lag.ms", "min.insync.replicas", "preallocate",
    "remote.log.copy.disable", "remote.log.delete.on.disable", "remote.storage.enable", "retention.bytes",
    "retention.ms", "segment.bytes", "segment.index.bytes", "segment.jitter.ms", "segment.ms",
    "unclean.leader.election.enable",
}  # fmt: skip


def test_every_config_of_kafka_is_there_and_one_of_ours() -> None:
    """Nothing else is, so that nothing is accepted and ignored."""
    assert set(TOPIC_CONFIGS) == KAFKAS | {"streamlog.flush"}


def test_defaults_are_valid_and_mean_what_the_dataclass_says() -> None:
    """A topic without overrides on a broker without settings."""
    for row in TOPIC_CONFIGS.values():
        row.validate(row.default)
    assert LogConfig.from_topic({}, {}) == LogConfig()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention.mss", "1"),
        ("retention.ms", "-2"),
        ("retention.ms", "soon"),
        ("segment.bytes", "1000"),
        ("segment.bytes", "2147483648"),
        ("cleanup.policy", "archive"),
        ("cleanup.policy", "delete,delete"),
        ("compression.type", "brotli"),
        ("compression.gzip.level", "0"),
        ("min.cleanable.dirty.ratio", "1.5"),
        ("min.cleanable.dirty.ratio", "nan"),
        ("preallocate", "maybe"),
        ("remote.storage.enable", "true"),
        ("leader.replication.throttled.replicas", "1:2,x"),
        ("streamlog.flush", "never"),
    ],
)
def test_impossible_values_are_refused_by_name(name: str, value: str) -> None:
    """INVALID_CONFIG, and the message says which config and why."""
    with pytest.raises(InvalidConfig, match=name):
        validate_topic_configs({name: value})


def test_possible_values_are_accepted() -> None:
    """Lists with blanks, both policies, -1 where it means no limit or a default."""
    validate_topic_configs(
        {
            "cleanup.policy": " compact , delete ",
            "retention.ms": "-1",
            "compression.gzip.level": "-1",
            "compression.zstd.level": "-7",
            "follower.replication.throttled.replicas": "*",
            "leader.replication.throttled.replicas": "0:1,1:2",
            "preallocate": "TRUE",
        }
    )


def test_configs_that_contradict_each_other_are_refused() -> None:
    """The lags of compaction, as in Kafka."""
    with pytest.raises(InvalidConfig, match=r"min\.compaction\.lag\.ms"):
        validate_topic_configs({"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "9"})


def test_override_beats_broker_setting_beats_default() -> None:
    """Broker settings under their own names and units, the most exact one first."""
    broker = {"log.retention.hours": "2", "log.retention.minutes": "5", "message.max.bytes": "999"}
    values = effective_values({"max.message.bytes": "7"}, broker)
    assert values["max.message.bytes"] == ("7", ConfigSource.TOPIC, "max.message.bytes")
    assert values["retention.ms"] == ("300000", ConfigSource.STATIC_BROKER, "log.retention.minutes")
    assert values["segment.bytes"] == ("1073741824", ConfigSource.DEFAULT, "log.segment.bytes")
    _, found = find_value(TOPIC_CONFIGS["retention.ms"], {}, [(ConfigSource.STATIC_BROKER, broker)])
    assert [(entry.source_name, entry.value) for entry in found] == [
        ("log.retention.minutes", "5"),
        ("log.retention.hours", "2"),
    ]
    assert LogConfig.from_topic({}, {"log.retention.hours": "-1"}).retention_ms == -1


def test_log_config_reads_what_needs_reading() -> None:
    """Policies, compression with its level, and when a produce response waits for the disk."""
    config = LogConfig.from_topic(
        {"cleanup.policy": "compact", "compression.type": "zstd", "compression.zstd.level": "9"}, {}
    )
    assert (config.compact, config.delete) == (True, False)
    assert (config.compression, config.compression_level) == (Compression.ZSTD, 9)
    assert config.flushes_before_ack(1)
    assert not config.flushes_before_ack(3)
    assert LogConfig.from_topic({"streamlog.flush": "before-ack"}, {}).flushes_before_ack(3)
    assert LogConfig.from_topic({"flush.messages": "1"}, {"streamlog.flush": "os"}).flushes_before_ack(3)
    assert not LogConfig.from_topic({"streamlog.flush": "os"}, {}).flushes_before_ack(1)
