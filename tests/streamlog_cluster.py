"""Three of our own nodes on loopback, as `streamlog cluster` makes them, seen as tests see those of Apache Kafka."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from streamlog.cli.local_cluster import LocalCluster, Node, make_cluster, make_plan, properties
from streamlog.cli.process_files import reap
from streamlog.env import real_env

START_S_MAX = 60.0
STOP_S_MAX = 30.0


class StreamlogMember:
    """One node. `start` again keeps the directory and the ports."""

    def __init__(self, cluster: LocalCluster, node: Node) -> None:
        self.node_id, self.address = node.id, node.address
        self.log = cluster.log(node)
        self._cluster, self._node = cluster, node

    @property
    def pid(self) -> int:
        process = self._cluster.process(self._node)
        assert process is not None, "the node runs"
        return process.pid

    def start(self, *, wait: bool = True) -> None:
        seen = self._cluster.start([self._node], "INFO")
        assert seen, "already running"
        if wait:
            self.wait_until_started(seen[self.node_id])

    def wait_until_started(self, seen: int = 0) -> None:
        give_up_at = time.monotonic() + START_S_MAX
        while b" ready on " not in self.log.read_bytes()[seen:]:
            if time.monotonic() > give_up_at or self._cluster.process(self._node) is None:
                raise AssertionError(f"node {self.node_id} did not start:\n{self._cluster.log_tail(self._node, seen)}")
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        process = self._cluster.process(self._node)
        assert process is not None, "the node runs"
        process.signal(number)

    def stop(self, *, kill: bool = False) -> None:
        """End the process and wait for it: an orderly shutdown, or kill -9."""
        process = self._cluster.process(self._node)
        if process is None:
            return
        process.signal(signal.SIGKILL if kill else signal.SIGTERM)
        give_up_at = time.monotonic() + STOP_S_MAX
        while process.state != "ended":
            if time.monotonic() > give_up_at:
                process.signal(signal.SIGKILL)
                raise AssertionError(f"node {self.node_id} did not stop: {self._cluster.log_tail(self._node)}")
            time.sleep(0.01)
        reap(process)


class StreamlogCluster:
    """Combined nodes 1, 2, 3. `close` kills them."""

    def __init__(
        self,
        *,
        nodes: int = 3,
        settings: Mapping[str, str] | None = None,
        directory: Path | None = None,
        data: Callable[[int], Path] | None = None,
    ) -> None:
        """`directory` is kept if it is given; `data` says where a node's own data are, by default below it."""
        self._temporary = None if directory else tempfile.TemporaryDirectory(prefix="streamlog-cluster-")
        self.directory = directory or Path(self._temporary.name if self._temporary else "")
        env = real_env()
        plan = make_plan(env, combined=nodes, brokers=0, controllers=0, port_base=None)
        found = make_cluster(env, self.directory, plan)
        values = {"group.initial.rebalance.delay.ms": "0", "offsets.topic.num.partitions": "4", **(settings or {})}
        for one in plan.nodes if data else ():
            assert data is not None, "the loop is not entered otherwise"
            found.path(one).mkdir(parents=True)
            found.config(one).write_text(properties(plan, one, data(one.id), values))
        found.prepare(found.plan.nodes, values)
        env.offload.close()
        self.nodes = {one.id: StreamlogMember(found, one) for one in plan.nodes}
        self.bootstrap = plan.bootstrap
        try:
            for member in self.nodes.values():
                member.start(wait=False)
            for member in self.nodes.values():
                member.wait_until_started()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for one in self.nodes.values():
            one.stop(kill=True)
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
