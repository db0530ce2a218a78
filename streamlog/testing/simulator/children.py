"""Runs in processes of their own: forked from one that has everything imported, and gone when they are done.

A run leaves nothing behind that another could notice, and what it cannot clean up (the coroutines of killed nodes) ends
with its process. A run that hangs is killed.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import pkgutil
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Final, get_args

import streamlog.broker
import streamlog.client
from streamlog.testing.simulator.run import run
from streamlog.testing.simulator.setup import Setup, Shape, draw
from streamlog.testing.simulator.stage import Outcome
from streamlog.wire.apis import API_TABLE
from streamlog.wire.message import Message

SECONDS_MAX: Final = 120.0
"""Of real time. A run takes well below a second."""

NO_END: Final = "no end after"
"""What is told of a run that took longer than it may."""

WARM_SEEDS: Final = 3


@dataclass(slots=True)
class _Child:
    setup: Setup
    pid: int
    pipe: int
    deadline: float
    data: bytearray


@cache
def warm_up() -> None:
    """Import, compile and run once what every child would for itself otherwise, for a third of its time.

    The interpreter makes code that has run often faster, and children inherit that. They inherit nothing that a run
    could notice: the runs of a campaign that are done twice are done by a process that was not warmed up.
    """
    for package in (streamlog.broker, streamlog.client):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for api in API_TABLE.values():
        _ = api.request, api.response  # declared when asked for
    for message in _messages(Message):
        for version in {message.min_version, message.max_version - 1, message.max_version}:
            if version >= message.min_version:
                _ = message.encoders[version], message.decoders[version]
    for seed, shape in product(range(WARM_SEEDS), get_args(Shape)):
        run(draw(seed, shape, "short"))


def _messages(base: type[Message]) -> Iterator[type[Message]]:
    for message in base.__subclasses__():
        yield message
        yield from _messages(message)


def run_all(
    setups: Iterable[Setup], jobs: int, perform: Callable[[Setup], Outcome] = run, seconds_max: float = SECONDS_MAX
) -> Generator[Outcome, None, None]:
    """Outcomes in the order in which they are there, `jobs` runs at a time."""
    pending = iter(setups)
    children: dict[int, _Child] = {}
    try:
        while True:
            while len(children) < jobs and (setup := next(pending, None)) is not None:
                child = _fork(setup, perform, seconds_max)
                children[child.pipe] = child
            if not children:
                return
            ready, _, _ = select.select(list(children), [], [], 1.0)
            for pipe in ready:
                part = os.read(pipe, 1 << 20)
                if part:
                    children[pipe].data += part
                else:
                    yield _reap(children.pop(pipe))
            for pipe, child in list(children.items()):
                if time.monotonic() > child.deadline:
                    os.kill(child.pid, signal.SIGKILL)
                    yield _reap(children.pop(pipe), f"{NO_END} {seconds_max:g} s of real time")
    finally:
        for child in children.values():
            os.kill(child.pid, signal.SIGKILL)
            _bury(child)


def run_one(setup: Setup, perform: Callable[[Setup], Outcome] = run, seconds_max: float = SECONDS_MAX) -> Outcome:
    return next(run_all([setup], 1, perform, seconds_max))


def _fork(setup: Setup, perform: Callable[[Setup], Outcome], seconds_max: float) -> _Child:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _work(setup, perform, writing)
    os.close(writing)
    return _Child(setup, pid, reading, time.monotonic() + seconds_max, bytearray())


def _work(setup: Setup, perform: Callable[[Setup], Outcome], pipe: int) -> None:
    """The child's life. Does not return: its `finally` blocks, and its parent's, are not to run."""
    try:
        gc.disable()
        outcome = perform(setup)
    except BaseException:
        outcome = Outcome(setup, [f"0 crash: {traceback.format_exc()}"])
    try:
        view = memoryview(pickle.dumps(outcome))
        while view:
            view = view[os.write(pipe, view) :]
        sys.stdout.flush()
    finally:
        os._exit(0)  # also when the parent is gone: what it cleans up is not ours


def _bury(child: _Child) -> int:
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    return status


def _reap(child: _Child, why: str = "") -> Outcome:
    status = _bury(child)
    if why or status or not child.data:
        return Outcome(child.setup, [f"0 crash: {why or f'the process ended with status {status}'}"])
    outcome = pickle.loads(child.data)
    assert isinstance(outcome, Outcome), "a child sends its outcome"
    return outcome
