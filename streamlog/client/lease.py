"""Until when somebody may write what another one writes after him.

A member of a group that is frozen, or cut off, for longer than its session does not know that its partitions have gone
to others; what it writes when it goes on lies behind what they wrote. So whoever gives the right says until when it
surely holds, by our own clock, and a producer that has the lease looks at it right before bytes leave. It need not know
what the right is about, nor who gives it.

    held      until `until_ms`
    lapsed    that has passed and nobody has said more: what is to be sent waits
    lost      the right is certainly gone: what waits, and what comes now, is failed without being sent

A lease that was lost can be had again; what was taken before then is never sent under the new one.
"""

from __future__ import annotations

from collections.abc import Callable

from streamlog.env import Clock


class Lease:
    """See the module's essay. Lost until it is first given."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_ms: int | None = None  # monotonic, exclusive; None: lost
        self._listeners: dict[Callable[[], None], None] = {}

    @property
    def until_ms(self) -> int | None:
        return self._until_ms

    @property
    def held(self) -> bool:
        return self._until_ms is not None and self._clock.mono_ms() < self._until_ms

    @property
    def lost(self) -> bool:
        return self._until_ms is None

    def give(self, until_ms: int | None) -> None:
        """It holds until then, by the monotonic clock; None: not any more."""
        if until_ms != self._until_ms:
            self._until_ms = until_ms
            for listener in list(self._listeners):
                listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call back whenever the lease is given, prolonged or lost; not when it lapses."""
        self._listeners[listener] = None

    def forget(self, listener: Callable[[], None]) -> None:
        self._listeners.pop(listener, None)
