"""Golden scripts: stories of a quorum without random faults, with every change of a role, a log end or a commit.

`tests/scripts/raft/*.txt` hold commands, `---`, and what came of them. `STREAMLOG_GOLDEN=write pytest ...` writes the
second half anew; the difference is for people to read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from streamlog.broker.raft.core import RaftCore
from streamlog.broker.raft.effects import Effect
from streamlog.broker.raft.messages import AddVoterRequest, RemoveVoterRequest, VoterChangeResponse
from tests.broker.raft.simulation import Faults, Node, Simulation, endpoints

SCRIPTS = Path(__file__).parents[2] / "scripts" / "raft"
NO_FAULTS = Faults(0, 0, 0, 0, 0, 0, gone=1.0, slow_disk=0.0, crash_after_vote=0.0)


class Told(Simulation):
    """A simulation that writes down what changes."""

    def __init__(self, voters: int, observers: int) -> None:
        self.lines: list[str] = []
        self.names: dict[str, str] = {}
        self._roles: dict[int, str] = {}
        self._watermarks: dict[int, int] = {}
        super().__init__(1, voters, observers, NO_FAULTS)

    def handle(self, node: Node, event: Callable[[RaftCore], list[Effect]]) -> None:
        cuts, start, voters = len(node.log.cuts), node.log.start_offset, node.core.voters if node.core else None
        super().handle(node, event)
        number = node.key.id
        for cut in node.log.cuts[cuts:]:
            self.lines.append(f"{number} cuts its log at {cut}")
        if node.log.start_offset > start and node.applied == node.log.start_offset and not node.log.entries:
            self.lines.append(f"{number} loads a snapshot up to {node.log.start_offset}")
        if node.core is None:
            return
        role = self._role(node.core)
        if role != self._roles.get(number):
            self._roles[number] = role
            self.lines.append(f"{number} {role}")
        if voters is not None and node.core.voters != voters:
            self.lines.append(f"{number} voters={','.join(map(str, node.core.voters.ids))}")
        if node.high_watermark != self._watermarks.get(number, 0):
            self._watermarks[number] = node.high_watermark
            self.lines.append(f"{number} hw={node.high_watermark}")

    @staticmethod
    def _role(core: RaftCore) -> str:
        name = type(core.state).__name__.lower()
        return f"{name} epoch={core.epoch}" + (f" of {core.leader_id}" if name == "follower" else "")

    def do(self, command: str) -> None:
        """One line of a script. L is the first leader, F and G the first two of the others."""
        match [self.names.get(word, word) for word in command.split()]:
            case ["run", duration_ms]:
                self.run(int(duration_ms))
            case ["stabilize"]:
                self.run(30_000, self._is_settled)
                self.run(1_000)
                if not self.names and self.leaders():
                    leader = self.leaders()[0].key.id
                    others = [number for number in self.nodes if number != leader]
                    self.names = {
                        "L": str(leader),
                        **{name: str(number) for name, number in zip("FG", others, strict=False)},
                    }
            case ["append", number, *values]:
                node = self.nodes[int(number)]
                for value in values:
                    assert node.core is not None, "a node that is down appends nothing"
                    node.log.append_data(node.core.epoch, value.encode())
                self.handle(node, lambda core: core.on_appended(self.now_ms))
            case ["isolate", number]:
                others = [other for other in self.nodes if other != int(number)]
                self._blocked.update(frozenset((int(number), other)) for other in others)
            case ["heal"]:
                self._blocked.clear()
            case ["kill", number]:
                self.crash(self.nodes[int(number)])
            case ["start", number]:
                self._roles.pop(int(number), None)
                self.start(self.nodes[int(number)])
            case ["stop", number]:
                self.handle(self.nodes[int(number)], lambda core: core.on_stop(self.now_ms))
            case ["wipe", number]:
                self.wipe(self.nodes[int(number)])
            case ["snapshot", number]:
                self.snapshot(self.nodes[int(number)])
            case ["add", number]:
                self._change(AddVoterRequest(self.nodes[int(number)].key, endpoints(int(number)), 5_000))
            case ["remove", number]:
                self._change(RemoveVoterRequest(self.nodes[int(number)].key))
            case ["state"]:
                for node in self.nodes.values():
                    self.lines.append(self._state(node))
            case _:
                raise AssertionError(f"no such command: {command}")

    def _change(self, request: AddVoterRequest | RemoveVoterRequest) -> None:
        self.answers.clear()
        self.ask(self.leaders()[0], request)
        self.run(5_000, lambda: bool(self.answers))
        (answer,) = self.answers
        assert isinstance(answer, VoterChangeResponse)
        self.lines.append(f"answer {answer.answer.error.name} {answer.message}".rstrip())

    def _state(self, node: Node) -> str:
        if node.core is None:
            return f"{node.key.id} is down"
        log = node.log
        epochs = " ".join(
            f"{entry.epoch}:{entry.value.decode() if entry.kind == 'data' else entry.kind}" for entry in log.entries
        )
        return f"{node.key.id} {self._role(node.core)} hw={node.high_watermark} log from {log.start_offset}: {epochs}"


def play(commands: str) -> str:
    """The trace of a script's first half."""
    told: Told | None = None
    for line in commands.splitlines():
        command = line.partition("#")[0].strip()
        if not command:
            continue
        if told is None:
            _, voters, observers = command.split()
            told = Told(int(voters), int(observers))
        else:
            told.lines.append(f"> {command}")
            told.do(command)
    assert told is not None, "a script begins with its quorum"
    return "\n".join(told.lines) + "\n"


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    """What the script says happens, and nothing else."""
    commands, _, expected = path.read_text().partition("---\n")
    found = play(commands)
    if os.environ.get("STREAMLOG_GOLDEN") == "write":
        path.write_text(f"{commands}---\n{found}")
    else:
        assert found == expected
