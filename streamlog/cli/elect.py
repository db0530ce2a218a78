"""`streamlog elect`: have partitions led by another replica."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from streamlog.cli.invocation import Invocation, broker_option, json_option, run
from streamlog.cli.output import plural, print_json, print_rows
from streamlog.cli.reassignment_file import parse_partitions
from streamlog.cli.topics import admin_of
from streamlog.client.admin import Election
from streamlog.client.values import TopicPartition
from streamlog.wire.error_codes import ErrorCode, KafkaError

REASONS = {
    ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE: "the preferred leader is down or not in sync",
    ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE: "no replica of it is alive",
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: "it does not exist",
}


@click.command()
@click.option(
    "--type",
    "kind",
    type=click.Choice(["preferred", "unclean"]),
    required=True,
    help="preferred: the first replica, if it is in sync. unclean: any that is alive, where none in sync is left; "
    "what it has not got is lost.",
)
@click.option("--topic", metavar="TOPIC", help="Partitions of this topic...")
@click.option("--partition", "numbers", metavar="N", type=click.IntRange(0), multiple=True, help="...only this one.")
@click.option(
    "--file", "path", type=click.Path(path_type=Path), metavar="FILE", help="Partitions, as Kafka writes them."
)
@click.option("--all", "everything", is_flag=True, help="All partitions.")
@json_option
@broker_option
@click.pass_obj
def elect(
    invocation: Invocation,
    kind: str,
    topic: str | None,
    numbers: tuple[int, ...],
    path: Path | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Elect leaders of partitions now.

    \b
      streamlog elect --type preferred --all
      streamlog elect --type preferred --topic orders --partition 0 --partition 3
      streamlog elect --type unclean --topic orders --partition 0
    """
    if [topic is not None, path is not None, everything].count(True) != 1:
        raise click.UsageError("say exactly one of --topic, --file and --all")
    if numbers and topic is None:
        raise click.UsageError("--partition goes with --topic")
    election = Election.PREFERRED if kind == "preferred" else Election.UNCLEAN
    listed = parse_partitions(path) if path is not None else None

    async def work() -> dict[TopicPartition, KafkaError | None]:
        async with admin_of(invocation) as admin:
            wanted = listed
            if topic is not None:
                known = (await admin.describe_topics([topic]))[topic]
                wanted = [TopicPartition(topic, one) for one in numbers or range(len(known.partitions))]
            return await admin.elect_leaders(election, wanted)

    answers = run(work())
    rows: list[dict[str, Any]] = [
        {"topic": one.topic, "partition": one.partition, "outcome": _outcome(error), "why": _why(error)}
        for one, error in sorted(answers.items())
    ]
    failed = [one for one in rows if one["outcome"] == "failed"]
    if as_json:
        print_json(rows)
    else:
        told = [one for one in rows if one["outcome"] != "not needed"]
        if told:
            print_rows(told, as_json=False, empty="")
        elected = sum(one["outcome"] == "elected" for one in rows)
        needless = len(rows) - elected - len(failed)
        said = f"Elected {plural(elected, 'leader')}" if elected else "No leader was elected"
        click.echo(f"{said}{f'; {needless:,} had the right one' if needless else ''}.", err=True)
    if failed:
        raise click.exceptions.Exit(1)


def _outcome(error: KafkaError | None) -> str:
    if error is None:
        return "elected"
    return "not needed" if error.code is ErrorCode.ELECTION_NOT_NEEDED else "failed"


def _why(error: KafkaError | None) -> str | None:
    if error is None or error.code is ErrorCode.ELECTION_NOT_NEEDED:
        return None
    return f"{REASONS.get(error.code) or error.message or 'no reason given'} ({error.code.name})"
