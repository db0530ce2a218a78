"""Every topic config: name, type, default, what values it takes, and which broker settings stand in for it.

One row a config, as Kafka 4.3 has them, plus one of ours. CreateTopics and IncrementalAlterConfigs validate
against this table, DescribeConfigs prints it, `LogConfig` reads its values from it. A value is found in three
places, in this order: the topic's own override, the broker's setting of the row's synonym (`log.retention.hours`
for `retention.ms`, with its unit converted), the default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from streamlog.errors import StreamlogError

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1
MINUTE_MS = 60_000
HOUR_MS = 3_600_000

FLUSH = "streamlog.flush"
FLUSH_AUTO = "auto"
FLUSH_BEFORE_ACK = "before-ack"
FLUSH_OS = "os"


class InvalidConfig(StreamlogError):
    """A config name or value that a topic cannot have (INVALID_CONFIG); the message says why."""


class ConfigType(IntEnum):
    """As DescribeConfigs numbers them."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7


class ConfigSource(IntEnum):
    """Where a value comes from, as DescribeConfigs numbers it."""

    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5


class Synonym(NamedTuple):
    broker_name: str
    factor: int = 1
    """What a broker value is multiplied with to be a topic value."""


class ConfigValue(NamedTuple):
    value: str
    source: ConfigSource
    source_name: str
    """The config that gave the value: the topic's name of it or the broker's."""


@dataclass(frozen=True, slots=True)
class TopicConfig:
    name: str
    type: ConfigType
    default: str
    documentation: str
    synonyms: tuple[Synonym, ...] = ()
    """First one set wins."""
    minimum: float | None = None
    maximum: float | None = None
    also: tuple[int, ...] = ()
    """Values allowed outside [minimum, maximum]."""
    choices: tuple[str, ...] = ()
    check: Callable[[str], str | None] | None = None
    """A further check: what is wrong with a value, or None."""

    def validate(self, value: str) -> None:
        """Raise InvalidConfig if a topic cannot have this value."""
        reason = self._reason_against(value)
        if reason is not None:
            raise InvalidConfig(f"Invalid value {value} for configuration {self.name}: {reason}")

    def _reason_against(self, value: str) -> str | None:
        if self.check is not None:
            return self.check(value)
        match self.type:
            case ConfigType.BOOLEAN:
                return None if value.strip().lower() in ("true", "false") else "expected true or false"
            case ConfigType.STRING:
                return None if value in self.choices else f"must be one of {', '.join(self.choices)}"
            case ConfigType.LIST:
                return _reason_against_list(value, self.choices)
            case ConfigType.DOUBLE:
                return self._reason_against_number(value, float)
            case ConfigType.INT | ConfigType.SHORT | ConfigType.LONG:
                return self._reason_against_number(value, int)

    def _reason_against_number(self, value: str, parse: Callable[[str], float]) -> str | None:
        try:
            number = parse(value.strip())
        except ValueError:
            return f"not a number of type {self.type.name}"
        widest = LONG_MAX if self.type is ConfigType.LONG else INT_MAX
        if number in self.also:
            return None
        if self.minimum is not None and number < self.minimum:
            return f"must be at least {_plain(self.minimum)}"
        maximum = self.maximum if self.maximum is not None else widest
        if number > maximum or number < -widest - 1 or number != number:
            return f"must be at most {_plain(maximum)}"
        return None


def _plain(number: float) -> str:
    """All digits of a whole number: nobody reads 1.04858e+06 as a mebibyte."""
    return str(int(number)) if number == int(number) else str(number)


def _reason_against_list(value: str, choices: tuple[str, ...]) -> str | None:
    if value.strip() and not all(part.strip() for part in value.split(",")):
        return "an item is empty"
    items = parse_list(value)
    wrong = [item for item in items if item not in choices]
    if wrong:
        return f"{wrong[0]!r} is none of {', '.join(choices)}"
    return "an item is named twice" if len(set(items)) < len(items) else None


def _reason_against_throttle(value: str) -> str | None:
    if value.strip() == "*" or all(re.fullmatch(r"\d+:\d+", item) for item in parse_list(value)):
        return None
    return "must be * or a list of [partitionId]:[brokerId]"


def _reason_against_tiered(value: str) -> str | None:
    if value.strip().lower() == "false":
        return None
    return "tiered storage is not available in this broker" if value.strip().lower() == "true" else "expected false"


_B, _S, _I, _L = ConfigType.BOOLEAN, ConfigType.STRING, ConfigType.INT, ConfigType.LONG

