"""Opening and closing stores beside the event loop: what is locked is waited for, what is damaged is set aside."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from streamlog.env import Env
from streamlog.errors import UserError
from streamlog.state.store import Store, StoreCorrupt, StoreEngine, StoreLocked
from streamlog.state.threads import begin, finish, in_thread

logger = logging.getLogger(__name__)

LOCK_WAIT_MS = 10_000
"""How long to wait for another handle to let go of a store. A task that moves between workers of one process is closed
by one while the other opens it, and closing flushes; longer than this it is not being closed, it is in use."""

LOCK_POLL_MS = 50


async def open_store(engine: StoreEngine, env: Env, path: str, *, lock_wait_ms: int = LOCK_WAIT_MS) -> Store:
    """Open the store at `path`, in a thread.

    A damaged store is renamed to `<path>.corrupt-<n>` and an empty one takes its place, to be restored from changelogs.
    Cancelled, it leaves the store closed.

    Raises: UserError: it is still in use elsewhere after `lock_wait_ms`; or a newer release wrote it.
    """
    deadline_ms = env.clock.mono_ms() + lock_wait_ms
    while True:
        try:
            return await _open(engine, env, path)
        except StoreLocked as error:
            if env.clock.mono_ms() >= deadline_ms:
                raise UserError(
                    f"the state directory {path} is in use: {error}. Another worker runs with the same data directory "
                    "and slot; stop it, or give this one another data directory"
                ) from error
        except StoreCorrupt as error:
            target = await env.offload.run(partial(engine.quarantine, path))
            logger.warning("store=%s state=corrupt moved_to=%s reason=%s", path, target, error)
        await asyncio.sleep(LOCK_POLL_MS / 1000)


async def _open(engine: StoreEngine, env: Env, path: str) -> Store:
    opening = begin(env, partial(engine.open, path))
    try:
        return await finish(opening)
    except asyncio.CancelledError:
        # The thread went on; what it opened would stay locked, with nobody to close it.
        if not opening.cancelled() and opening.exception() is None:
            await in_thread(env, opening.result().close)
        raise


async def close_stores(env: Env, stores: Sequence[Store]) -> None:
    """Close all of them at once, in threads. The first error is raised when all are closed."""
    results = await asyncio.gather(*(in_thread(env, store.close) for store in stores), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
