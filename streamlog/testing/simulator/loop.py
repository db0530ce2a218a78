"""An event loop without a machine: integer time that moves only when nobody has anything to do, and seeded turns.

Each incarnation of a node has a queue of its own, in order, as its own event loop would have; which node comes next is
the policy's choice. Within a node nothing is shuffled: asyncio promises order there, and programs rely on it. A
callback costs its node some time, and a node that is busy or paused falls behind while the others go on.

Time is an integer of nanoseconds. Timers of the same instant fire in the order they were made. Nodes see it through
clocks of their own, so `loop.time()` and `call_at` depend on who asks.

Sockets are `network.py`'s; threads, subprocesses and the resolver are refused, because nothing could replay them.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import Handle, TimerHandle
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from typing import Any, NoReturn, Protocol, TypeAlias, TypeVar, TypeVarTuple, Unpack

from streamlog.testing.simulator.owner import OWNER, WORLD, MonotonicClock, NodeDead, Owner
from streamlog.testing.simulator.policy import InTurn, Policy
from streamlog.testing.simulator.trace import Trace

ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
AnyContext: TypeAlias = Context | None

STEPS_MAX = 5_000_000
"""A run of a minute has some ten thousand callbacks. Somebody spins when there are so many."""

FOREVER_NS = 1 << 62

TASKS_TRACKED_MIN = 64
"""Finished tasks of a node are forgotten when it has this many, and then whenever their number has doubled."""


class Deadlock(Exception):
    """Nobody can run, no timer is set, and the run is not over."""


class Runaway(Exception):
    """So many callbacks that the run will not end."""


class Sockets(Protocol):
    """The network as the loop needs it."""

    async def connect(
        self, loop: SimLoop, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]: ...

    def listen(
        self, loop: SimLoop, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> asyncio.Server: ...


class SimLoop(asyncio.BaseEventLoop):
    """See the module's essay. `network` and `policy` may be replaced at any time."""

    _stopping: bool  # asyncio's: `stop` was called

    def __init__(self, policy: Policy | None = None, trace: Trace | None = None) -> None:
        super().__init__()
        self.now_ns = 0
        self.policy: Policy = policy or InTurn()
        self.trace = trace or Trace()
        self.world = Owner("world", 0, MonotonicClock())
        self.current = self.world
        """Whose callback runs right now."""
        self.network: Sockets | None = None
        self.on_error: Callable[[Owner, dict[str, Any]], None] | None = None
        """Told what asyncio would only log: exceptions of callbacks and of tasks that nobody awaits."""
        self.steps_max = STEPS_MAX
        self.on_check: Callable[[], None] | None = None
        """Called between callbacks, every `check_every` of them. What it raises ends the run."""
        self.check_every = 1
        self.graveyard: list[object] = []
        """What dead incarnations were doing. Kept: collecting it would run their `finally` blocks."""
        self._owners: list[Owner] = [self.world]
        self._owner_count = 0
        self._signals: dict[tuple[int, int], Callable[[], object]] = {}
        self._timers: list[tuple[int, int, TimerHandle]] = []
        self._timer_count = 0
        self._tasks: dict[int, list[asyncio.Task[Any]]] = {}
        self._task_limits: dict[int, int] = {}
        self.set_task_factory(self._make_task)

    # -- owners -----------------------------------------------------------------------------------------------

    def add_owner(self, name: str, clock: MonotonicClock, cost_ns: int) -> Owner:
        """A new incarnation. `start` gives it something to do."""
        self._owner_count += 1
        owner = Owner(name, self._owner_count, clock, cost_ns)
        self._tasks[owner.number] = []
        self._owners.append(owner)
        return owner

    def start(self, owner: Owner, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` as a task that belongs to `owner`, and so does all that it starts."""
        context = owner.context.copy()
        return self.create_task(work, name=name, context=context)

    def bury(self, owner: Owner) -> None:
        """The incarnation is dead: nothing of it ever runs again, not even to clean up."""
        owner.alive = False
        self.graveyard.append(list(owner.ready))
        self.graveyard.append(self._tasks.pop(owner.number))
        self._task_limits.pop(owner.number, None)
        owner.ready.clear()
        self._owners.remove(owner)

    def charge(self, owner: Owner, cost_ns: int) -> None:
        """`owner` is busy for so much longer (a blocking call, a computation)."""
        owner.free_at_ns = max(owner.free_at_ns, self.now_ns) + cost_ns

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Generator[Any, None, T] | Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(work, loop=loop, **options)
        context: Context | None = options.get("context")
        owner = OWNER.get() if context is None else context.get(OWNER)
        if owner is not None and owner.alive:
            tasks = self._tasks[owner.number]
            tasks.append(task)
            if len(tasks) > self._task_limits.get(owner.number, TASKS_TRACKED_MIN):
                tasks[:] = [one for one in tasks if not one.done()]
                self._task_limits[owner.number] = max(2 * len(tasks), TASKS_TRACKED_MIN)
        return task

    # -- callbacks --------------------------------------------------------------------------------------------

    def time(self) -> float:
        return self.current.clock.read(self.now_ns) / 1e9

    def call_soon(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: AnyContext = None) -> Handle:
        if context is None:
            context = copy_context()
        handle = Handle(callback, args, self, context)
        owner = context.get(OWNER) or self.world
        if owner.alive:
            owner.ready.append(handle)
        else:
            self.graveyard.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: AnyContext = None
    ) -> Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: AnyContext = None
    ) -> TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: AnyContext = None
    ) -> TimerHandle:
        if context is None:
            context = copy_context()
        owner = context.get(OWNER) or self.world
        when_ns = owner.clock.when(int(when * 1e9 + 0.5))
        return self._set_timer(when_ns, TimerHandle(when, callback, args, self, context))

    def as_owner(self, owner: Owner, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
        """Call back in a turn of `owner`'s."""
        self.call_soon(callback, *args, context=owner.context)

    def at_ns(self, when_ns: int, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> TimerHandle:
        """Call back at a true time, as the world."""
        handle = TimerHandle(when_ns / 1e9, callback, args, self, WORLD)
        return self._set_timer(when_ns, handle)

    def _set_timer(self, when_ns: int, handle: TimerHandle) -> TimerHandle:
        self._timer_count += 1
        heapq.heappush(self._timers, (max(when_ns, self.now_ns), self._timer_count, handle))
        return handle

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        """Called by the handle. It stays in the heap until its time."""

    # -- turns ------------------------------------------------------------------------------------------------

    def _run_once(self) -> None:
        """Run callbacks, and move the time, until somebody stops the loop. BaseEventLoop.run_forever calls this.

        Half of what the simulator itself costs is spent here: one pass over the owners finds who may run, and when
        the next one may.
        """
        timers, owners, world_ready = self._timers, self._owners, self.world.ready
        while not self._stopping:
            now_ns = self.now_ns
            while timers and timers[0][0] <= now_ns:
                self._enqueue(heapq.heappop(timers)[2])
            if world_ready:
                self._run(self.world)
                continue
            runnable: list[Owner] = []
            next_ns = FOREVER_NS
            for owner in owners:
                if owner.ready and not owner.paused:
                    if owner.free_at_ns <= now_ns:
                        runnable.append(owner)
                    elif owner.free_at_ns < next_ns:
                        next_ns = owner.free_at_ns
            if runnable:
                self._run(runnable[0] if len(runnable) == 1 else self.policy.choose(runnable))
            else:
                self._move_time(next_ns)

    def _enqueue(self, timer: TimerHandle) -> None:
        if timer._cancelled:
            return
        owner = _context_of(timer).get(OWNER) or self.world
        if owner.alive:
            owner.ready.append(timer)
        else:
            self.graveyard.append(timer)

    def _run(self, owner: Owner) -> None:
        handle = owner.ready.popleft()
        if handle._cancelled:
            return
        trace = self.trace
        trace.step(self.now_ns, owner.number)
        if trace.step_count > self.steps_max:
            raise Runaway(f"{self.steps_max} callbacks and no end at {self.now_ns / 1e9:g} s")
        self.current = owner
        owner.turns += 1
        handle._run()
        self.current = self.world
        if owner.cost_ns:
            owner.free_at_ns = max(owner.free_at_ns, self.now_ns) + owner.cost_ns
        if self.on_check is not None and trace.step_count % self.check_every == 0:
            self.on_check()

    def _move_time(self, next_ns: int) -> None:
        """To the next timer, or to `next_ns`, when an owner that has something to do has finished what it does."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if timers and timers[0][0] < next_ns:
            next_ns = timers[0][0]
        if next_ns == FOREVER_NS:
            raise Deadlock("nobody can run and no timer is set")
        assert next_ns > self.now_ns, "whoever may run now was looked for already"
        self.now_ns = next_ns

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, NodeDead) or not self.current.alive:
            return
        if self.on_error is not None:
            self.on_error(self.current, context)
        else:
            super().call_exception_handler(context)

    # -- doors ------------------------------------------------------------------------------------------------

    async def create_connection(
        self,
        protocol_factory: Callable[[], ProtocolT],
        host: str | None = None,
        port: int | None = None,
        **options: Any,
    ) -> tuple[asyncio.Transport, ProtocolT]:
        assert self.network is not None, "this loop has no network"
        if options.get("ssl"):
            raise NotImplementedError("TLS is not simulated")
        transport, protocol = await self.network.connect(self, protocol_factory, host or "", port or 0)
        return transport, protocol  # type: ignore[return-value]  # it is what the factory made

    async def create_server(  # type: ignore[override]  # the arguments that somebody uses
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        **options: Any,
    ) -> asyncio.Server:
        assert self.network is not None, "this loop has no network"
        return self.network.listen(self, protocol_factory, host or "", port or 0)

    def add_signal_handler(self, sig: int, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
        """Nodes have signals of their own: see `signal`."""
        self._signals[self.current.number, sig] = partial(callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        return self._signals.pop((self.current.number, sig), None) is not None

    def signal(self, owner: Owner, sig: int) -> bool:
        """Send a signal to a node. Whether it has a handler for it."""
        handler = self._signals.get((owner.number, sig))
        if handler is None:
            return False
        self.as_owner(owner, handler)
        return True

    def run_in_executor(self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> NoReturn:
        raise RuntimeError("threads cannot be replayed: use env.Offload")

    async def getaddrinfo(self, *args: Any, **options: Any) -> NoReturn:
        raise RuntimeError("names are resolved by the simulated network")

    def run(self, work: Awaitable[T]) -> T:
        """Run `work`, as the world, to its end."""
        return self.run_until_complete(work)


def _context_of(handle: Handle) -> Context:
    context: Context = handle._context  # type: ignore[attr-defined]  # typeshed leaves it out
    return context
