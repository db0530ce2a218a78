"""The JSON files of Kafka's tools: read as they are written there, refused in one sentence otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamlog.cli.reassignment_file import parse_partitions, parse_reassignment, parse_topics, reassignment
from streamlog.client.values import TopicPartition
from streamlog.errors import UserError


def write(path: Path, text: str) -> Path:
    file = path / "file.json"
    file.write_text(text)
    return file


def test_a_reassignment_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """With the data directories that Kafka's tool insists on."""
    replicas = {TopicPartition("b", 1): (3, 1), TopicPartition("a", 0): (2,)}
    written = reassignment(replicas)
    assert written["partitions"][0] == {"topic": "a", "partition": 0, "replicas": [2], "log_dirs": ["any"]}
    assert parse_reassignment(write(tmp_path, json.dumps(written))) == replicas


def test_topics_and_partitions_are_read_as_kafka_writes_them(tmp_path: Path) -> None:
    """A version may be missing, and what is named twice counts once."""
    topics = write(tmp_path, '{"topics": [{"topic": "a"}, {"topic": "b"}, {"topic": "a"}], "version": 1}')
    assert parse_topics(topics) == ["a", "b"]
    partitions = write(tmp_path, '{"partitions": [{"topic": "a", "partition": 1}, {"topic": "b", "partition": 0}]}')
    assert parse_partitions(partitions) == [TopicPartition("a", 1), TopicPartition("b", 0)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "cannot be read"),
        ("[]", 'has no list "partitions"'),
        ('{"partitions": {}}', 'has no list "partitions"'),
        ('{"partitions": []}', "is empty"),
        ('{"version": 2, "partitions": [{}]}', "is of version 2"),
        ('{"partitions": [{"topic": "a"}]}', 'needs "topic" and "partition"'),
        ('{"partitions": [{"topic": "a", "partition": true, "replicas": [1]}]}', 'needs "topic" and "partition"'),
        ('{"partitions": [{"topic": "a", "partition": 0}]}', 'a-0 needs "replicas"'),
        ('{"partitions": [{"topic": "a", "partition": 0, "replicas": []}]}', 'a-0 needs "replicas"'),
        ('{"partitions": [{"topic": "a", "partition": 0, "replicas": ["1"]}]}', 'a-0 needs "replicas"'),
        ('{"partitions": [{"topic": "a", "partition": 0, "replicas": [1, 1]}]}', "a-0 names a broker twice"),
        (
            '{"partitions": [{"topic": "a", "partition": 0, "replicas": [1], "log_dirs": ["/data"]}]}',
            "a-0 names data directories",
        ),
        ('{"partitions": [' + ", ".join(['{"topic": "a", "partition": 0, "replicas": [1]}'] * 2) + "]}", "twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, why: str) -> None:
    """By its name, and by partition."""
    path = write(tmp_path, text)
    with pytest.raises(UserError) as refused:
        parse_reassignment(path)
    assert str(path) in str(refused.value)
    assert why in str(refused.value)
