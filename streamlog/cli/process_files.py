"""A process that outlives who started it, and how it is found again: a file with its number and when it began.

The number alone would lie: after a crash or a reboot another process may have it. Two processes with one number did not
begin at the same time, so the file says when, and counts only while that is still true.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

FROZEN_STATES: Final = "Tt"
"""Of /proc/PID/stat: stopped by a signal, or by a debugger."""


class Process(msgspec.Struct, frozen=True):
    """One process, for good: no other is ever equal."""

    pid: int
    began: str
    """By the kernel's count, which begins again with every boot: the boot is part of it."""

    @property
    def state(self) -> str:
        """ "running", "frozen" (it was sent SIGSTOP), or "ended"."""
        if _began(self.pid) != self.began:
            return "ended"
        state = _stat(self.pid)[:1] or "X"
        return "ended" if state in "ZXx" else "frozen" if state in FROZEN_STATES else "running"

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal. Whether there was somebody to get it."""
        if self.state == "ended":
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def find(path: Path) -> Process | None:
    """The process that the file names, if it still lives."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Process)
    except (OSError, msgspec.MsgspecError):
        return None
    return None if found.state == "ended" else found


def spawn(command: Sequence[str], environment: Mapping[str, str], output: Path, file: Path) -> Process:
    """Start a command in a session of its own, its output added to `output`, and remember it in `file`.

    Not by `subprocess`, which complains about a child that is left alone.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        command[0],
        list(command),
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    process = Process(pid, _began(pid))
    fresh = file.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(process))
    fresh.replace(file)
    return process


def reap(process: Process) -> None:
    """Forget a child of ours that has ended; others have other parents."""
    try:
        os.waitpid(process.pid, os.WNOHANG)
    except OSError as error:
        if error.errno != errno.ECHILD:
            raise


def _stat(pid: int) -> str:
    """State and what follows in /proc/PID/stat, after the name, which may contain anything; empty without such."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].strip()
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When a process began; empty when there is none."""
    if BOOT_ID.exists():
        fields = _stat(pid).split()
        return f"{BOOT_ID.read_text().strip()} {fields[19]}" if len(fields) > 19 else ""
    told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip()
