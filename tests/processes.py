"""Ending the processes that tests have started."""

from __future__ import annotations

import signal
import subprocess
from typing import Any


def end(process: subprocess.Popen[Any], seconds_max: float, *, kill: bool = False) -> bool:
    """Ask it to stop, or end it with SIGKILL, and return when it is gone.

    Says whether it went as it was told within the time; it is killed where it did not.
    """
    process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
    try:
        process.wait(seconds_max)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True
