"""A broker in a process of its own, as the `streamlog broker` command starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_S_MAX = 20

FAST_GROUPS = ("group.initial.rebalance.delay.ms=100", "offsets.topic.num.partitions=4")
"""Tests have few groups and no patience."""


class BrokerProcess:
    """Keeps its port and its directory over `kill`, `stop` and `start`."""

    def __init__(self, data_dir: Path, settings: Sequence[str] = FAST_GROUPS) -> None:
        self.data_dir = data_dir
        self.address = "127.0.0.1:0"
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Return when it serves."""
        command = [sys.executable, "-c", "from streamlog.cli.main import main; main()", "broker"]
        arguments = ["--data-dir", str(self.data_dir), "--listen", self.address, *self._settings]
        self._process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        assert " ready on " in ready, f"the broker did not start: {ready!r}"
        self.address = ready.split(" ready on ")[1].split()[0]

    def kill(self) -> None:
        """As the kernel would: no goodbye."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As an operator would."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Let it do nothing, its connections open, until `thaw`."""
        assert self._process is not None, "start it first"
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        assert self._process is not None, "start it first"
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        os.kill(process.pid, number)
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
