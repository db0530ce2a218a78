"""`python -m streamlog`, and the `streamlog` command.

Nothing is imported here that takes time: who presses Ctrl-C before the command has begun should see no traceback of
whatever was being imported just then.
"""

from __future__ import annotations

import os
import signal
from typing import Any

EXIT_INTERRUPTED = 130


def main() -> None:
    if (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):  # else somebody wants it ignored: nohup, a shell's &
        signal.signal(signal.SIGINT, end_at_once)
    from streamlog.cli.main import main as command

    command()


def end_at_once(number: int, frame: Any) -> None:
    """A signal handler for while there is nothing to clean up."""
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
