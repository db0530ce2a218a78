"""The embedded log: a broker process that belongs to a data directory, started by whoever needs it first.

A worker without a broker URL uses the log in `<data_dir>/log`. The broker is a process of its own, not a thread of the
worker: both are Python and would share one GIL (docs/decisions/0011-embedded-log-process.md has the measurement). It is
a session of its own as well, so that Ctrl-C in the worker's terminal does not end it before the worker has committed;
when nobody has been connected to it for a while it ends by itself.

Who serves a directory is decided by locks, which the kernel releases however a process ends, and never by what a file
says: `broker.json` survives kill -9.

    <data_dir>/log.start      held while somebody looks whether a broker runs, and starts one
    <data_dir>/log/.lock      held by the broker as long as it runs
    <data_dir>/log/broker.json  where it listens; believed only while `.lock` is held and the address answers
    <data_dir>/log/broker.log   what it printed
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import msgspec

from streamlog.env import Env, Scope
from streamlog.errors import EnvironmentFailure, StreamlogError, UserError

log = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
PORT_PREFERRED: Final = 9092
"""Kafka's, so that other Kafka clients find the embedded log at the address they expect."""

IDLE_S: Final = 30.0
"""How long the broker outlives its last client: enough to restart a worker after an edit, and find it still there."""

START_S_MAX: Final = 60.0
"""A broker recovers its log before it serves; after a power cut that reads the last segment of every partition."""

POLL_S: Final = 0.02
RESTART_PAUSE_S: Final = 0.5
LOG_LINES_SHOWN: Final = 12

PROBE_BYTES: Final = 8192
"""More than what file systems keep in an inode, so that it needs room as the broker's log does."""

SETTINGS: Final = ("group.initial.rebalance.delay.ms=100",)
"""Kafka waits 3 s for more members of a new group, because a cluster's applications start together. Nobody should wait
for that on a laptop."""


class _Announcement(msgspec.Struct):
    """What is needed of the broker's `broker.json`."""

    pid: int
    listen: str


