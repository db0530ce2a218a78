"""The only door to wall clock, monotonic clock, randomness, uuids, files, threads and tasks.

Everything that could make two runs of the same program differ passes through one `Env` value, handed down
from the command or the test that starts a node. Production passes `real_env()`. A simulation passes an `Env`
whose clock it advances, whose entropy is a seed and whose storage forgets what was not synced; the rooms above
cannot tell. A lint (`pyproject.toml`, banned-api) keeps the doors shut everywhere else. Sockets need no seam of their
own: they come from the running loop's `create_server` and `create_connection`, and the loop can be replaced.

There are no module globals to reach for: several nodes live in one process when a cluster is simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import random
import shutil
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, TypeVar

from streamlog.errors import EnvironmentFailure

T = TypeVar("T")

Buffer: TypeAlias = bytes | bytearray | memoryview

OFFLOAD_THREADS_MAX = 4
"""Threads that wait for disks or for RocksDB. They hold no Python work, so cores do not bound their number;
four keep a flush, a compaction, a store being opened and one being closed from queueing behind each other."""

IOV_MAX = 1024
"""Buffers per writev call (Linux's UIO_MAXIOV)."""


class Clock(Protocol):
    """Time as one node sees it. Wall time may jump either way; monotonic time may not."""

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...

    def mono_ms(self) -> int:
        """Milliseconds on a clock that never goes back; its zero means nothing. Deadlines use this one."""
        ...

    def mono_ns(self) -> int:
        """The same clock in nanoseconds, for measuring."""
        ...


class Entropy(Protocol):
    """Randomness of one node."""

    def random(self) -> float:
        """Uniform in [0, 1)."""
        ...

    def randrange(self, stop: int) -> int:
        """Uniform integer in [0, stop)."""
        ...

    def uuid4(self) -> uuid.UUID: ...

    def token_bytes(self, count: int) -> bytes: ...


class File(Protocol):
    """One open file. All calls block; `fdatasync` belongs in `Offload.run`. Errors are OSError."""

    @property
    def path(self) -> str: ...

    def append(self, data: Buffer) -> None:
        """Write all of `data` at the end of the file."""
        ...

    def append_parts(self, parts: Sequence[Buffer]) -> None:
        """Write all of `parts` at the end of the file, in order, without joining them first."""
        ...

    def pwrite(self, data: Buffer, position: int) -> None:
        """Write all of `data` at `position`."""
        ...

    def pread(self, size_bytes: int, position: int) -> bytes:
        """Up to `size_bytes` from `position`; fewer only at the end of the file."""
        ...

    def size(self) -> int: ...

    def truncate(self, size_bytes: int) -> None: ...

    def fdatasync(self) -> None:
        """Make data and size durable. After an error the lost pages stay lost: never retry and trust."""
        ...

    def close(self) -> None: ...


class DirectoryLock(Protocol):
    """Held until released or until the process ends, however it ends."""

    def release(self) -> None: ...


class Storage(Protocol):
    """The file system. Paths are absolute or relative to the working directory; errors are OSError."""

    def open_file(self, path: str, *, create: bool = False) -> File:
        """Open for reading and writing. With `create`, an absent file is created empty."""
        ...

    def read_bytes(self, path: str) -> bytes: ...

    def write_atomic(self, path: str, data: Buffer) -> None:
        """Replace the file: after a crash it holds the old bytes or the new ones, never a mixture."""
        ...

    def exists(self, path: str) -> bool: ...

    def is_directory(self, path: str) -> bool: ...

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted."""
        ...

    def make_directory(self, path: str) -> None:
        """Create the directory and its parents; an existing one is fine."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomic; durable only after `sync_directory` of the parent."""
        ...

    def remove(self, path: str) -> None: ...

    def remove_tree(self, path: str) -> None: ...

    def sync_directory(self, path: str) -> None: ...

    def lock(self, path: str) -> DirectoryLock | None:
        """Take the lock file at `path`, or None when another process holds it."""
        ...

    def free_bytes(self, path: str) -> int: ...


class Offload(Protocol):
    """The only way to another thread. What runs there is pure, or touches only storage or a state store."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` elsewhere. Cancelling the wait does not stop the work."""
        ...

    def close(self) -> None: ...


class Hooks(Protocol):
    """What a simulation listens to. In production all three cost a call and do nothing."""

    def buggify(self, site: str) -> bool:
        """Whether to take the rare legal path at `site` now. Always False in production."""
        ...

    def sometimes(self, name: str) -> None:
        """Record that the situation `name`, which a campaign must reach, was reached."""
        ...


@dataclass(frozen=True, slots=True)
class Env:
    """One node's outside world."""

    clock: Clock
    entropy: Entropy
    storage: Storage
    offload: Offload
    hooks: Hooks
    process_id: int = field(default_factory=os.getpid)


class RealClock:
    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def mono_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def mono_ns(self) -> int:
        return time.monotonic_ns()


class RealEntropy:
    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def random(self) -> float:
        return self._random.random()

    def randrange(self, stop: int) -> int:
        return self._random.randrange(stop)

    def uuid4(self) -> uuid.UUID:
        return uuid.uuid4()

    def token_bytes(self, count: int) -> bytes:
        return os.urandom(count)


class RealFile:
    __slots__ = ("_fd", "_path")

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd

    @property
    def path(self) -> str:
        return self._path

    def append(self, data: Buffer) -> None:
        written = os.write(self._fd, data)
        if written != len(data):
            self._append_rest(memoryview(data)[written:])

    def _append_rest(self, rest: memoryview) -> None:
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def append_parts(self, parts: Sequence[Buffer]) -> None:
        for start in range(0, len(parts), IOV_MAX):
            chunk = parts[start : start + IOV_MAX]
            written = os.writev(self._fd, chunk)
            for part in chunk:
                if written >= len(part):
                    written -= len(part)
                else:
                    self._append_rest(memoryview(part)[written:])
                    written = 0

    def pwrite(self, data: Buffer, position: int) -> None:
        # Linux appends whatever the position on a descriptor opened with O_APPEND (pwrite(2), BUGS),
        # so files are opened without it and `append` relies on the descriptor's own position.
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._fd, rest, position)
            rest, position = rest[written:], position + written

    def pread(self, size_bytes: int, position: int) -> bytes:
        data = os.pread(self._fd, size_bytes, position)
        if len(data) == size_bytes or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size_bytes:
            data = os.pread(self._fd, size_bytes - got, position + got)
            if not data:
                break
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def truncate(self, size_bytes: int) -> None:
        os.ftruncate(self._fd, size_bytes)
        os.lseek(self._fd, 0, os.SEEK_END)

    def fdatasync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RealDirectoryLock:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RealStorage:
    def open_file(self, path: str, *, create: bool = False) -> RealFile:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o644)
        os.lseek(fd, 0, os.SEEK_END)
        return RealFile(path, fd)

    def read_bytes(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def write_atomic(self, path: str, data: Buffer) -> None:
        draft = path + ".tmp"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        except OSError:
            os.unlink(draft)  # a full disk needs the room
            raise
        finally:
            os.close(fd)
        os.replace(draft, path)
        self.sync_directory(os.path.dirname(path) or ".")

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def make_directory(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def remove_tree(self, path: str) -> None:
        shutil.rmtree(path)

    def sync_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: str) -> RealDirectoryLock | None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        return RealDirectoryLock(fd)

    def free_bytes(self, path: str) -> int:
        return shutil.disk_usage(path).free


class ThreadOffload:
    def __init__(self, threads_max: int = OFFLOAD_THREADS_MAX) -> None:
        self._executor = ThreadPoolExecutor(threads_max, thread_name_prefix="streamlog")

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        self._executor.shutdown(wait=True)


class NoHooks:
    def buggify(self, site: str) -> bool:
        return False

    def sometimes(self, name: str) -> None:
        return None


def real_env() -> Env:
    """The machine itself. One per process is enough; its threads start when first used."""
    return Env(RealClock(), RealEntropy(), RealStorage(), ThreadOffload(), NoHooks())


class LoopThread:
    """An event loop in a thread of its own, for callers that have none, or whose own loop is busy (notebooks).

    The thread is a daemon: a program may end without closing it.
    """

    def __init__(self, name: str) -> None:
        self.closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._end_tasks())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _end_tasks(self) -> None:
        """What is left would be ended by the garbage collector otherwise, on a loop that is closed."""
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and wait for it. Interrupted (Ctrl-C), the work is cancelled."""
        if self.closed:
            work.close()
            raise RuntimeError(f"{self._thread.name} is closed")
        waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result()
        except CancelledError:
            if self.closed:
                raise RuntimeError(f"{self._thread.name} was closed") from None
            raise
        except BaseException:
            waiting.cancel()
            raise

    def close(self) -> None:
        """Cancel what still runs there, and end the loop and its thread. Idempotent."""
        if not self.closed:
            self.closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


@dataclass(slots=True)
class Scope:
    """Owns the tasks of one long-lived object: no task without an owner, no owner without an end.

    asyncio.TaskGroup fits a block of code; an object with `open` and `close` needs the same promise without the
    block. `spawn` starts a named task. When one fails, `on_failure` is called once with the first exception and
    the others are cancelled: a half-dead owner is worse than a dead one. `close` cancels and waits, in the
    order of spawning, so that a simulation replays.
    """

    name: str
    on_failure: Callable[[BaseException], None] | None = None
    failure: BaseException | None = None
    """The first exception of any task, kept for `close` and for whoever asks."""
    _tasks: dict[int, asyncio.Task[Any]] = field(default_factory=dict)
    _spawned: int = 0
    _closed: bool = False

    def spawn(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start `work` as a task of this owner. Raises RuntimeError after `close`."""
        if self._closed:
            work.close()
            raise RuntimeError(f"{self.name} is closed; {name} cannot start")
        task = asyncio.get_running_loop().create_task(work, name=f"{self.name}/{name}")
        number = self._spawned
        self._spawned += 1
        self._tasks[number] = task
        task.add_done_callback(lambda done: self._on_done(number, done))
        return task

    def _on_done(self, number: int, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(number, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is None or self.failure is not None:
            return
        self.failure = error
        for other in list(self._tasks.values()):
            other.cancel()
        if self.on_failure is not None:
            self.on_failure(error)

    async def close(self) -> None:
        """Cancel what still runs and wait for it. Idempotent; does not raise what the tasks raised."""
        self._closed = True
        current = asyncio.current_task()
        for task in list(self._tasks.values()):
            if task is not current:
                task.cancel()
        for task in list(self._tasks.values()):
            if task is not current:
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await asyncio.wait([task])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
        if self.failure is not None and error is None:
            raise self.failure


_LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time at all: closing resets the connection."""


def forget_unsent(transport: asyncio.Transport) -> None:
    """Have the system forget, when the transport is aborted, what it was given to send and could not send yet.

    It would else go on trying on its own, for minutes, and deliver when the network is back.
    """
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):  # it is closed already
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)


def cancel_requests() -> int:
    """How often the running task was told to end.

    A CancelledError with more of them than before is ours. Otherwise something that was awaited was cancelled by
    somebody else (a library's task, a future of a client that closes), and that is a failure like any other.
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What each of `works` gives, in their order; they run at the same time.

    When one fails, its error is raised, alone and as it is, once the others were cancelled and have ended: what
    asyncio.gather leaves running may outlive the loop, and a TaskGroup wraps the error and has no order.
    """
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        for task in tasks:
            if not task.done():
                await asyncio.wait([task])
        raise


async def deadline(seconds: float, what: str, work: Coroutine[Any, Any, T]) -> T:
    """`work`, or EnvironmentFailure naming `what` when it takes longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise EnvironmentFailure(f"{what} took longer than {seconds:g} s") from None
