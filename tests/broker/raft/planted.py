"""Bugs, planted into a copy of the core: the simulation has to find each of them, or it proves nothing.

A bug is a change of the source text, applied to copies of the core's and the simulation's modules in a package of their
own. The originals are not touched.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import streamlog.broker.raft
from tests.broker import raft as tests_raft

CORE = (
    "announce", "core", "effects", "follow", "membership", "messages", "peers", "replica", "replicated_log",
    "serve_fetch", "states", "vote", "voters",
)  # fmt: skip
HARNESS = ("memory_log", "simulation")


class Planted(NamedTuple):
    """`old` becomes `new` wherever it stands in `module`: votes and pre-votes both compare logs, and one is enough."""

    claim: str
    module: str
    old: str
    new: str
    seed: int = 0
    """One that found it once, to be tried first: the others are only tried if the code has changed since."""


BUGS = (
    Planted(
        "a vote is not made durable",
        "replica",
        "if election != self._persisted:",
        "if election[:2] != self._persisted[:2]:",
        77,
    ),
    Planted(
        "a vote is forgotten by a restart",
        "replica",
        "self.epoch, self.voted_for = epoch, voted_for\n",
        "self.epoch, self.voted_for = epoch, None\n",
        77,
    ),
    Planted(
        "a vote is given twice in an epoch",
        "vote",
        "return is_for(request.candidate, voted_for)",
        "return True",
        7,
    ),
    Planted(
        "a vote is forgotten when the epoch stays",
        "replica",
        "if voted_for is None and epoch == self.epoch:",
        "if False:",
        265,
    ),
    Planted(
        "a vote is given to a log that lacks something",
        "vote",
        "return request.log_end >= replica.log_end",
        "return True",
        3,
    ),
    Planted(
        "logs are compared by their length alone",
        "vote",
        "return request.log_end >= replica.log_end",
        "return request.log_end.end_offset >= replica.log_end.end_offset",
        40,
    ),
    Planted(
        "half of the votes win",
        "states",
        ">= voters.majority",
        ">= (len(voters) + 1) // 2",
        3,
    ),
    Planted(
        "pre-votes count as votes",
        "replica",
        "state = Candidate(now_ms + self.draw_election_ms(), Ballot({self.key.id}), retries)",
        "state = Candidate(now_ms + self.draw_election_ms(), self.state.ballot, retries)",
        7,
    ),
    Planted(
        "a candidate stands in the epoch that is",
        "replica",
        "self._enter(state, self.epoch + 1, None, (), self.key)",
        "self._enter(state, max(1, self.epoch), None, (), self.key)",
    ),
    Planted(
        "a follower promises what is not on its disk",
        "follow",
        "    if replica.kept_offset < replica.log.end_offset:\n        return again_at_ms",
        "    if False:\n        return again_at_ms",
        2,
    ),
    Planted(
        "a leader counts what is not on its disk",
        "replica",
        "return self.log.flushed_offset if self.config.can_vote else self.log.end_offset",
        "return self.log.end_offset",
        2,
    ),
    Planted(
        "records of older epochs are committed by counting",
        "serve_fetch",
        "if offset > state.start_offset and offset >",
        "if offset >",
    ),
    Planted(
        "one replica too few commits",
        "serve_fetch",
        "ends[replica.voters.majority - 1]",
        "ends[max(0, replica.voters.majority - 2)]",
    ),
    Planted(
        "a follower commits what it does not have",
        "follow",
        "min(state.leader_high_watermark, replica.kept_offset)",
        "state.leader_high_watermark",
    ),
    Planted(
        "a fetch is checked by its offset alone",
        "serve_fetch",
        "if end.epoch != last_epoch or end.end_offset < offset:",
        "if end.end_offset < offset:",
        16,
    ),
    Planted(
        "a fetch is checked by its epoch alone",
        "serve_fetch",
        "if end.epoch != last_epoch or end.end_offset < offset:",
        "if end.epoch != last_epoch:",
        3,
    ),
    Planted(
        "a follower is cut where the leader's epoch ends, whatever its own did",
        "follow",
        "min(ours.end_offset, diverging.end_offset)",
        "diverging.end_offset",
        16,
    ),
    Planted(
        "a change of the voters does not wait for the one before",
        "membership",
        "voters_offset is None or voters_offset >= state.high_watermark",
        "voters_offset is None",
        3,
    ),
    Planted(
        "a change of the voters does not wait for the leader's own epoch",
        "membership",
        "if state.high_watermark is None or voters_offset is None or voters_offset >= state.high_watermark:",
        "if voters_offset is None or voters_offset >= replica.high_watermark:",
        40,
    ),
    Planted(
        "voters stay although their record was cut",
        "replica",
        "        self.history.forget_from(offset)\n",
        "",
        36,
    ),
    Planted(
        "followers do not notice new voters",
        "replica",
        "        if isinstance(self.state, Leader):\n            self._match_progress(self.state)",
        "        if isinstance(self.state, Leader):\n            self._match_progress(self.state)\n"
        "        else:\n            self.history.forget_from(start_offset)",
    ),
    Planted(
        "a loaded snapshot does not say who votes",
        "follow",
        "    replica.load_voters()\n",
        "    replica.history.forget_all()\n",
        3,
    ),
    Planted(
        "a request for another disk of this node is answered",
        "vote",
        "return addressed.id == key.id and addressed.directory_id in (ZERO_UUID, key.directory_id)",
        "return addressed.id == key.id",
        52,
    ),
    Planted(
        "a new leader writes nothing",
        "replica",
        "        self.log.append_control(self.epoch, self._first_records(granted_by))\n",
        "",
    ),
    Planted(
        "a sync that a cut has overtaken is not asked for again",
        "core",
        "        self._flush_asked = -1\n        state",
        "        state",
        168,
    ),
    Planted(
        "a leader that was voted out goes on",
        "core",
        "if is_removed(replica, state) or",
        "if",
        3,
    ),
)


def plant(bug: Planted | None, into: Path, package: str) -> Callable[[int], object]:
    """Returns `run_seed` of a copy with the bug in it (or without any)."""
    home = into / package
    home.mkdir()
    (home / "__init__.py").write_text("")
    for name, source in _sources():
        if bug is not None and name == bug.module:
            assert bug.old in source, f"{bug.claim}: its place in {name}.py is gone, plant it anew"
            source = source.replace(bug.old, bug.new)
        for prefix in ("streamlog.broker.raft", "tests.broker.raft"):
            for module in (*CORE, *HARNESS):
                source = source.replace(f"from {prefix}.{module} import", f"from {package}.{module} import")
        (home / f"{name}.py").write_text(source)
    sys.path.insert(0, str(into))
    try:
        run_seed: Callable[[int], object] = importlib.import_module(f"{package}.simulation").run_seed
        return run_seed
    finally:
        sys.path.remove(str(into))
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]


def _sources() -> list[tuple[str, str]]:
    core, harness = Path(streamlog.broker.raft.__path__[0]), Path(tests_raft.__path__[0])
    return [(name, (core / f"{name}.py").read_text()) for name in CORE] + [
        (name, (harness / f"{name}.py").read_text()) for name in HARNESS
    ]


def seeds_until_found(run_seed: Callable[[int], object], budget: int, first: int = 0) -> int | None:
    """How many seeds it takes until one fails; None within the budget. Whatever fails is a find: a crash, a loop."""
    for tried, seed in enumerate((first, *range(budget)), 1):
        try:
            run_seed(seed)
        except Exception:
            return tried
    return None
