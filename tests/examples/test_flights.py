"""`make demo`, with part of the year."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from examples.driving import ROOT
from examples.flights_report import differences

DEMO = [sys.executable, "-m", "examples.flights_demo"]
PART = "6000"


def test_two_demos_at_once_both_equal_pandas(tmp_path: Path) -> None:
    """Each on a log of its own, through a stop, a restart and a change of workers; nothing is left of them."""
    demos = [
        subprocess.Popen(
            [*DEMO, "--flights", PART, "--data-dir", str(tmp_path / name)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("one", "two")
    ]
    for demo in demos:
        said, _ = demo.communicate(timeout=110)
        assert demo.returncode == 0, said
        assert "equal what pandas computes" in said
    assert not list(tmp_path.iterdir())
    assert not processes_of(str(tmp_path))


def test_an_interrupted_demo_leaves_nothing_running(tmp_path: Path) -> None:
    """Ctrl-C while a worker and its embedded log run."""
    demo = subprocess.Popen(
        [*DEMO, "--data-dir", str(tmp_path / "data")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None, "stdout is a pipe"
    for line in demo.stdout:
        if line.startswith("Act 1"):
            break
    time.sleep(1)  # into the act, wherever that is
    demo.send_signal(signal.SIGINT)
    said, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, said
    assert "Traceback" not in said
    assert not processes_of(str(tmp_path))


def test_ctrl_c_while_pandas_is_imported_ends_the_demo_quietly(tmp_path: Path) -> None:
    """A module that sleeps stands in for pandas. There is nothing to stop yet, and nothing to say."""
    (tmp_path / "pandas.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    demo = subprocess.Popen(
        DEMO,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None, "stdout is a pipe"
    assert demo.stdout.readline() == "importing\n"
    demo.send_signal(signal.SIGINT)
    said, _ = demo.communicate(timeout=60)
    assert (demo.returncode, said) == (130, "")


def test_differences_name_what_is_missing_too_much_and_not_the_same() -> None:
    """The demo's judgement is not a tautology."""
    have = {"t": {"a": 1, "b": 2, "c": 3}}
    want = {"t": {"a": 1, "b": 5, "d": 4}}
    assert list(differences(have, want)) == [
        "t['b']: the table has 2, pandas 5",
        "t['c']: the table has 3, pandas no row",
        "t['d']: the table has no row, pandas 4",
    ]


def processes_of(directory: str) -> list[str]:
    """Command lines of running processes that name the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if directory in command:
                found.append(command)
    return found
