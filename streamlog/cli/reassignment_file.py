"""The JSON files that Kafka's tools exchange about partitions: topics, partitions, where replicas shall be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamlog.client.values import TopicPartition
from streamlog.errors import UserError

ANY_DIRECTORY = "any"


def parse_reassignment(path: Path) -> dict[TopicPartition, tuple[int, ...]]:
    """What `kafka-reassign-partitions --reassignment-json-file` reads. Raises UserError."""
    found: dict[TopicPartition, tuple[int, ...]] = {}
    for entry in _entries(path, "partitions"):
        one = _partition(path, entry)
        replicas = entry.get("replicas")
        if not isinstance(replicas, list) or not replicas or not all(_is_number(number) for number in replicas):
            raise UserError(f'{path}: {one} needs "replicas", a list of broker numbers: [1, 2, 3]')
        if len(set(replicas)) < len(replicas):
            raise UserError(f"{path}: {one} names a broker twice")
        if one in found:
            raise UserError(f"{path}: {one} is there twice")
        if any(place != ANY_DIRECTORY for place in entry.get("log_dirs") or ()):
            raise UserError(f'{path}: {one} names data directories; only "any" is known here')
        found[one] = tuple(replicas)
    return found


def parse_partitions(path: Path) -> list[TopicPartition]:
    """What `kafka-leader-election --path-to-json-file` reads. Raises UserError."""
    return list(dict.fromkeys(_partition(path, entry) for entry in _entries(path, "partitions")))


def parse_topics(path: Path) -> list[str]:
    """What `kafka-reassign-partitions --topics-to-move-json-file` reads. Raises UserError."""
    names = [entry.get("topic") for entry in _entries(path, "topics")]
    if not all(isinstance(name, str) for name in names):
        raise UserError(f'{path}: every entry of "topics" is {{"topic": NAME}}')
    return [str(name) for name in dict.fromkeys(names)]


def reassignment(replicas: Mapping[TopicPartition, Sequence[int]]) -> dict[str, Any]:
    """As Kafka's tool writes it."""
    return {
        "version": 1,
        "partitions": [
            {
                "topic": one.topic,
                "partition": one.partition,
                "replicas": list(replicas[one]),
                "log_dirs": [ANY_DIRECTORY] * len(replicas[one]),
            }
            for one in sorted(replicas)
        ],
    }


def _entries(path: Path, name: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    entries = found.get(name) if isinstance(found, dict) else None
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise UserError(f'{path} has no list "{name}"; Kafka writes {{"version": 1, "{name}": [...]}}')
    if found.get("version", 1) != 1:
        raise UserError(f"{path} is of version {found['version']}; 1 is the one there is")
    if not entries:
        raise UserError(f'{path}: "{name}" is empty')
    return entries


def _partition(path: Path, entry: Mapping[str, Any]) -> TopicPartition:
    topic, number = entry.get("topic"), entry.get("partition")
    if not isinstance(topic, str) or not isinstance(number, int) or not _is_number(number):
        raise UserError(f'{path}: {json.dumps(entry)} needs "topic" and "partition", a name and a number')
    return TopicPartition(topic, number)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
