"""A small network of namespaces, whose links can be cut without anybody being told.

Each node has a namespace of its own with one address; clients are where the tests run. All of them hang on one bridge.
A cut from a to b makes a believe that b has a hardware address that nobody has: frames leave and arrive nowhere, no
connection is refused or reset, as with a switch that has failed. Cuts have a direction.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

CLIENTS = 0
"""Where the tests and their clients are; nodes count from 1."""

NOBODY = "02:00:00:00:00:01"


def is_possible() -> bool:
    """Whether namespaces can be made here: it takes root on Linux and iproute2."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"slp{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return made.returncode == 0


class Network:
    """Nodes 1 to `count`, inside a `with` block."""

    def __init__(self, count: int) -> None:
        tag = os.getpid() % 65536
        self._bridge = f"slb{tag:x}"
        self._tag = f"sl{tag:x}"
        self._subnet = f"10.{200 + tag // 256 % 50}.{tag % 256}"
        self._nodes = range(1, count + 1)
        self._cut: set[tuple[int, int]] = set()

    def address(self, node: int) -> str:
        return f"{self._subnet}.{1 if node == CLIENTS else 10 + node}"

    def prefix(self, node: int) -> tuple[str, ...]:
        """What runs a command in the node's namespace, in a process with the same number."""
        return ("ip", "netns", "exec", self._namespace(node))

    def _namespace(self, node: int) -> str:
        return f"{self._tag}n{node}"

    def __enter__(self) -> Self:
        self._ip("link", "add", self._bridge, "type", "bridge")
        self._ip("addr", "add", f"{self.address(CLIENTS)}/24", "dev", self._bridge)
        self._ip("link", "set", self._bridge, "up")
        for node in self._nodes:
            outer, space = f"{self._tag}v{node}", self._namespace(node)
            self._ip("netns", "add", space)
            self._ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            self._ip("link", "set", outer, "master", self._bridge, "up")
            self._ip("-n", space, "link", "set", "lo", "up")
            self._ip("-n", space, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")
            self._ip("-n", space, "link", "set", "eth0", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self._nodes:
            self._ip("netns", "del", self._namespace(node), check=False)
        self._ip("link", "del", self._bridge, check=False)

    def cut(self, source: int, target: int) -> None:
        """What `source` sends to `target` is lost from now on."""
        where = self._of(source)
        self._ip(
            *where, "neigh", "replace", self.address(target), "lladdr", NOBODY, "nud", "permanent", *self._dev(source)
        )
        self._cut.add((source, target))

    def isolate(self, node: int, others: Iterable[int]) -> None:
        """Cut both directions between a node and others."""
        for other in others:
            self.cut(node, other)
            self.cut(other, node)

    def heal(self) -> None:
        """Take all cuts back."""
        for source, target in sorted(self._cut):
            self._ip(*self._of(source), "neigh", "del", self.address(target), *self._dev(source))
        self._cut.clear()

    def _of(self, node: int) -> Sequence[str]:
        return () if node == CLIENTS else ("-n", self._namespace(node))

    def _dev(self, node: int) -> Sequence[str]:
        return ("dev", self._bridge if node == CLIENTS else "eth0")

    def _ip(self, *arguments: str, check: bool = True) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"ip {' '.join(arguments)}: {done.stderr}"
