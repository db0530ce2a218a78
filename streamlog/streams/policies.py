"""What happens to an event whose processing failed: an argument of the agent, `on_error=`.

Whatever is chosen, the offset of the event is held until the policy has dealt with it.
"""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass
from typing import Literal, TypeAlias

from streamlog.env import cancel_requests
from streamlog.errors import UserError
from streamlog.streams.stream import AnyTopic

RETRY_BACKOFF_S_MAX = 30.0
"""Longest pause between two attempts: long enough to be gentle with a service that is down, short enough that its
return is noticed within half a minute."""


TEXT_CHARS_MAX = 2_000
"""Of what an exception says: it goes into a header of a dead letter, a line of the log, the status. Some quote all of
their input, which may be megabytes."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop this partition; its offset stays. The other partitions go on, and `health` shows what happened."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Log the event's place and go on with the next."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Send the record unchanged to `topic`, with headers that say what happened and where, and go on."""

    topic: AnyTopic


@dataclass(frozen=True, slots=True)
class Retry:
    """Try the same event again after a pause that doubles. After `attempts` failures, `then`."""

    attempts: int | None = None
    """How often to try in all; None for as long as it takes."""
    backoff: float = 0.1
    """Seconds before the second attempt."""
    then: Stop | Skip | DeadLetter = Stop()

    def pause_s(self, failures: int) -> float:
        """How long to wait after so many failures (at least 1) of one event."""
        return float(min(self.backoff * 2 ** min(failures - 1, 30), RETRY_BACKOFF_S_MAX))


Policy: TypeAlias = Stop | Skip | Retry | DeadLetter
OnError: TypeAlias = Policy | Literal["stop", "skip", "retry"]

_WORDS: dict[str, Policy] = {"stop": Stop(), "skip": Skip(), "retry": Retry()}


def policy_of(on_error: OnError, what: str) -> Policy:
    """The policy that `on_error=` names. Raises UserError for anything else."""
    policy = _WORDS.get(on_error) if isinstance(on_error, str) else on_error
    if not isinstance(policy, Stop | Skip | Retry | DeadLetter):
        raise UserError(
            f"{what}: on_error={on_error!r} is unknown; use 'stop', 'skip', 'retry', Retry(...) or DeadLetter(topic)"
        )
    return policy


def is_cancelled() -> bool:
    """Whether the running task was told to end. A CancelledError without that came out of something that a user's
    function awaited, a task of a library for example, and is a failure like any other."""
    return cancel_requests() > 0


def text_of(error: BaseException) -> str:
    """What an exception says, whatever its class does about that, as text that can be encoded, and not endless."""
    try:
        text = str(error)
    except Exception as failure:
        return f"(its text cannot be made: {type(failure).__name__})"
    if not text and isinstance(error, asyncio.CancelledError):
        return "something that was awaited was cancelled"
    if len(text) > TEXT_CHARS_MAX:
        text = f"{text[:TEXT_CHARS_MAX]}... ({len(text)} characters)"
    return text.encode(errors="backslashreplace").decode()


def blame(error: BaseException) -> str:
    """`KeyError: 'x' at flights.py:12`: the innermost line outside streamlog, which is where to look first."""
    text = text_of(error)
    summary = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not _is_ours(frame.filename)]
    if not outside:
        return summary
    return f"{summary} at {outside[-1].filename}:{outside[-1].lineno}"


_PACKAGE = __file__.rpartition("/streams/")[0]


def _is_ours(filename: str) -> bool:
    return filename.startswith((_PACKAGE, "<"))
