"""The figures of a large campaign as a page: docs/campaign.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, get_args

from streamlog.testing.simulator.coverage import RARE_SITUATIONS, SITUATIONS
from streamlog.testing.simulator.invariants import INVARIANTS
from streamlog.testing.simulator.nemesis import KINDS
from streamlog.testing.simulator.setup import SCALES, SHAPES, Shape, Size
from streamlog.testing.simulator.unwatched import UNWATCHED

HEAD: Final = """# The large campaign

Written by `make campaign-page` from the figures of `make campaign`; do not edit. A run is a seed: it draws the shape of
the cluster, the settings, what clients do and the faults, all on a simulated clock, network and disk
([how](internals/simulator.md)). A run that violates an invariant is named here with the command that replays it.
"""


def render_page(kept: Mapping[str, Any]) -> str:
    """The page for the figures that a campaign has kept."""
    return "\n".join(
        [
            HEAD,
            _verdict(kept),
            "",
            *_table("| | broker | quorum | cluster |", "|---|---:|---:|---:|", _sizes(kept)),
            _about_sizes(),
            "",
            *_cost(kept),
            "",
            "## Violations",
            "",
            *(_violations(kept["violations"]) or ["None in the newest version."]),
            "",
            "Seeds that violated an invariant in the version that ran them, and violate none as the newest draws them:",
            "",
            *(_violations(kept["fixed"]) or ["- none"]),
            "",
            "## Faults that happened",
            "",
            *_table("| fault | times | |", "|---|---:|---|", _faults(kept["faults"])),
            "## Situations",
            "",
            "In how many runs each was reached." + _not_reached(kept["reached"]),
            "",
            *_table("| situation | runs |", "|---|---:|", _situations(kept["reached"])),
            "## What no check of the simulator names",
            "",
            "Numbers of the failure model, with the reason, and who looks instead.",
            "",
            *(f"- {number}: {reason}" for number, reason in UNWATCHED.items()),
            "",
        ]
    )


def _verdict(kept: Mapping[str, Any]) -> str:
    failed = len(kept["violations"])
    return (
        f"**{_size(kept, 'short'):,} short runs, {_size(kept, 'long'):,} long ones, "
        f"{sum(kept['faults'].values()):,} faults, {kept['virtual_ms'] / 3_600_000:,.0f} simulated hours, "
        f"{kept['acked']:,} acknowledged writes: {failed or 'no'} run{'s' * (failed > 1)} violate{'s' * (failed < 2)} "
        f"an invariant.** {len(INVARIANTS)} invariants were checked in each; {kept['twice']:,} runs were done twice, "
        "in another process with other hashes, and have to give the same trace of every callback."
    )


def _about_sizes() -> str:
    short, long = SCALES["short"], SCALES["long"]
    return (
        "A *broker* is one node and its clients, a *quorum* one to five controllers, a *cluster* three or four nodes "
        f"that are both, with clients ({SHAPES.count('broker')} of {len(SHAPES)} seeds are brokers). Faults happen for "
        f"{short.safety_ms[0] / 1000:g} to {short.cluster_safety_ms[-1] / 1000:g} s in a short run, and for "
        f"{long.cluster_safety_ms[0] / 1000:g} to {long.safety_ms[-1] / 1000:g} s in a long one, up to "
        f"{long.quorum_faults_max} of them; then everything is healed, has to work again, and is looked at."
    )


def _cost(kept: Mapping[str, Any]) -> list[str]:
    cpu_s, each_ms = kept["cpu_s"], 1000 * kept["cpu_s"] / max(kept["seeds"], 1)
    return [
        f"{kept['steps']:,} callbacks took {cpu_s / 3600:.1f} hours of CPU, {each_ms:.0f} ms a run. What ran:",
        "",
        *(f"- {version}: {count:,} runs" for version, count in kept["versions"].items()),
    ]


def _table(head: str, alignment: str, rows: Iterable[str]) -> list[str]:
    return [head, alignment, *rows, ""]


def _sizes(kept: Mapping[str, Any]) -> Iterator[str]:
    for size in get_args(Size):
        if _size(kept, size):
            counts = " | ".join(f"{kept['runs'].get(f'{size} {shape}', 0):,}" for shape in get_args(Shape))
            yield f"| {size} runs | {counts} |"


def _faults(faults: Mapping[str, int]) -> Iterator[str]:
    for kind, count in sorted(faults.items(), key=lambda item: -item[1]):
        told = (KINDS[kind].__doc__ or "").strip().partition("\n")[0]
        yield f"| {kind} | {count:,} | {told} |"


def _situations(reached: Mapping[str, int]) -> Iterator[str]:
    for name, count in sorted(reached.items()):
        if not name.startswith("fault: "):
            yield f"| {name} | {count:,} |"


def _not_reached(reached: Mapping[str, int]) -> str:
    missing = [name for name in (*SITUATIONS, *RARE_SITUATIONS) if not reached.get(name)]
    return f" **Never: {', '.join(missing)}.**" if missing else ""


def _size(kept: Mapping[str, Any], size: str) -> int:
    return sum(count for name, count in kept["runs"].items() if name.startswith(f"{size} "))


def _violations(violations: Mapping[str, list[str]]) -> list[str]:
    return [f"- `make sim {name}`: {_one_line(found[0])}" for name, found in violations.items()]


def _one_line(told: str) -> str:
    """Of a traceback, what was raised."""
    head, *rest = told.strip().splitlines()
    return f"{head.partition('Traceback')[0]}{rest[-1].strip()}" if rest else head
