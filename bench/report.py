"""Rows of a benchmark: two sides, their figures from alternating rounds, and the ratio that was asked for.

A shared machine changes its speed by a factor of two from minute to minute. So the two sides take turns within one run,
each figure is the median of its rounds, and what is read is the ratio. A ratio above 1 is always in our favour.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Row:
    """One comparison. `smaller_is_better` for latencies, memory and CPU."""

    work: str
    unit: str
    peer: str
    asked: float | None
    """The ratio that we want; None for a figure that nobody asked for."""
    smaller_is_better: bool = False
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better we are; None when a side has no figure."""
        if not self.ours or not self.theirs:
            return None
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        better, worse = (theirs, ours) if self.smaller_is_better else (ours, theirs)
        return better / worse if worse else None


@dataclass(slots=True)
class Report:
    """All rows of one script, with what is needed to read them later."""

    name: str
    rows: list[Row] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def print(self) -> None:
        print(f"\n{self.name}: {facts_line()}")
        width = max((len(row.work) for row in self.rows), default=4) + 2
        print(f"{'':{width}}{'ratio':>7}{'asked':>7}{'ours':>13}{'theirs':>13}  unit (rounds, peer)")
        for row in self.rows:
            print(
                f"{row.work:{width}}{_ratio(row.ratio):>7}{_ratio(row.asked):>7}"
                f"{_median(row.ours):>13}{_median(row.theirs):>13}  {row.unit} ({len(row.ours)}, {row.peer})"
                + (f" {row.note}" if row.note else "")
            )
        for remark in self.remarks:
            print(f"  {remark}")

    def as_json(self) -> str:
        rows = [{**asdict(row), "ratio": row.ratio} for row in self.rows]
        return json.dumps({"name": self.name, "facts": facts(), "rows": rows, "remarks": self.remarks}, indent=1)

    def finish(self, json_path: str | None) -> None:
        """Print the table, and write the JSON where it was asked for ("-" for stdout)."""
        self.print()
        if json_path == "-":
            print(self.as_json())
        elif json_path:
            Path(json_path).write_text(self.as_json() + "\n")


def facts() -> dict[str, str]:
    """Machine and versions."""
    versions = {name: _version(name) for name in ("confluent-kafka", "rocksdict", "uvloop", "msgspec")}
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": _cpu(),
        "cpus": str(os.cpu_count()),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        **versions,
    }


def facts_line() -> str:
    found = facts()
    return f"{found['date']}, {found['cpus']} x {found['cpu']}, Python {found['python']}, load {found['load']}"


def say(text: str) -> None:
    """Progress, beside the table."""
    print(text, file=sys.stderr, flush=True)


def percentile(sorted_values: Sequence[float], share: float) -> float:
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _median(values: Sequence[float]) -> str:
    if not values:
        return "-"
    value = statistics.median(values)
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.3g}"
