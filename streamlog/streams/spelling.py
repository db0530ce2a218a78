"""Declarations called with what they do not take: an error with what to write instead.

Most who meet it come from Faust, whose `App` has the same words with other arguments. Python's own TypeError says what
is wrong; this says what is right. Type checkers and editors see the signatures as they are declared.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from streamlog.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

_NOT_HERE = "has no counterpart here: leave it out"
_CLEANUP = 'is configs={"cleanup.policy": "compact"} of a topic'
_ELSEWHERE = {
    "broker_commit_every": "is commit_events_max=",
    "broker_commit_interval": "is commit_interval_ms=",
    "compacting": _CLEANUP,
    "config": "is configs=",
    "datadir": "is data_dir=",
    "deleting": _CLEANUP,
    "help": "has no counterpart here: write a comment",
    "key_serializer": "follows from the type: key=str, key=bytes and so on",
    "key_type": "is key=",
    "pattern": "has no counterpart here: name each topic",
    "replicas": "is replication_factor= of the App",
    "retention": 'is configs={"retention.ms": "3600000"}',
    "store": _NOT_HERE,
    "topic_partitions": "is partitions=",
    "topic_replication_factor": "is replication_factor=",
    "value_serializer": 'is format= of a topic: "json", "msgpack", or "raw" for str, bytes and int',
    "value_type": "is value=",
    "web_port": "is --web HOST:PORT of `streamlog worker`",
}
"""What became of Faust's arguments."""


def spelled(shape: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Calls that do not fit the method's signature raise a UserError that shows `shape`: the call as it is written."""

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(method)

        @wraps(method)
        def declare(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                known = [name for name in kwargs if name in _ELSEWHERE and name not in signature.parameters]
                wrong = "; ".join(f"{name}= {_ELSEWHERE[name]}" for name in known) or str(error)
                called = f"{shape.partition('(')[0]}({', '.join(map(repr, args[1:]))})"  # without self
                raise UserError(f"{called}: {wrong}. Write {shape}") from None
            return method(*args, **kwargs)

        return declare

    return decorate
