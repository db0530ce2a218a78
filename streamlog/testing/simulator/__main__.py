"""`python -m streamlog.testing.simulator`: a campaign, one seed, or a script. See `make sim`."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import get_args

import click

from streamlog.testing.simulator.campaign import BLOCK_SEEDS, SECONDS_MAX, Campaign, replay, shrink_seed
from streamlog.testing.simulator.campaign_page import render_page
from streamlog.testing.simulator.children import run_one
from streamlog.testing.simulator.script import parse
from streamlog.testing.simulator.setup import Size, draw


@click.command(context_settings={"max_content_width": 120})
@click.option("--seeds", type=int, default=300, show_default=True, help="How many seeds.")
@click.option("--first", type=int, default=0, show_default=True, help="The first of them.")
@click.option("--jobs", type=int, default=2, show_default=True, help="Runs at a time.")
@click.option("--size", type=click.Choice(get_args(Size)), default="usual", show_default=True, help="Of the runs.")
@click.option("--seed", "chosen", type=int, multiple=True, help="Run this one seed, and print what happens.")
@click.option("--script", type=click.Path(exists=True), help="Run a script, and print what happens.")
@click.option("--shrink", is_flag=True, help="Make the failing run smaller.")
@click.option("--digest", is_flag=True, help="Print the hashes of the traces only.")
@click.option("--logs", is_flag=True, help="Print what the programs log, too.")
@click.option("--json", "json_path", type=Path, help="Where to write the summary.")
@click.option("--campaign", "kept", type=Path, help="Go on with the large campaign whose figures are in this file.")
@click.option("--short", type=int, default=50_000, show_default=True, help="Its short runs.")
@click.option("--long", type=int, default=200, show_default=True, help="Its long runs.")
@click.option("--page", type=Path, help="Write the figures of that campaign as a page, and do nothing else.")
def main(
    seeds: int,
    first: int,
    jobs: int,
    size: Size,
    chosen: tuple[int, ...],
    script: str | None,
    shrink: bool,
    digest: bool,
    logs: bool,
    json_path: Path | None,
    kept: Path | None,
    short: int,
    long: int,
    page: Path | None,
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
    if page is not None:
        assert kept is not None, "--page writes down what --campaign has kept"
        page.write_text(render_page(json.loads(kept.read_text())), encoding="utf-8")
    elif digest:
        for seed in chosen:
            _tell(run_one(draw(seed, size=size), seconds_max=SECONDS_MAX[size]).digest or "crashed")
    elif chosen or script is not None:
        setup = parse(Path(script).read_text(encoding="utf-8")) if script is not None else draw(chosen[0], size=size)
        outcome = shrink_seed(setup, _tell) if shrink else replay(setup, _tell, events=True)
        sys.exit(1 if outcome.violations else 0)
    else:
        campaign = Campaign(_tell)
        if kept is not None:
            campaign.run_large(kept, range(first, first + short), range(first, first + long), jobs, _share(short, long))
        else:
            campaign.run(range(first, first + seeds), jobs, size)
        campaign.report()
        if json_path is not None:
            campaign.save(json_path)
        sys.exit(0 if campaign.is_good else 1)


def _share(short: int, long: int) -> int:
    """Long runs in each block."""
    return max(-(-long * BLOCK_SEEDS // max(short, 1)), 1)


def _tell(line: str) -> None:
    click.echo(line)


main()
