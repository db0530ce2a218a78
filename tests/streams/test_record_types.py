"""What users' type checkers say about their records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamlog import Record

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".mypy_cache" / "records"
"""Kept between runs: without it mypy reads all of streamlog first."""

SAMPLE = """
import streamlog


class Leg(streamlog.Record, frozen=True):
    flight: str
    number: int = 0


class LongLeg(Leg, frozen=True):
    hours: float = 8.0


class Delay(streamlog.Record, rename="camel", tag=True):
    leg: Leg
    minutes: int = 0


app = streamlog.App("delays")
delays = app.topic("delays", key=Leg, value=Delay)
longest = app.Table("longest", key=Leg, value=int)

hash(Leg("LH400", 1))
LongLeg("LH400", number=1, hours=9.5)
late = Delay(Leg("LH400"), minutes=3)
late.minutes = 4

Leg("LH400").number = 2  # error
Leg("LH400", "one")  # error
Leg()  # error
Delay(leg=Leg("LH400"), hours=3)  # error
late.minutes = "four"  # error
"""


def wrong_lines(checker: str, sample: Path) -> list[int]:
    """Numbers of the lines, from 1, in which a checker with its default settings finds errors."""
    if checker == "mypy":
        command = [
            "mypy",
            "--strict",
            "--follow-imports",
            "silent",
            "--config-file",
            os.devnull,
            "--cache-dir",
            str(CACHE),
            "--output",
            "json",
        ]
    else:
        command = ["pyright", "--pythonpath", sys.executable, "--outputjson"]
    ran = subprocess.run(
        [sys.executable, "-m", *command, str(sample)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1, f"{checker} could not be run, or found nothing: {ran.stdout}{ran.stderr}"
    if checker == "mypy":
        return sorted({json.loads(line)["line"] for line in ran.stdout.splitlines()})
    found = json.loads(ran.stdout)["generalDiagnostics"]
    return sorted({one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"})


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_checkers_know_frozen_and_other_records(checker: str, tmp_path: Path) -> None:
    """A record may be frozen, as keys have to be, or not; fields and constructors are checked either way."""
    sample = tmp_path / "sample.py"
    sample.write_text(SAMPLE)
    expected = [number for number, line in enumerate(SAMPLE.splitlines(), 1) if line.endswith("# error")]
    assert wrong_lines(checker, sample) == expected


def test_frozen_records_are_keys_at_run_time() -> None:
    """What checkers are told changes nothing of what runs."""

    class Leg(Record, frozen=True):
        flight: str

    assert {Leg("LH400"): 1}[Leg("LH400")] == 1
    with pytest.raises(AttributeError):
        Leg("LH400").flight = "LH401"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
