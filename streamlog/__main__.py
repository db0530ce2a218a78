"""`python -m streamlog`, and the `streamlog` command.

Nothing is imported here that takes time: who presses Ctrl-C before the command has begun should see no traceback of
whatever was being imported just then.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

EXIT_INTERRUPTED = 130


def main() -> None:
    _open_standard_streams()
    if (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):  # else somebody wants it ignored: nohup, a shell's &
        signal.signal(signal.SIGINT, end_at_once)
    from streamlog.cli.main import main as command

    command()


def _open_standard_streams() -> None:
    """Whoever started us may have closed some of them. The next file or socket would then be number 0, 1 or 2, which
    libuv, below uvloop, ends the process for, and which others print to."""
    while (lowest := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: TID251  # before there is an Env
        if lowest == 0:
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # for the life of the process
        else:
            setattr(sys, ("stdout", "stderr")[lowest - 1], open(lowest, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    os.close(lowest)


def end_at_once(number: int, frame: Any) -> None:
    """A signal handler for while there is nothing to clean up."""
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    # This file is imported as streamlog.__main__ too; were it run as both, the handler set here would be another than
    # the one that cli/main.py knows and takes off.
    from streamlog.__main__ import main as only_main

    only_main()
