"""Work in a thread, waited for whatever happens: a thread cannot be cancelled, and the store under it stays busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from streamlog.env import Env

T = TypeVar("T")


def begin(env: Env, work: Callable[[], T]) -> asyncio.Future[T]:
    """Start `work` in a thread. The caller owns the future and has to await `finish` on it."""
    return asyncio.ensure_future(env.offload.run(work))  # noqa: TID251  # owned by the caller, see above


async def finish(future: asyncio.Future[T]) -> T:
    """The result. Cancelled meanwhile, it still waits until the thread is done, and then ends cancelled."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # looked at: nobody will ask for it
        raise cancelled
    return future.result()


async def in_thread(env: Env, work: Callable[[], T]) -> T:
    """`work` in a thread; when this returns or raises, the thread is done with it."""
    return await finish(begin(env, work))