_ROWS = (
    TopicConfig(
        "cleanup.policy", ConfigType.LIST, "delete",
        "What happens to old records: delete by time and size, compact by key, or both.",
        (Synonym("log.cleanup.policy"),), choices=("compact", "delete"),
    ),
    TopicConfig(
        "compression.gzip.level", _I, "-1", "Level of gzip when compression.type is gzip; -1 is gzip's own default.",
        (Synonym("compression.gzip.level"),), minimum=1, maximum=9, also=(-1,),
    ),
    TopicConfig(
        "compression.lz4.level", _I, "9", "Level of lz4 when compression.type is lz4.",
        (Synonym("compression.lz4.level"),), minimum=1, maximum=17,
    ),
    TopicConfig(
        "compression.type", _S, "producer", "Compression on disk: what the producer chose, or always this one.",
        (Synonym("compression.type"),), choices=("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
    ),
    TopicConfig(
        "compression.zstd.level", _I, "3", "Level of zstd when compression.type is zstd.",
        (Synonym("compression.zstd.level"),), minimum=-131072, maximum=22,
    ),
    TopicConfig(
        "delete.retention.ms", _L, "86400000", "How long a compacted topic keeps tombstones for readers to see.",
        (Synonym("log.cleaner.delete.retention.ms"),), minimum=0,
    ),
    TopicConfig(
        "file.delete.delay.ms", _L, "60000", "How long a deleted file waits under its .deleted name.",
        (Synonym("log.segment.delete.delay.ms"),), minimum=0,
    ),
    TopicConfig(
        "flush.messages", _L, str(LONG_MAX), "Flush to disk after this many records.",
        (Synonym("log.flush.interval.messages"),), minimum=1,
    ),
    TopicConfig(
        "flush.ms", _L, str(LONG_MAX), "Flush to disk after this long.",
        (Synonym("log.flush.interval.ms"), Synonym("log.flush.scheduler.interval.ms")), minimum=0,
    ),
    TopicConfig(
        "follower.replication.throttled.replicas", ConfigType.LIST, "",
        "Replicas whose following is throttled: * or [partitionId]:[brokerId],...", check=_reason_against_throttle,
    ),
    TopicConfig(
        "index.interval.bytes", _I, "4096", "Bytes of log between two index entries.",
        (Synonym("log.index.interval.bytes"),), minimum=0,
    ),
    TopicConfig(
        "leader.replication.throttled.replicas", ConfigType.LIST, "",
        "Replicas whose leading is throttled: * or [partitionId]:[brokerId],...", check=_reason_against_throttle,
    ),
    TopicConfig(
        "local.retention.bytes", _L, "-2", "Only for tiered storage, which this broker does not have.",
        (Synonym("log.local.retention.bytes"),), minimum=-2,
    ),
    TopicConfig(
        "local.retention.ms", _L, "-2", "Only for tiered storage, which this broker does not have.",
        (Synonym("log.local.retention.ms"),), minimum=-2,
    ),
    TopicConfig(
        "max.compaction.lag.ms", _L, str(LONG_MAX), "A record is compacted no later than this after it was written.",
        (Synonym("log.cleaner.max.compaction.lag.ms"),), minimum=1,
    ),
    TopicConfig(
        "max.message.bytes", _I, "1048588", "Largest record batch, header included.",
        (Synonym("message.max.bytes"),), minimum=0,
    ),
    TopicConfig(
        "message.timestamp.after.max.ms", _L, "3600000", "How far in the future a record's timestamp may lie.",
        (Synonym("log.message.timestamp.after.max.ms"),), minimum=0,
    ),
    TopicConfig(
        "message.timestamp.before.max.ms", _L, str(LONG_MAX), "How far in the past a record's timestamp may lie.",
        (Synonym("log.message.timestamp.before.max.ms"),), minimum=0,
    ),
    TopicConfig(
        "message.timestamp.type", _S, "CreateTime", "Whose clock stamps records: the producer's or the broker's.",
        (Synonym("log.message.timestamp.type"),), choices=("CreateTime", "LogAppendTime"),
    ),
    TopicConfig(
        "min.cleanable.dirty.ratio", ConfigType.DOUBLE, "0.5", "Compact when this share of the log is not compacted.",
        (Synonym("log.cleaner.min.cleanable.ratio"),), minimum=0, maximum=1,
    ),
    TopicConfig(
        "min.compaction.lag.ms", _L, "0", "A record stays uncompacted at least this long.",
        (Synonym("log.cleaner.min.compaction.lag.ms"),), minimum=0,
    ),
    TopicConfig(
        "min.insync.replicas", _I, "1", "Replicas that must have a record before acks=all is answered.",
        (Synonym("min.insync.replicas"),), minimum=1,
    ),
    TopicConfig(
        "preallocate", _B, "false", "Accepted for compatibility; files grow as they are written.",
        (Synonym("log.preallocate"),),
    ),
    TopicConfig(
        "remote.log.copy.disable", _B, "false", "Only for tiered storage, which this broker does not have.",
    ),
    TopicConfig(
        "remote.log.delete.on.disable", _B, "false", "Only for tiered storage, which this broker does not have.",
    ),
    TopicConfig(
        "remote.storage.enable", _B, "false", "Tiered storage, which this broker does not have.",
        check=_reason_against_tiered,
    ),
    TopicConfig(
        "retention.bytes", _L, "-1", "Delete the oldest segments while a partition is larger; -1: no limit.",
        (Synonym("log.retention.bytes"),),
    ),
    TopicConfig(
        "retention.ms", _L, "604800000", "Delete segments whose newest record is older; -1: no limit.",
        (Synonym("log.retention.ms"), Synonym("log.retention.minutes", MINUTE_MS),
         Synonym("log.retention.hours", HOUR_MS)),
        minimum=-1,
    ),
    TopicConfig(
        "segment.bytes", _I, "1073741824", "Size at which a segment is closed and the next one begun.",
        (Synonym("log.segment.bytes"),), minimum=1048576,
    ),
    TopicConfig(
        "segment.index.bytes", _I, "10485760", "Size of a segment's offset index at which the segment is closed.",
        (Synonym("log.index.size.max.bytes"),), minimum=4,
    ),
    TopicConfig(
        "segment.jitter.ms", _L, "0", "Up to this much is taken off segment.ms, so that segments do not roll at once.",
        (Synonym("log.roll.jitter.ms"), Synonym("log.roll.jitter.hours", HOUR_MS)), minimum=0,
    ),
    TopicConfig(
        "segment.ms", _L, "604800000", "Age at which a segment is closed even if it is small.",
        (Synonym("log.roll.ms"), Synonym("log.roll.hours", HOUR_MS)), minimum=1,
    ),
    TopicConfig(
        FLUSH, _S, FLUSH_AUTO,
        "When a produced batch counts as stored: before-ack (it is on disk, flushed together with others that wait), "
        "os (the operating system flushes when it likes, replicas protect the data, as in Kafka), or auto (before-ack "
        "for a topic with one replica, os for the others).",
        (Synonym(FLUSH),), choices=(FLUSH_AUTO, FLUSH_BEFORE_ACK, FLUSH_OS),
    ),
    TopicConfig(
        "unclean.leader.election.enable", _B, "false", "Whether a replica that lacks records may become leader.",
        (Synonym("unclean.leader.election.enable"),),
    ),
)  # fmt: skip

TOPIC_CONFIGS: Mapping[str, TopicConfig] = {row.name: row for row in _ROWS}
"""All topic configs by name, sorted by name."""


def parse_list(value: str) -> list[str]:
    """Items of a list config: comma-separated, blanks around them do not count."""
    return [item for item in (part.strip() for part in value.split(",")) if item]


def validate_topic_configs(overrides: Mapping[str, str]) -> None:
    """Raise InvalidConfig for the first unknown name, impossible value, or pair of values that contradict."""
    for name, value in overrides.items():
        row = TOPIC_CONFIGS.get(name)
        if row is None:
            raise InvalidConfig(f"Unknown topic config name: {name}")
        row.validate(value)
    values = {name: found.value for name, found in effective_values(overrides, {}).items()}
    if int(values["min.compaction.lag.ms"]) > int(values["max.compaction.lag.ms"]):
        raise InvalidConfig("min.compaction.lag.ms is larger than max.compaction.lag.ms")


def effective_values(overrides: Mapping[str, str], broker: Mapping[str, str]) -> dict[str, ConfigValue]:
    """The value of every topic config and where it comes from, given a topic's overrides and a broker's settings."""
    layers = [(ConfigSource.STATIC_BROKER, broker)]
    return {name: find_value(row, overrides, layers)[0] for name, row in TOPIC_CONFIGS.items()}


def find_value(
    row: TopicConfig, overrides: Mapping[str, str], layers: Sequence[tuple[ConfigSource, Mapping[str, str]]]
) -> tuple[ConfigValue, list[ConfigValue]]:
    """A topic's config, and all that sets it, the one that wins first, each in the unit of its own name.

    Args: layers: settings of the broker, the ones that win first.
    As in Kafka the default is listed only under a name that means the same: nothing says log.retention.ms by default.
    Unlike there, a setting under another name (log.retention.hours) is listed, and is the source, where it wins.
    """
    found: list[ConfigValue] = []
    winner: ConfigValue | None = None
    if row.name in overrides:
        winner = ConfigValue(overrides[row.name], ConfigSource.TOPIC, row.name)
        found.append(winner)
    for synonym in row.synonyms:
        for source, values in layers:
            value = values.get(synonym.broker_name)
            if value is not None:
                found.append(ConfigValue(value, source, synonym.broker_name))
                text = value if synonym.factor == 1 else str(_scaled(int(value), synonym.factor))
                winner = winner or ConfigValue(text, source, synonym.broker_name)
    default = ConfigValue(row.default, ConfigSource.DEFAULT, row.name)
    if len(row.synonyms) == 1:
        default = default._replace(source_name=row.synonyms[0].broker_name)
        found.append(default)
    return winner or default, found


def _scaled(value: int, factor: int) -> int:
    """-1 means "no limit" in every unit."""
    return value if value < 0 else value * factor


def broker_names() -> Iterable[str]:
    """Broker settings that some topic config reads."""
    return sorted({synonym.broker_name for row in _ROWS for synonym in row.synonyms})
