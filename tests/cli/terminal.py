"""A command on a terminal of its own, as somebody at a keyboard has it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from typing import Any, Self

from tests.cli.shell import PATIENCE_S, POLL_S, Shell

CTRL_C = b"\x03"


BECOME_STREAMLOG = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "streamlog", *sys.argv[1:]])
"""
"""Takes the terminal for its session, whose leader it is, first."""


class Terminal:
    """`streamlog` with its standard streams on a terminal that is its controlling one: Ctrl-C comes from there."""

    def __init__(
        self, shell: Shell, *arguments: str, columns: int = 80, environment: dict[str, str] | None = None
    ) -> None:
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.modes_before = self.modes()
        self._shown = bytearray()
        inherited = {name: value for name, value in shell.env.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", BECOME_STREAMLOG, *arguments],
            cwd=shell.path,
            env={**inherited, "TERM": "xterm", **(environment or {})},
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._theirs)
        self._reader.join()
        os.close(self._ours)

    def modes(self) -> list[Any]:
        """How the terminal treats what is typed: echo, lines, signals."""
        return termios.tcgetattr(self._theirs)

    @property
    def text(self) -> str:
        """What was shown so far, with lines ended as programs write them."""
        return self._shown.decode(errors="replace").replace("\r\n", "\n")

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def wait_for(self, pattern: str) -> None:
        give_up_at = time.monotonic() + PATIENCE_S
        while re.search(pattern, self.text) is None:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.text[-3000:]}"
            assert time.monotonic() < give_up_at, f"never said {pattern!r}: {self.text[-3000:]}"
            time.sleep(POLL_S)

    def ends(self, within_s: float = PATIENCE_S) -> int:
        """Wait for its end; returns the exit code."""
        code = self.process.wait(within_s)
        time.sleep(POLL_S)  # the reader is a thread; what was written before the end is in the terminal already
        return code

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # a terminal that nobody has open any more
                return
            if not data:
                return
            self._shown += data
