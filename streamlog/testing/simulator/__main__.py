"""`python -m streamlog.testing.simulator`: a campaign, one seed, or a script. See `make sim`."""

from __future__ import annotations

import logging
import os
import sys

import click

from streamlog.testing.simulator.campaign import Campaign, replay, shrink_seed, write_summary
from streamlog.testing.simulator.run import run
from streamlog.testing.simulator.script import parse
from streamlog.testing.simulator.setup import draw


@click.command(context_settings={"max_content_width": 120})
@click.option("--seeds", type=int, default=300, show_default=True, help="How many seeds.")
@click.option("--first", type=int, default=0, show_default=True, help="The first of them.")
@click.option("--jobs", type=int, default=2, show_default=True, help="Runs at a time.")
@click.option("--seed", type=int, help="Run this one seed, and print what happens.")
@click.option("--script", type=click.Path(exists=True), help="Run a script, and print what happens.")
@click.option("--shrink", is_flag=True, help="Make the failing run smaller.")
@click.option("--digest", is_flag=True, help="Print the hash of the trace only.")
@click.option("--logs", is_flag=True, help="Print what the programs log, too.")
@click.option("--json", "json_path", help="Where to write the summary.")
def main(
    seeds: int,
    first: int,
    jobs: int,
    seed: int | None,
    script: str | None,
    shrink: bool,
    digest: bool,
    logs: bool,
    json_path: str | None,
) -> None:
    """Run simulated clusters. Exit code 1 when an invariant is violated."""
    if "PYTHONHASHSEED" not in os.environ:
        # A set of strings has another order in every process otherwise.
        os.execvpe(
            sys.executable,
            [sys.executable, "-m", "streamlog.testing.simulator", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    if logs:
        logging.basicConfig(level="DEBUG", stream=sys.stdout, format="%(levelname)s %(name)s %(message)s")
    else:
        logging.disable()
    if seed is None and script is None:
        campaign = Campaign(_tell)
        campaign.run(range(first, first + seeds), jobs)
        campaign.report()
        if json_path:
            write_summary(campaign, json_path)
        sys.exit(0 if campaign.is_good else 1)
    if script is not None:
        with open(script, encoding="utf-8") as file:
            setup = parse(file.read())
    else:
        setup = draw(seed or 0)
    if digest:
        _tell(run(setup).digest)
        return
    outcome = shrink_seed(setup, _tell) if shrink else replay(setup, _tell, events=True)
    sys.exit(1 if outcome.violations else 0)


def _tell(line: str) -> None:
    click.echo(line)


main()
