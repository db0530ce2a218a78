"""Clock, files, threads, processes and sockets have one door, streamlog/env.py: whatever goes past it is no part of a
simulation. Ruff's banned-api sees imports and names of modules; this sees the rest, calls without an import among it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamlog

PACKAGE = Path(streamlog.__file__).parent

OUTSIDE = ("env.py", "__main__.py", "cli/", "testing/")
"""The door itself, and what is outside the house: a process's streams, commands that read what the user names, and the
simulator, which is what is behind the door."""

MODULES = frozenset(
    [
        *["concurrent", "ctypes", "fcntl", "fileinput", "ftplib", "glob", "http", "linecache", "mmap"],
        *["multiprocessing", "pathlib", "queue", "random", "resource", "sched", "secrets", "select", "selectors"],
        *["shelve", "shutil", "signal", "smtplib", "socket", "socketserver", "sqlite3", "subprocess", "tempfile"],
        *["threading", "time"],
    ]
)
"""Nothing of these."""

OS = frozenset(
    [
        *["environ", "environ.get", "path.basename", "path.dirname", "path.join", "path.normpath", "path.sep"],
        *["path.split", "sep", "PathLike"],
    ]
)
"""What may be used of os: names of paths, and what the user said to this process."""

ASYNCIO = frozenset(
    [
        *["create_subprocess_exec", "create_subprocess_shell", "new_event_loop", "open_connection"],
        *["open_unix_connection", "run", "start_server", "start_unix_server", "to_thread"],
    ]
)
"""What may not be used of asyncio: threads, processes, sockets. Tasks: test_tidy.py."""

LOOP = frozenset(
    [
        *["add_reader", "add_signal_handler", "add_writer", "connect_read_pipe", "create_datagram_endpoint"],
        *["create_unix_connection", "create_unix_server", "run_in_executor", "set_default_executor"],
        *["subprocess_exec", "subprocess_shell"],
    ]
)
"""What may not be used of a loop, whatever it is called. TCP (create_connection, create_server) is simulated."""

ALLOWED = {
    ("embedded.py", "os.path.abspath"): "names a directory to another process; no file is touched",
    ("embedded.py", "os.posix_spawn"): "the embedded log's process, which outlives the worker: nothing to simulate",
    ("embedded.py", "os.waitpid"): "the same process",
    ("embedded.py", "os.WNOHANG"): "the same",
    ("embedded.py", "os.devnull"): "its standard streams",
    ("embedded.py", "os.O_APPEND"): "the same",
    ("embedded.py", "os.O_CREAT"): "the same",
    ("embedded.py", "os.O_RDONLY"): "the same",
    ("embedded.py", "os.O_WRONLY"): "the same",
    ("embedded.py", "os.POSIX_SPAWN_DUP2"): "the same",
    ("embedded.py", "os.POSIX_SPAWN_OPEN"): "the same",
    ("broker/run.py", "signal"): "the command's process: what SIGTERM does to it",
    ("broker/run.py", "add_signal_handler"): "the same",
    ("web/http.py", "asyncio.open_connection"): "the running loop's create_connection with a reader: it is simulated",
}
"""What goes past the door for a reason."""


def banned(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """What a module uses past the door, by its full name, with its line."""
    names = dict(_imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for _, imported in _imported(node):
                yield from ((one, node.lineno) for one in [_judge(imported)] if one is not None)
        elif isinstance(node, ast.Attribute):
            full = _full_name(node, names)
            found = None if full is None else _judge(full)
            if found is None and node.attr in LOOP:
                found = node.attr
            if found is not None:
                yield found, node.lineno
        elif isinstance(node, ast.Name) and node.id == "open" and "open" not in names:
            yield "open", node.lineno


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Names that imports bind, and what they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield one.asname or one.name.partition(".")[0], one.name if one.asname else one.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for one in node.names:
                yield one.asname or one.name, f"{node.module}.{one.name}"


def _full_name(node: ast.expr, names: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        base = _full_name(node.value, names)
        return None if base is None else f"{base}.{node.attr}"
    return None


def _judge(full: str) -> str | None:
    """The name, if it is banned."""
    module, _, name = full.partition(".")
    if module in MODULES:
        return module
    if module == "os" and name not in ("", "path", *OS):
        return full
    if full == "io.open" or (module == "asyncio" and name in ASYNCIO):
        return full
    return None


def test_nothing_goes_past_the_door() -> None:
    """Except for what is named above, with its reason; and each of those still does."""
    found: dict[tuple[str, str], list[int]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(OUTSIDE):
            for what, line in banned(ast.parse(path.read_text(), str(path))):
                found.setdefault((name, what), []).append(line)
    assert {where: lines for where, lines in found.items() if where not in ALLOWED} == {}
    assert set(ALLOWED) - set(found) == set(), "nothing to allow any more"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("open('x')", "open"),
        ("read = open", "open"),
        ("from pathlib import Path\nPath('x').read_text()", "pathlib"),
        ("import pathlib as p", "pathlib"),
        ("import os\nos.stat('x')", "os.stat"),
        ("import os as system\nsystem.rmdir('x')", "os.rmdir"),
        ("from os import rmdir", "os.rmdir"),
        ("import os\nos.path.exists('x')", "os.path.exists"),
        ("from os.path import getsize", "os.path.getsize"),
        ("import os.path\nos.path.isfile('x')", "os.path.isfile"),
        ("loop.run_in_executor(None, f)", "run_in_executor"),
        ("import asyncio\nasyncio.get_running_loop().run_in_executor(None, f)", "run_in_executor"),
        ("import asyncio\nasyncio.open_connection('h', 1)", "asyncio.open_connection"),
        ("from asyncio import to_thread", "asyncio.to_thread"),
        ("import time", "time"),
        ("def f():\n    import subprocess", "subprocess"),
        ("import io\nio.open('x')", "io.open"),
    ],
)
def test_what_goes_past_the_door_is_seen(text: str, what: str) -> None:
    """However it is written."""
    assert what in [found for found, _ in banned(ast.parse(text))]


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.path.join('a', 'b')\nos.environ.get('X')",
        "import asyncio\nasyncio.sleep(1)\nloop.create_connection(f, 'h', 1)",
        "from datetime import time",
        "storage.open_file('x')\nself.open()",
    ],
)
def test_what_is_no_way_past_the_door_is_let_be(text: str) -> None:
    """Names of paths, what is simulated, and others' methods of such names."""
    assert list(banned(ast.parse(text))) == []
