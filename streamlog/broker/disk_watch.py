"""Tells the operator when the disk begins to refuse writes, and when it takes them again.

Each refused request is answered to its client (KAFKA_STORAGE_ERROR); the log gets one line at either end, because a
full disk refuses thousands of them a second. A disk that is almost full takes a small batch between two large ones
it refuses, so the end is only called when a write has succeeded and none was refused for a while.
"""

from __future__ import annotations

import errno
import logging
from typing import Final

from streamlog.env import Clock

log = logging.getLogger(__name__)

QUIET_MS: Final = 2_000
"""Without a refusal for this long, and with a write that succeeded, the trouble is over."""


_REMEDIES: Final = {
    errno.ENOSPC: "The disk is full. What was acknowledged is still there; free some space",
    errno.EDQUOT: "The disk quota is used up. What was acknowledged is still there; free some space",
    errno.EFBIG: "A file may not grow beyond a limit of this user. Raise the limit (ulimit -f)",
    errno.EROFS: "The file system is read-only. Mount it so that it can be written",
    errno.EACCES: "Access is denied. Give this user the right to read and write there",
    errno.EPERM: "Access is denied. Give this user the right to read and write there",
    errno.EMFILE: "Too many files are open. Raise the limit (ulimit -n)",
    errno.EIO: "The disk fails. Look at the kernel's messages, repair or replace it",
}


def tell_disk_failure(error: BaseException, data_dir: str) -> str:
    """What an operator reads when `error` keeps a node on `data_dir` from starting or going on: where, why, what to do.

    The text of an error that has nothing to do with the operating system is left as it is.
    """
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno in _REMEDIES):
        cause = cause.__cause__
    if not isinstance(cause, OSError):
        return str(error)
    where = cause.filename if isinstance(cause.filename, str) else data_dir
    return f"{where} cannot be written: {cause.strerror}. {_REMEDIES[cause.errno or 0]}, then start again."


def is_for_want_of_room(error: BaseException) -> bool:
    """Whether this failed for what somebody frees again, files and space: worth another try, as nothing is damaged."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)


class DiskWatch:
    """All partitions of a broker share one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.is_refusing = False
        """Whether to report writes that succeed, too."""
        self._refused_count = 0  # since it began
        self._began_at_ms = self._refused_at_ms = 0  # monotonic; the first and the latest refusal
        self._has_accepted = False  # a write has succeeded since the latest refusal

    def refused(self, partition: str, reason: str) -> None:
        """The disk did not take an append to `partition`, which goes on serving reads."""
        now_ms = self._clock.mono_ms()
        if not self.is_refusing:
            self.is_refusing, self._began_at_ms, self._refused_count = True, now_ms, 0
            log.error(
                "partition=%s state=refusing-writes reason=%s (further ones are not listed; reads go on, and writes "
                "as soon as the disk takes them: no restart is needed)",
                partition,
                reason,
            )
        self._refused_count += 1
        self._refused_at_ms, self._has_accepted = now_ms, False

    def accepted(self) -> None:
        """An append succeeded; to be told while `is_refusing`."""
        self._has_accepted = True

    def tick(self) -> None:
        """Look whether it is over. To be called about once a second."""
        now_ms = self._clock.mono_ms()
        if self.is_refusing and self._has_accepted and now_ms - self._refused_at_ms >= QUIET_MS:
            self.is_refusing = False
            log.warning(
                "state=accepting-writes: the disk takes writes again after %d s, in which %d were refused",
                (self._refused_at_ms - self._began_at_ms + 999) // 1000,
                self._refused_count,
            )
