"""A memory oracle for tests."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def peak_bytes(work: Callable[[], T]) -> tuple[T, int]:
    """What `work` returns, and the most memory that it held at any time."""
    tracemalloc.start()
    try:
        result = work()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
