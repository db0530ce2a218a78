"""What linters cannot see."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import streamlog

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "streamlog"

PUBLIC = [
    *["Agent", "App", "DeadLetter", "EnvironmentFailure", "Event", "GlobalTable", "Record", "Retry", "SetTable"],
    *["Skip", "Stop", "Stream", "StreamlogError", "Table", "Topic", "Topology", "UserError", "WindowSet"],
    *["WindowedTable", "connect", "connect_async"],
]

TASKS_WITHOUT_SCOPE = {
    "env.py",  # where Scope is
    "testing/simulator/loop.py",  # a loop makes tasks
    "broker/log/flusher.py",  # waits for the task whatever happens: a failed sync is told of once
    "testing/simulator/stage.py",  # waits for all of them, and simulations end with their loop
    "state/threads.py",  # awaits the task itself, and is not cancelled with its caller: a disk write cannot be
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(), str(path))


def calls(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names of called functions, as written, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


def tracked() -> list[Path]:
    """Files of the repository; all files of an unpacked archive."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]
    skipped = {".venv", "target", "build", "__pycache__"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not skipped & set(path.parts)]


def test_every_task_has_an_owner() -> None:
    """A bare create_task is collected while it runs, and its exception is seen by nobody."""
    found = [
        f"{name}:{line}"
        for name, tree in modules()
        if name not in TASKS_WITHOUT_SCOPE and not name.startswith("cli/")
        for called, line in calls(tree)
        if called.endswith(("create_task", "ensure_future")) and not called.startswith("group.")
    ]
    assert not found


def test_the_public_names_are_these() -> None:
    """A name that gets public by accident stays for years."""
    assert dir(streamlog) == PUBLIC
    for name in PUBLIC:
        assert getattr(streamlog, name).__doc__, f"{name} says nothing about itself"


def test_every_room_has_a_page() -> None:
    """docs/internals says what a room does, and how to change it."""
    pages = {page.stem for page in (ROOT / "docs" / "internals").glob("*.md")}
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    written = {"wire", "client", "broker", "state", "streams", "web", "cli"}
    assert written <= rooms
    assert written <= pages


def test_no_module_is_imported_by_nobody() -> None:
    """What nothing imports, and nothing names to import it later, is dead."""
    named: set[str] = set()
    for _, tree in modules():
        for node in ast.walk(tree):
            match node:
                case ast.Import():
                    named |= {part for alias in node.names for part in alias.name.split(".")}
                case ast.ImportFrom():
                    named |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
                case ast.Constant(value=str(text)):
                    named |= set(re.split(r"\W", text)) if len(text) < 100 else set()
    known = {
        *named,
        "__init__",
        "__main__",
        "consumer_protocol",
    }  # the last: tests read other clients' messages with it
    lonely = [name for name, _ in modules() if Path(name).stem not in known]
    assert not lonely


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    """Paths of one machine mean nothing on another."""
    places = re.compile(r"(?<![\w.])/(?:home|Users|work|root)/\w+")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        if path.suffix in {".py", ".md", ".toml", ".java", ".xml", ""} and path.name != "test_tidy.py"
        for match in places.finditer(path.read_text(errors="replace"))
    ]
    assert not found


def test_nothing_is_left_to_do_in_comments() -> None:
    """An open question has a date and a page; a marker in the code is found by nobody."""
    marker = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b(?!\")")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if path.suffix == ".py" and path.name != "test_tidy.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marker.search(line.partition("#")[2])
    ]
    assert not found


def test_what_zookeeper_did_is_shown_by_tests_that_exist() -> None:
    """The table of docs/internals/zookeeper.md is a claim; a renamed test would make it an empty one."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/internals/zookeeper.md").read_text())
    assert len(named) > 20
    lost = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or not re.search(rf"\b{name}\b", (ROOT / path).read_text())
    ]
    assert not lost
