"""What a worker says while it runs: log lines, above the progress display where there is one."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

CHATTY = ("streamlog.client", "streamlog.state")
"""They log a line for each partition and each table, which with a few hundred of them is noise. What becomes of the
tasks is said by streamlog.streams, and the rest from --loglevel debug on."""

_console: Console | None = None


def console() -> Console | None:
    """The terminal on standard error; None when it is none."""
    global _console  # noqa: PLW0603 - one terminal per process
    if _console is None and sys.stderr.isatty():
        from rich.console import Console

        _console = Console(stderr=True, highlight=False)
    return _console


def set_up_logging(level: str, *, plain: bool) -> None:
    """Log to standard error. `plain`: for a supervisor, which puts a number before each line."""
    terminal = None if plain else console()
    handler: logging.Handler
    if terminal is None:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    else:
        handler = _TerminalHandler(terminal)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if level == "info":
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)


class _TerminalHandler(logging.Handler):
    """Prints through rich, which keeps the progress display below the lines."""

    STYLES = ((logging.ERROR, "red"), (logging.WARNING, "yellow"))

    def __init__(self, terminal: Console) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        try:
            style = next((name for level, name in self.STYLES if record.levelno >= level), None)
            self._terminal.print(self.format(record), style=style, markup=False, soft_wrap=True)
        except Exception:  # as logging's own handlers: a log line never ends the program
            self.handleError(record)
