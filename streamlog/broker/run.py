"""A broker as a process: from a parsed command line to an exit code.

The `streamlog broker` command and whoever embeds a broker in a process of its own call `run_broker`. It prints one
line when the broker is ready, and ends with SIGTERM, SIGINT, or when it has been idle for as long as it was told.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from streamlog.broker.config import BrokerConfig
from streamlog.broker.node import Node, start_node
from streamlog.env import Env
from streamlog.errors import EnvironmentFailure

if TYPE_CHECKING:
    from streamlog.broker.controller_node import ControllerNode

log = logging.getLogger(__name__)

N = TypeVar("N")

BROKER_FILE: Final = "broker.json"

IDLE_CHECK_MS: Final = 250


class RunningBroker(msgspec.Struct, kw_only=True):
    """`broker.json` in the data directory: who serves it, while somebody does.

    After a kill the file stays; that the directory's lock is free then tells that it lies.
    """

    pid: int
    listen: str
    """HOST:PORT as clients reach it."""
    node_id: int
    cluster_id: str


@dataclass(frozen=True, slots=True)
class RunOptions:
    data_dir: str
    exit_when_idle_ms: int | None = None
    """Stop after so long without any connection."""


async def run_broker(
    env: Env,
    config: BrokerConfig,
    options: RunOptions,
    tell: Callable[[str], None],
    started: Callable[[Node], None] | None = None,
) -> None:
    """Serve until told to stop. `tell` gets the line that says it is ready, `started` the node itself just before.

    Raises what `start_node` raises; EnvironmentFailure when the broker cannot go on (the metadata log's disk failed).
    """
    stop = asyncio.Event()
    failure: list[BaseException] = []

    def on_failure(error: BaseException) -> None:
        failure.append(error)
        stop.set()

    node = await _started(start_node(env, config, options.data_dir, on_failure=on_failure), stop)
    if node is None:
        return
    if started is not None:
        started(node)
    path = f"{options.data_dir}/{BROKER_FILE}"
    address = advertised_address(node)
    try:
        running = RunningBroker(
            pid=env.process_id, listen=address, node_id=node.broker.node_id, cluster_id=node.broker.cluster_id
        )
        try:
            env.storage.write_atomic(path, msgspec.json.encode(running))
        except OSError as error:  # whoever looks for this broker will not find it; its clients do
            log.warning("%s could not be written: %s", path, error)
        # What start-up made lives as long as the process: the collector need not look at it again.
        gc.freeze()
        tell(f"streamlog broker {node.broker.node_id} ready on {address} (data in {options.data_dir})")
        await _until_stopped(node, stop, options.exit_when_idle_ms)
    finally:
        await node.close()
        with suppress(OSError):
            env.storage.remove(path)
    if failure:
        raise EnvironmentFailure(f"the broker cannot go on: {failure[0]}") from failure[0]


async def run_controller(
    env: Env,
    config: BrokerConfig,
    options: RunOptions,
    tell: Callable[[str], None],
    started: Callable[[ControllerNode], None] | None = None,
) -> None:
    """Take part in the metadata quorum until told to stop; `started` gets the node.

    Raises what `start_controller` raises; EnvironmentFailure when the controller cannot go on.
    """
    # Not at the top: a broker has no use for it.
    from streamlog.broker.controller_node import start_controller

    stop = asyncio.Event()
    failure: list[BaseException] = []

    def on_failure(error: BaseException) -> None:
        failure.append(error)
        stop.set()

    node = await _started(start_controller(env, config, options.data_dir, on_failure=on_failure), stop)
    if node is None:
        return
    if started is not None:
        started(node)
    at = node.listening[0]
    try:
        gc.freeze()
        tell(f"streamlog controller {node.node_id} ready on {at.host}:{at.port} (data in {options.data_dir})")
        await stop.wait()
    finally:
        await node.close()
    if failure:
        raise EnvironmentFailure(f"the controller cannot go on: {failure[0]}") from failure[0]


async def _started(start: Coroutine[None, None, N], stop: asyncio.Event) -> N | None:
    """The node, once it has started; None when it was told to stop before: it may have to wait for other nodes.

    From here on SIGTERM and SIGINT set `stop`.
    """
    task = asyncio.current_task()
    assert task is not None, "nodes are started by tasks"
    is_starting = True

    def on_signal() -> None:
        if is_starting and not stop.is_set():
            task.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        return await start
    except OSError as error:
        raise EnvironmentFailure(f"the data directory cannot be used: {error}") from error
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        task.uncancel()
        return None
    finally:
        is_starting = False


async def _until_stopped(node: Node, stop: asyncio.Event, exit_when_idle_ms: int | None) -> None:
    if exit_when_idle_ms is None:
        await stop.wait()
        return
    while not stop.is_set():
        server = node.server
        if not server.connections:
            idle_ms = node.env.clock.mono_ms() - server.idle_since_ms
            if idle_ms >= exit_when_idle_ms:
                log.info("no connection for %d ms: stopping", idle_ms)
                return
        try:
            async with asyncio.timeout(IDLE_CHECK_MS / 1000):
                await stop.wait()
        except TimeoutError:
            continue


def advertised_address(node: Node) -> str:
    """HOST:PORT of the first listener, as clients are told."""
    endpoint = node.broker.image.brokers[node.broker.node_id].endpoints[0]
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.port}"
