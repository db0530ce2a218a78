"""`streamlog format`: data directories of nodes of one cluster, by hand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DIRECTORIES = ("AAAAAAAAAAAAAAAAAAAAZQ", "AAAAAAAAAAAAAAAAAAAAZg")
VOTERS = ",".join(f"{number}@127.0.0.1:{9090 + number}:{one}" for number, one in enumerate(DIRECTORIES, 1))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamlog", "format", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_a_voter_gets_the_directory_id_that_the_others_know_it_by(tmp_path: Path) -> None:
    """And the snapshot that names the first voters; the cluster's id is made up where none is given."""
    done = run("--data-dir", str(tmp_path / "1"), "--node-id", "1", "--voters", VOTERS)
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(rf"{tmp_path}/1: cluster (\S{{22}}), node 1, directory {DIRECTORIES[0]}\n", done.stdout)
    assert found is not None, done.stdout
    assert "If it is ever lost, format the new one without --voters" in done.stderr
    properties = (tmp_path / "1" / "meta.properties").read_text()
    assert f"cluster.id={found[1]}" in properties
    assert (tmp_path / "1" / "__cluster_metadata-0" / "00000000000000000000-0000000000.checkpoint").exists()
    again = run("--data-dir", str(tmp_path / "1"), "--node-id", "1")
    assert again.returncode == 1
    assert "formatted already" in again.stderr
    assert "Traceback" not in again.stderr


def test_a_node_that_has_no_vote_yet_needs_no_voters(tmp_path: Path) -> None:
    """A broker, or a controller that is added later: nothing but the cluster's id."""
    done = run("--data-dir", str(tmp_path / "9"), "--node-id", "9", "--cluster-id", "AAAAAAAAAAAAAAAAAAAAAQ")
    assert done.returncode == 0, done.stderr
    assert "controller.quorum.voters" in done.stderr, "with these, nothing tells a lost directory from a new one"
    assert not (tmp_path / "9" / "__cluster_metadata-0").exists()


@pytest.mark.parametrize(
    "voters", ["1@127.0.0.1:9093", "x@127.0.0.1:9093:AAAAAAAAAAAAAAAAAAAAZQ", "1@127.0.0.1:9093:short", "1"]
)
def test_what_names_no_voter_is_refused(tmp_path: Path, voters: str) -> None:
    """One line that says what one looks like."""
    done = run("--data-dir", str(tmp_path / "1"), "--node-id", "1", "--voters", voters)
    assert done.returncode == 1
    assert "--voters" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "1").exists()
