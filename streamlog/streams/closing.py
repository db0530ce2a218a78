"""Closing what was opened, whatever happens on the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

log = logging.getLogger(__name__)


async def quietly(app_id: str, work: Awaitable[Any], patience_s: float | None = None) -> None:
    """Await `work`, no longer than that. What it raises is logged: what stays open is worse than what was not said."""
    try:
        async with asyncio.timeout(patience_s):
            await work
    except Exception as error:
        log.warning("app=%s while stopping: %s", app_id, error)
