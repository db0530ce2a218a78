"""The README's first app, as pasted."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from examples.driving import ROOT, Workers

READY_S_MAX = 60.0


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_first_app_runs_as_pasted(tmp_path: Path) -> None:
    """Saved, run, fed and read with the very lines of the README."""
    app, reading = blocks("python")
    worker_command, feeding = blocks("console")
    (tmp_path / "words.py").write_text(app)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLOG_")}
    environment["PATH"] = path

    def shell(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-ec", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )

    log = (tmp_path / "worker.log").open("wb")
    worker = subprocess.Popen(shlex.split(worker_command), cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        until("the topic", tmp_path, lambda: "lines" in shell("streamlog topics list").stdout)
        done = shell(feeding)
        assert done.returncode == 0, done.stderr
        until("the counts", tmp_path, lambda: shell("streamlog tables get words counts be").stdout.strip() == "2")
        scanned = shell(feeding.splitlines()[1])
        assert re.search(r"to\W+2\b", scanned.stdout), scanned
        read = subprocess.run(
            [sys.executable, "-c", reading], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert read.stdout == "2\n", read.stderr
    finally:
        worker.terminate()
        worker.wait(30)
        log.close()
        Workers("words", tmp_path / "streamlog-data").stop_all()
    assert worker.returncode == 0


def until(what: str, directory: Path, condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    deadline_s = time.monotonic() + READY_S_MAX
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not come:\n{(directory / 'worker.log').read_text()}"
        time.sleep(0.2)


def test_every_link_of_the_user_pages_leads_somewhere() -> None:
    """README, CONTRIBUTING and CHANGELOG name files that exist."""
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
            assert target.startswith("http") or (ROOT / target).exists(), f"{page}: {target}"
