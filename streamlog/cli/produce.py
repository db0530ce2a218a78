"""`streamlog produce`: lines of text become records."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import IO, TypeAlias

import click

from streamlog.cli.invocation import TIMEOUT_MS, Invocation, broker_option, run
from streamlog.cli.output import plural
from streamlog.cli.records import OutRecord, parse_json_line
from streamlog.cli.topics import check_topics
from streamlog.client.producer import CompressionName, Producer
from streamlog.env import Env, real_env
from streamlog.errors import UserError

Parser: TypeAlias = Callable[[str, str], OutRecord]
"""From a line, and where it stands, to a record."""

READ_BYTES = 256 << 10
"""Read at a time, in the thread that waits for files; less when there is less."""


@click.command()
@click.argument("topic")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("-s", "--key-separator", metavar="TEXT", help="A line is KEY, this, VALUE; without it all is value.")
@click.option("-k", "--key", metavar="KEY", help="The key of every record.")
@click.option("--json", "as_json", is_flag=True, help='A line is {"key": ..., "value": ..., "headers": {...}}.')
@click.option("--null", "null", metavar="TEXT", help="A value that is exactly this is a tombstone.")
@click.option("-p", "--partition", type=click.IntRange(0), metavar="N", help="Into this partition.")
@click.option(
    "--compression", type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]), default="none", show_default=True
)
@click.option("-q", "--quiet", is_flag=True, help="Do not say how many records were written.")
@broker_option
@click.pass_obj
def produce(
    invocation: Invocation,
    topic: str,
    files: Sequence[str],
    key_separator: str | None,
    key: str | None,
    as_json: bool,
    null: str | None,
    partition: int | None,
    compression: CompressionName,
    quiet: bool,
) -> None:
    """Write the lines of FILEs, or of standard input, to TOPIC, one record a line."""
    if key_separator is not None and (key is not None or as_json):
        raise click.UsageError("--key-separator goes neither with --key nor with --json")
    if key_separator == "":
        raise click.UsageError("--key-separator cannot be empty")

    def parse(line: str, where: str) -> OutRecord:
        if as_json:
            record = parse_json_line(line, where)
            if key is None and partition is None:
                return record
            own_key = record.key if key is None else key.encode()
            own_partition = record.partition if partition is None else partition
            return OutRecord(own_key, record.value, own_partition, record.timestamp_ms, record.headers)
        found_key, value = key, line
        if key_separator is not None:
            found_key, separator, value = line.partition(key_separator)
            if not separator:
                raise UserError(f"{where}: no {key_separator!r} between key and value: {line[:60]!r}")
        return OutRecord(
            None if found_key is None else found_key.encode(), None if value == null else value.encode(), partition
        )

    written = run(_produce(invocation, real_env(), topic, files, parse, compression))
    if not quiet:
        click.echo(f"{plural(written, 'record')} written to {topic}.", err=True)


async def _produce(
    invocation: Invocation,
    env: Env,
    topic: str,
    files: Sequence[str],
    parse: Parser,
    compression: CompressionName,
) -> int:
    interactive = not files and sys.stdin.isatty()
    if interactive:
        click.echo("One record a line; Ctrl-D ends.", err=True)
    written = 0
    async with invocation.brokers(env) as bootstrap:
        await check_topics(bootstrap, env, [topic])
        async with Producer(
            bootstrap,
            env=env,
            client_id="streamlog-cli",
            compression=compression,
            auto_create_topics=False,
            max_block_ms=TIMEOUT_MS,
        ) as producer:
            count = await producer.partitions(topic)
            lines = numbered_lines(files or ("-",))
            while (batch := await env.offload.run(lambda: next(lines, None))) is not None:
                for where, line in batch:
                    record = parse(line, where)
                    number = record.partition
                    if number is None:
                        number = producer.partition_for(topic, record.key)
                    elif number >= count:
                        raise UserError(f"{where}: topic {topic} has {plural(count, 'partition')}, no number {number}")
                    at_ms = record.timestamp_ms if record.timestamp_ms is not None else env.clock.wall_ms()
                    producer.append(topic, number, record.key, record.value, at_ms, tuple(record.headers))
                written += len(batch)
                await producer.room()
                if interactive:
                    await producer.flush()
            await producer.flush()
    return written


def numbered_lines(files: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    """The lines of files with where each stands, as many at a time as there are (think of `tail -f`)."""
    for name in files:
        with ExitStack() as stack:
            data: IO[bytes] = sys.stdin.buffer if name == "-" else stack.enter_context(open(name, "rb"))
            yield from _lines_of(data, "standard input" if name == "-" else name)


def _lines_of(data: IO[bytes], shown: str) -> Iterator[list[tuple[str, str]]]:
    begun, number = b"", 0
    while part := data.read1(READ_BYTES):  # type: ignore[attr-defined]  # of every buffered reader, not of IO
        *whole, begun = (begun + part).split(b"\n")
        if whole:
            yield [_decoded(line, shown, number + index) for index, line in enumerate(whole, 1)]
            number += len(whole)
    if begun:
        yield [_decoded(begun, shown, number + 1)]


def _decoded(line: bytes, shown: str, number: int) -> tuple[str, str]:
    where = f"{shown}, line {number}"
    try:
        return where, line.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text: {error}") from None
