"""How long faults are felt, in simulated time: the table of docs/internals/nodes.md.

python -m tests.sim.felt --seeds 40 --jobs 2
python -m tests.sim.felt --first 7 --kind freeze --role controller --tell      one run, event by event
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import statistics
import sys
from collections.abc import Iterator, Sequence

from streamlog.testing.simulator.owner import OWNER
from streamlog.testing.simulator.world import World
from tests.sim.felt_run import KINDS, PATIENCE_S, ROLES, Felt, FeltRun


class ToTrace(logging.Handler):
    """Has what the nodes log between the events of the trace."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        owner = OWNER.get()
        self._world.note(owner.name if owner else "", f"{record.name.rpartition('.')[2]} {record.getMessage()}")


def run(job: tuple[str, str, int, dict[str, str]]) -> Felt:
    return FeltRun(*job).go()


def run_many(jobs: Sequence[tuple[str, str, int, dict[str, str]]], processes: int) -> Iterator[Felt]:
    """Each in a fork: a run leaves behind what its killed nodes held."""
    with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
        yield from pool.imap(run, jobs)


def table(felt: Sequence[Felt]) -> str:
    """Median and maximum by kind and role, in ms; commits where the coordinator was hit."""
    lines = [
        f"{'fault':26s} {'node':12s} {'runs':>5s} {'written median':>15s} {'max':>6s} {'seed':>5s}  commit median, max"
    ]
    for kind in KINDS:
        for role in ROLES:
            found = [one for one in felt if (one.kind, one.role) == (kind, role)]
            if not found:
                continue
            slowest = sorted(one.slowest_ms for one in found)
            worst = max(found, key=lambda one: one.slowest_ms)
            commits = [one.committed_ms or int(PATIENCE_S * 1000) for one in found if one.was_coordinator]
            told = f"{statistics.median(commits):6.0f} {max(commits):6d} ({len(commits)})" if commits else "-"
            lines.append(
                f"{kind:26s} {role:12s} {len(found):5d} {statistics.median(slowest):15.0f} {slowest[-1]:6d} "
                f"{worst.seed:5d}  {told}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="How long faults are felt, in simulated milliseconds.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--role", action="append", choices=ROLES)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="A setting of the nodes.")
    parser.add_argument(
        "--tell", action="store_true", help="The first seed only, event by event, with the nodes' logs."
    )
    arguments = parser.parse_args()
    settings = dict(one.split("=", 1) for one in arguments.set)
    jobs = [
        (kind, role, seed, settings)
        for seed in range(arguments.first, arguments.first + arguments.seeds)
        for kind in arguments.kind or KINDS
        for role in arguments.role or ROLES
    ]
    logging.disable(logging.NOTSET if arguments.tell else logging.CRITICAL)
    if arguments.tell:
        first = FeltRun(*jobs[0], tell=True)
        logging.basicConfig(level=logging.DEBUG, handlers=[ToTrace(first.world)])
        print(first.go())
        return
    felt = []
    for one in run_many(jobs, arguments.jobs):
        felt.append(one)
        print(f"\r{len(felt)} of {len(jobs)}", end="", file=sys.stderr, flush=True)
    print(table(felt))
    for one in felt:
        for wrong in one.violations:
            print(f"seed {one.seed}, {one.kind}, {one.role}: {wrong}")


if __name__ == "__main__":
    main()
