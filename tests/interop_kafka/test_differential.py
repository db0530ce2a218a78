"""The same requests, right and wrong, to our broker and to Apache Kafka: the same answers.

The cases are in the modules `cases_*`. What is known to differ is in `KNOWN`, difference by difference, with the
reason; anything else, and anything that does not differ any more, fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from tests.broker.running import BrokerProcess
from tests.interop_kafka import (
    cases_admin,
    cases_fetch,
    cases_frames,
    cases_groups,
    cases_idempotence,
    cases_members,
    cases_produce,
    cases_sessions,
    cases_topics,
    cases_versions,
)
from tests.interop_kafka.cases import CASES
from tests.interop_kafka.peers import Peer, differences
from tests.kafka_node import KafkaNode

pytestmark = [pytest.mark.interop_kafka, pytest.mark.timeout(120)]

MODULES: Final = (
    cases_frames,
    cases_produce,
    cases_idempotence,
    cases_fetch,
    cases_sessions,
    cases_topics,
    cases_admin,
    cases_groups,
    cases_members,
    cases_versions,
)


class Known(NamedTuple):
    """A difference that stays."""

    reason: str
    differences: list[str]


UNEXPECTED = "both refuse it; Kafka answers with the error of an exception that nobody expected"


PRODUCED = "[0].responses[0].partition_responses[0]"

TAKEN = [
    f"{PRODUCED}.error_code: ours 87, Kafka's 0",
    f"{PRODUCED}.base_offset: ours -1, Kafka's 0",
    f"{PRODUCED}.log_start_offset: ours -1, Kafka's 0",
    "[1].responses[0].partition_responses[0].base_offset: ours 0, Kafka's 1",
]

TWO_TAKEN = [*TAKEN[:-1], "[1].responses[0].partition_responses[0].base_offset: ours 0, Kafka's 2"]

RETENTION_MS = (
    "{'error_code': 0, 'resource_type': 2, 'resource_name': 'keys', 'configs': [{'name': 'retention.ms', "
    "'value': '604800000', 'read_only': False, 'config_source': 5, 'is_sensitive': False, 'synonyms': [], "
    "'config_type': 5, 'documentation': None}]}"
)

KNOWN: dict[str, Known] = {
    "array_count_negative": Known(
        "for Kafka every negative count means null; no encoder writes one below -1, and we close",
        [": ours False, Kafka's True"],
    ),
    "batch_compression_unknown": Known(UNEXPECTED, [f"{PRODUCED}.error_code: ours 2, Kafka's -1"]),
    **{
        f"batch_garbage_as_{codec}": Known(UNEXPECTED, [f"{PRODUCED}.error_code: ours 87, Kafka's -1"])
        for codec in ("gzip", "snappy", "lz4", "zstd")
    },
    **{
        f"batch_{what}_{compression}": Known("Kafka takes it, we refuse it: only -1 means null", TAKEN)
        for what in ("key_size_negative", "value_size_negative", "header_value_negative")
        for compression in ("none", "gzip")
    },
    "batch_offset_gap_none": Known("Kafka takes it, we refuse it: one record would have no offset", TWO_TAKEN),
    "batch_offset_twice_none": Known("Kafka takes it, we refuse it: two records would share an offset", TWO_TAKEN),
    **{
        f"batch_{what}": Known(UNEXPECTED, [f"{PRODUCED}.error_code: ours 87, Kafka's -1"])
        for what in ("offset_gap_gzip", "offset_twice_gzip", "size_varint_too_long_none")
    },
    "batch_log_append_time": Known(
        "Kafka's validator means to refuse what a producer stamps as the broker, and forgets it on CreateTime topics",
        [
            f"{PRODUCED}.error_code: ours 32, Kafka's 0",
            f"{PRODUCED}.base_offset: ours -1, Kafka's 0",
            f"{PRODUCED}.log_start_offset: ours -1, Kafka's 0",
            "[1].responses[0].partition_responses[0].base_offset: ours 0, Kafka's 1",
        ],
    ),
    "batch_none": Known(
        "Kafka's handler fails and never answers: the connection is lost to its client. We refuse the batch",
        ["[0]: ours 87, Kafka's 'silent'"],
    ),
    "configs_are_appended_to_and_subtracted_from": Known(
        "Kafka shows a list as it has read it, we as it was written",
        ["[13][2].cleanup.policy[0]: ours ' delete , compact ', Kafka's 'delete,compact'"],
    ),
    "configs_are_replaced_by_the_older_request": Known(
        "one resource twice: Kafka's handler fails and never answers, we refuse both",
        ["[7][0]: ours [42, 42], Kafka's 'silent'"],
    ),
    "configs_of_nothing_are_described": Known(
        "we answer once what is asked for twice: all the configs of a topic, asked for thousands of times in a small "
        "request, would hold up everybody",
        [f"[2].results: ours [{RETENTION_MS}], Kafka's [{RETENTION_MS}, {RETENTION_MS}]"],
    ),
    "configs_that_cannot_be_altered": Known(UNEXPECTED, ["[9].responses[0].error_code: ours 42, Kafka's -1"]),
    "metadata_by_topic_id": Known(
        "a request that names topics and gives ids: Kafka answers the ids alone, and we both; no client mixes them",
        ["[1]: ours 2, Kafka's 1"],
    ),
    "metadata_of_neither_name_nor_id": Known(UNEXPECTED, ["[0]: ours 42, Kafka's -1"]),
    "offsets_of_odd_partitions": Known(UNEXPECTED, ["[13].topics[0].partitions[0].error_code: ours 42, Kafka's -1"]),
    "page_of_a_topic_without_a_name": Known(
        "Kafka fails with all of the request, we with the name that is none",
        ["[0]: ours 17, Kafka's -1", "[1]: ours 0, Kafka's -1"],
    ),
    "partitions_are_added_in_odd_ways": Known(
        UNEXPECTED, ["[0][8][0].error_code: ours 44, Kafka's -1", "[0][9][0].error_code: ours 44, Kafka's -1"]
    ),
    "fetch_of_less_than_nothing": Known(
        "Kafka fails with an exception nobody expected; we read a limit below zero as zero: one batch, so progress",
        [
            "responses[0].partitions[0].error_code: ours 0, Kafka's -1",
            "responses[0].partitions[0].high_watermark: ours 2, Kafka's -1",
            "responses[0].partitions[0].last_stable_offset: ours 2, Kafka's -1",
            "responses[0].partitions[0].log_start_offset: ours 0, Kafka's -1",
            "responses[0].partitions[0].records: ours 77, Kafka's 0",
        ],
    ),
}

SETTINGS = (
    "offsets.topic.num.partitions=4",
    "group.initial.rebalance.delay.ms=0",
    "group.min.session.timeout.ms=100",
)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with BrokerProcess(tmp_path_factory.mktemp("broker"), *SETTINGS) as broker:
        yield Peer("streamlog", broker.address)


@pytest.fixture(scope="module")
def theirs(kafka: KafkaNode) -> Peer:
    return Peer("kafka", kafka.bootstrap)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_answer_is_kafkas(name: str, ours: Peer, theirs: Peer) -> None:
    """Codes and shapes; texts for people may differ."""
    found = differences(CASES[name](ours), CASES[name](theirs))
    known = KNOWN[name].differences if name in KNOWN else []
    assert found == known, "\n".join(found)


def test_every_known_difference_is_of_a_case() -> None:
    """A case that was renamed or removed takes its reasons along."""
    assert not KNOWN.keys() - CASES.keys()
