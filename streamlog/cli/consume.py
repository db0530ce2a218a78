"""`streamlog consume`: the records of topics as lines of text."""

from __future__ import annotations

import json
import string
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeAlias

import click

from streamlog.cli.invocation import Invocation, broker_option, run
from streamlog.cli.output import reader_is_gone
from streamlog.cli.records import as_text, iso_time, to_json_object
from streamlog.cli.topics import check_topics
from streamlog.client.consumer import Consumer
from streamlog.client.values import ConsumerRecord, TopicPartition
from streamlog.env import real_env
from streamlog.errors import UserError

FORMATS = {
    "value": "{value}",
    "key-value": "{key}\t{value}",
    "full": "{topic}-{partition}@{offset} {time} {key}\t{value}",
}
FIELDS = ("topic", "partition", "offset", "key", "value", "headers", "timestamp_ms", "time")

Render: TypeAlias = Callable[[ConsumerRecord], str]

POLL_MS = 500

GROUP_RECORDS_MAX = 500
"""Records per fetch in a group: a rebalance waits until they are printed."""


@click.command()
@click.argument("topics", metavar="TOPIC...", nargs=-1, required=True)
@click.option("--from-beginning", is_flag=True, help="Begin with the first record instead of the next one written.")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Stop after so many records.")
@click.option("--until-end", is_flag=True, help="From the beginning to what is the end now.")
@click.option("-g", "--group", metavar="GROUP", help="Share the work with this group, and commit.")
@click.option("-p", "--partition", type=click.IntRange(0), metavar="N", help="Only this partition (of one topic).")
@click.option("-o", "--offset", type=click.IntRange(0), metavar="N", help="Begin at this offset (with --partition).")
@click.option(
    "-f",
    "--format",
    "layout",
    default="value",
    show_default=True,
    help="value, key-value, full, json, or a template such as '{key}={value}'; also {topic}, {partition}, {offset}, "
    "{time}, {timestamp_ms}, {headers}.",
)
@click.option("--read-uncommitted", is_flag=True, help="Also records of transactions that are open or were aborted.")
@broker_option
@click.pass_obj
def consume(
    invocation: Invocation,
    topics: Sequence[str],
    from_beginning: bool,
    count: int | None,
    until_end: bool,
    group: str | None,
    partition: int | None,
    offset: int | None,
    layout: str,
    read_uncommitted: bool,
) -> None:
    """Print records as they arrive. Without --group, nothing is committed."""
    if partition is not None and (len(topics) > 1 or group is not None):
        raise click.UsageError("--partition needs exactly one topic and no --group")
    if offset is not None and partition is None:
        raise click.UsageError("--offset needs --partition")
    if until_end and group is not None:
        raise click.UsageError("--until-end does not go with --group: the group's partitions move")
    if from_beginning and offset is not None:
        raise click.UsageError("--from-beginning does not go with --offset")
    render = _renderer(layout)
    env = real_env()

    async def work() -> None:
        async with invocation.brokers(env) as bootstrap:
            await check_topics(bootstrap, env, topics)
            async with Consumer(
                bootstrap,
                env=env,
                client_id="streamlog-cli",
                group_id=group,
                auto_offset_reset="earliest" if from_beginning or until_end else "latest",
                isolation_level="read_uncommitted" if read_uncommitted else "read_committed",
            ) as consumer:
                if group is not None:
                    consumer.subscribe(topics)
                    source = _of_group(consumer, count)
                else:
                    source = _of_partitions(consumer, topics, partition, offset, until_end)
                await _print(source, render, count)
                if group is not None:
                    await consumer.commit()

    run(work())


async def _of_group(consumer: Consumer, count: int | None) -> AsyncIterator[list[ConsumerRecord]]:
    """No more than `count` in all: what is fetched counts as processed when it is committed."""
    left = count
    while left is None or left > 0:
        records = await _fetch(consumer, GROUP_RECORDS_MAX if left is None else min(left, GROUP_RECORDS_MAX))
        yield records
        left = None if left is None else left - len(records)
        await consumer.commit()


async def _of_partitions(
    consumer: Consumer, topics: Sequence[str], partition: int | None, offset: int | None, until_end: bool
) -> AsyncIterator[list[ConsumerRecord]]:
    partitions = [one for topic in topics for one in await consumer.partitions_for(topic)]
    if partition is not None:
        wanted = TopicPartition(topics[0], partition)
        if wanted not in partitions:
            raise UserError(f"topic {topics[0]} has partitions 0 to {len(partitions) - 1}, there is no {partition}")
        partitions = [wanted]
    consumer.assign(partitions)
    if offset is not None:
        consumer.seek(partitions[0], offset)
    if not until_end:
        while True:
            yield await _fetch(consumer, None)
    ends = await consumer.end_offsets(partitions)
    begins = await consumer.beginning_offsets(partitions)
    while any(_before(consumer, one, ends[one], begins) for one in partitions):
        yield [
            one for one in await _fetch(consumer, None) if one.offset < ends[TopicPartition(one.topic, one.partition)]
        ]


def _before(consumer: Consumer, one: TopicPartition, end: int, begins: dict[TopicPartition, int]) -> bool:
    position = consumer.position(one)
    return (begins[one] if position is None else max(position, begins[one])) < end


async def _fetch(consumer: Consumer, records_max: int | None) -> list[ConsumerRecord]:
    batches = await consumer.fetch(timeout_ms=POLL_MS, records_max=records_max)
    return [
        ConsumerRecord(batch.topic, batch.partition, *row, batch.leader_epoch)
        for batch in batches
        for row in batch.columns.rows()
    ]


async def _print(source: AsyncIterator[list[ConsumerRecord]], render: Render, count: int | None) -> None:
    left = count
    async for records in source:
        if left is not None:
            records = records[:left]
            left -= len(records)
        if records:
            sys.stdout.write("".join(f"{render(one)}\n" for one in records))
            sys.stdout.flush()
        if left == 0 or reader_is_gone():
            return


def _renderer(layout: str) -> Render:
    if layout == "json":
        return lambda one: json.dumps(
            to_json_object(one.topic, one.partition, one.offset, one.timestamp_ms, one.key, one.value, one.headers),
            ensure_ascii=False,
        )
    template = FORMATS.get(layout, layout)
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise click.UsageError(f"--format {layout!r}: {error}") from None
    unknown = sorted(names - set(FIELDS))
    if unknown or not names:
        problem = f"no field {{{unknown[0]}}}" if unknown else "no field in it"
        raise click.UsageError(
            f"--format {layout!r}: {problem}; use value, key-value, full, json, or a template with "
            + ", ".join(f"{{{name}}}" for name in FIELDS)
        )
    template = template.replace("\\t", "\t").replace("\\n", "\n")
    return lambda one: template.format(
        topic=one.topic,
        partition=one.partition,
        offset=one.offset,
        key=as_text(one.key),
        value=as_text(one.value),
        headers=",".join(f"{name}={as_text(value)}" for name, value in one.headers),
        timestamp_ms=one.timestamp_ms,
        time=iso_time(one.timestamp_ms),
    )