class _Lease(asyncio.Protocol):
    """A connection without a request: as long as it is open the broker is in use, and its end is the broker's."""

    def __init__(self) -> None:
        self.transport: asyncio.BaseTransport | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class EmbeddedLog:
    """The log of one data directory, kept available between `open` and `close`. Use it as a context manager.

    A broker that dies meanwhile is started again, at the same port when that is still free.
    """

    def __init__(self, env: Env, data_dir: str, *, idle_s: float = IDLE_S) -> None:
        self.data_dir = os.path.abspath(data_dir)
        self.path = f"{self.data_dir}/log"
        self.address = ""
        """host:port, once open."""
        self.started = False
        """Whether this object started the broker, rather than joined one."""
        self._env = env
        self._idle_s = idle_s
        self._lease: _Lease | None = None
        self._child: int | None = None  # process id of a broker that we have to reap
        self._scope = Scope("embedded-log")

    async def open(self) -> None:
        """Join the broker that serves the directory, or start one.

        Raises: UserError: it does not start, with what it said. Cancelled, a broker that was started goes on, and ends
                when it has been idle.
        """
        await self._ensure()
        self._scope.spawn("watch", self._watch())

    async def close(self) -> None:
        """Let go of the broker; it ends by itself when nobody uses it."""
        await self._scope.close()
        if self._lease is not None:
            self._lease.close()
        self._reap()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- joining and starting -------------------------------------------------------------------------------------

    async def _ensure(self) -> None:
        storage = self._env.storage
        try:
            storage.make_directory(self.path)
            deadline_ms = self._env.clock.mono_ms() + int(START_S_MAX * 1000)
            while (lock := storage.lock(f"{self.data_dir}/log.start")) is None:
                self._check_time(deadline_ms, f"another process holds {self.data_dir}/log.start")
                await asyncio.sleep(POLL_S)
            try:
                await self._join_or_start(deadline_ms)
            finally:
                lock.release()
        except OSError as error:
            why = (
                "it is a file" if isinstance(error, (FileExistsError, NotADirectoryError)) else error.strerror or error
            )
            raise UserError(f"the data directory {self.data_dir} cannot be used: {why}") from error

    async def _join_or_start(self, deadline_ms: int) -> None:
        while self._is_served():
            known = self._announcement()
            if known is not None and await self._connect(known.listen):
                log.info("log=%s joined broker=%s pid=%d", self.path, self.address, known.pid)
                return
            self._check_time(deadline_ms, f"a broker holds {self.path} and does not answer")
            await asyncio.sleep(POLL_S)
        await self._start(await self._choose_port(), deadline_ms)

    def _is_served(self) -> bool:
        """Whether a process has the log open. Asked under the start lock only: it would race with a start."""
        lock = self._env.storage.lock(f"{self.path}/.lock")
        if lock is None:
            return True
        lock.release()
        return False

    def _announcement(self) -> _Announcement | None:
        try:
            return msgspec.json.decode(self._env.storage.read_bytes(f"{self.path}/broker.json"), type=_Announcement)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    async def _connect(self, address: str) -> bool:
        host, _, port = address.rpartition(":")
        try:
            _, lease = await asyncio.get_running_loop().create_connection(_Lease, host.strip("[]"), int(port))
        except (OSError, ValueError):
            return False
        if self._lease is not None:
            self._lease.close()
        self._lease, self.address = lease, address
        return True

    async def _choose_port(self) -> int:
        """The port of the broker before, so that its clients find the new one; else Kafka's; else any."""
        before = self._announcement()
        candidates = [address.rpartition(":")[2] for address in (self.address, before.listen if before else "")]
        for text in (*candidates, str(PORT_PREFERRED)):
            if text.isdigit() and await _is_free(int(text)):
                return int(text)
        return 0

    async def _start(self, port: int, deadline_ms: int) -> None:
        offset = self._log_size()
        self._reap()
        self._child = child = self._spawn(port)
        while True:
            known = self._announcement()
            if known is not None and known.pid == child and await self._connect(known.listen):
                break
            if self._reap():
                if port and not await _is_free(port):  # somebody was faster
                    await self._start(0, deadline_ms)
                    return
                said = self._log_tail(offset) or self._find_disk_failure()
                raise UserError(f"the embedded log in {self.path} did not start. Its broker said:\n{said}")
            self._check_time(deadline_ms, f"the broker of {self.path} did not become ready (see broker.log there)")
            await asyncio.sleep(POLL_S)
        self.started = True
        log.info("log=%s started broker=%s pid=%d", self.path, self.address, child)

    def _spawn(self, port: int) -> int:
        """Start the broker in a session of its own. Not by asyncio or subprocess: both want to see the end of it."""
        idle = f"{self._idle_s:g}"
        arguments = ["--data-dir", self.path, "--listen", f"{HOST}:{port}", "--exit-when-idle", idle, *SETTINGS]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "streamlog", "broker", *arguments],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, f"{self.path}/broker.log", flags, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )

    def _reap(self) -> bool:
        """Whether the broker that we started has ended."""
        if self._child is None:
            return False
        try:
            ended = os.waitpid(self._child, os.WNOHANG)[0] != 0
        except ChildProcessError:
            ended = True
        if ended:
            self._child = None
        return ended

    def _log_size(self) -> int:
        try:
            return len(self._env.storage.read_bytes(f"{self.path}/broker.log"))
        except OSError:
            return 0

    def _log_tail(self, offset: int) -> str:
        try:
            data = self._env.storage.read_bytes(f"{self.path}/broker.log")[offset:]
        except OSError as error:
            return f"(broker.log cannot be read: {error})"
        lines = data.decode(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LOG_LINES_SHOWN:])

    def _find_disk_failure(self) -> str:
        """Why a broker could not even say why it did not start: its words go where its log does."""
        try:
            self._env.storage.write_atomic(f"{self.path}/.probe", b" " * PROBE_BYTES)
            self._env.storage.remove(f"{self.path}/.probe")
        except OSError as error:
            return (
                f"  (nothing: {self.path} cannot be written: {error.strerror}.\n"
                "  Free some space there, or name another directory with --data-dir, and start again.)"
            )
        return "  (nothing)"

    def _check_time(self, deadline_ms: int, why: str) -> None:
        if self._env.clock.mono_ms() >= deadline_ms:
            raise EnvironmentFailure(f"{why}; waited {START_S_MAX:g} s")

    # --- watching -------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            assert self._lease is not None, "opened before it is watched"
            await self._lease.lost.wait()
            try:
                before = self.address
                await self._ensure()
            except StreamlogError as error:
                log.error("log=%s is gone and cannot be started again: %s", self.path, error)
                await asyncio.sleep(RESTART_PAUSE_S)
                continue
            if self.address != before:
                log.error("log=%s moved from %s to %s: restart the workers", self.path, before, self.address)


async def _is_free(port: int) -> bool:
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, HOST, port)
    except OSError:
        return False
    server.close()
    await server.wait_closed()
    return True


def running(env: Env, data_dir: str) -> str | None:
    """host:port of the broker that serves the data directory now; None when none does.

    For readers, which have no reason to start one. Looks at the broker's lock, without taking it from one that starts.
    """
    path = f"{data_dir}/log"
    storage = env.storage
    if not storage.exists(f"{path}/broker.json") or (start := storage.lock(f"{data_dir}/log.start")) is None:
        return None
    try:
        lock = storage.lock(f"{path}/.lock")
        if lock is not None:
            lock.release()
            return None
        return msgspec.json.decode(storage.read_bytes(f"{path}/broker.json"), type=_Announcement).listen
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    finally:
        start.release()


def exists(env: Env, data_dir: str) -> bool:
    """Whether an embedded log was ever made in this data directory."""
    return env.storage.is_directory(f"{data_dir}/log")


__all__: Sequence[str] = ("EmbeddedLog", "exists", "running")
