"""From declarations to what runs: cutting streams at their repartition topics, and finding out who uses which table.

`group_by` and `through` cut a stream in two: a lane that sends every event on to a topic, and what reads that topic.
The cut has to be known before the worker starts, because the topic must exist and the group must subscribe to it. For
`@app.agent(flights.stream().group_by(...))` it is plain to see. For a `group_by` inside the body it is found by a
rehearsal: the body is stepped once with a stream that ends the rehearsal as soon as it is iterated, and the coroutine
is closed. Only bodies whose code mentions group_by or through are rehearsed, so that no other body runs at declaration.
"""

from __future__ import annotations

import dis
import types
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from streamlog.errors import UserError
from streamlog.streams.policies import text_of
from streamlog.streams.stream import Filter, Form, GroupBy, Lookup, Map, Root, Step, Stream, Through
from streamlog.streams.topic import Topic

SCAN_DEPTH_MAX = 4
"""How many calls deep the search for tables follows a body's helper functions. What it misses, the check of each new
key catches when the agent runs."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a lane passes its events on to."""

    topic: Topic[Any, Any]
    select_key: Callable[[Any], Any] | None
    """The new key, or None to keep the key."""
    unchanged: bool
    """Whether values pass as they came, so that their bytes can be reused."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of a stream between two topics."""

    topics: tuple[Topic[Any, Any], ...]
    steps: tuple[Step, ...]
    """Filter, Map and Lookup only."""
    target: Target | None
    """None for the last stage, which the agent's body reads."""


class _Iterated(BaseException):
    """Ends a rehearsal. A BaseException, so that a body's `except Exception` does not swallow it."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.steps = steps


@dataclass(frozen=True, slots=True)
class _Rehearsal(Root):
    def iterate(self, steps: tuple[Step, ...], form: Form) -> AsyncGenerator[Any, None]:
        raise _Iterated(steps)


def rehearse(function: Callable[[Stream[Any, Any]], Any], name: str) -> tuple[Step, ...]:
    """The steps that an agent's body puts before it iterates; () when its code mentions no repartitioning.

    Raises: UserError: the body awaits something or fails before it iterates.
    """
    if not mentions(function, {"group_by", "through"}):
        return ()
    advice = (
        f"agent {name}: its group_by has to be known before the worker starts. Move it out of the body, as in "
        f"@app.agent(topic.stream().group_by(...))"
    )
    try:
        running = function(Stream(_Rehearsal()))
    except _Iterated as end:
        return end.steps
    step = running.__anext__() if isinstance(running, AsyncGenerator) else running
    try:
        step.send(None)
    except _Iterated as end:
        return end.steps
    except (StopIteration, StopAsyncIteration):
        raise UserError(f"{advice} (the body ended without iterating over its stream)") from None
    except Exception as error:
        raise UserError(
            f"{advice} (run up to its loop, the body raised {type(error).__name__}: {text_of(error)})"
        ) from error
    finally:
        step.close()
    raise UserError(f"{advice} (the body awaits something before its loop)")


def cut(
    topics: tuple[Topic[Any, Any], ...],
    steps: tuple[Step, ...],
    repartition: Callable[[GroupBy, Any], Topic[Any, Any]],
    what: str,
) -> list[Stage]:
    """The stages of a stream. `repartition` makes the topic of a group_by, given the type of the values it carries.

    Raises: UserError: the type of what a topic has to carry is unknown.
    """
    stages: list[Stage] = []
    kept: list[Step] = []
    value_type: Any = topics[0].value_serde.type
    for step in steps:
        if isinstance(step, Filter):
            kept.append(step)
            continue
        if isinstance(step, Map):
            kept.append(step)
            value_type = step.value_type
            continue
        if isinstance(step, Lookup):
            kept.append(step)
            value_type = _joined_type(value_type, step)
            continue
        if value_type is None and isinstance(step, GroupBy):
            raise UserError(
                f"{what}: group_by({step.name}) follows a map() whose result type is unknown. Say it: map(function, "
                f"value=Type)"
            )
        unchanged = all(isinstance(one, Filter) for one in kept) and len(topics) == 1
        if isinstance(step, GroupBy):
            _check_owner(step, value_type, what)
            target = Target(repartition(step, value_type), step.by.select, unchanged and topics[0].format == "json")
        else:
            assert isinstance(step.topic, Topic), "through() takes topics of an app"
            same = unchanged and step.topic.same_as(topics[0])
            target = Target(step.topic, None, same)
            value_type = step.topic.value_serde.type
        stages.append(Stage(topics, tuple(kept), target))
        topics, kept = (target.topic,), []
    stages.append(Stage(topics, tuple(kept), None))
    return stages


def markers(steps: tuple[Step, ...]) -> tuple[str, ...]:
    """The repartitionings among the steps, in order: what a rehearsal and the real run have to agree on."""
    return tuple(
        f"group_by {step.name}" if isinstance(step, GroupBy) else f"through {step.topic.name}"
        for step in steps
        if isinstance(step, GroupBy | Through)
    )


def after_last_cut(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps that the body's own lane performs."""
    last = max((index for index, step in enumerate(steps) if isinstance(step, GroupBy | Through)), default=-1)
    return steps[last + 1 :]


def describe(step: Step) -> str:
    """For listings: `filter(is_late)`."""
    match step:
        case Filter(keep):
            return f"filter({_name_of(keep)})"
        case Map(transform):
            return f"map({_name_of(transform)})"
        case Lookup(table, on, keep_unmatched):
            word = "left_join" if keep_unmatched else "join"
            return f"{word}({table.name}{'' if on is None else f', on={on.name}'})"
        case GroupBy():
            return f"group_by({step.name})"
        case Through(topic):
            return f"through({topic.name})"


def mentions(function: Callable[..., Any], names: set[str]) -> bool:
    """Whether the code of `function`, or of a function inside it, uses one of the names."""
    code = _code_of(function)
    return code is not None and any(not names.isdisjoint(one.co_names) for one in _nested(code))


def objects_used(function: Callable[..., Any], depth: int = SCAN_DEPTH_MAX) -> Iterator[object]:
    """Module-level and enclosed objects that the code names, also through modules and through helper functions."""
    yield from _objects(function, depth, set())


def _objects(function: Callable[..., Any], depth: int, seen: set[types.CodeType]) -> Iterator[object]:
    code = _code_of(function)
    if code is None or code in seen:
        return
    seen.add(code)
    plain: Any = _unwrapped(function)
    names = sorted({name for one in _nested(code) for name in one.co_names})
    found = [plain.__globals__[name] for name in names if name in plain.__globals__]
    for cell in plain.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:
            continue  # a name that is assigned later
    for thing in found:
        yield thing
        if isinstance(thing, types.ModuleType):
            yield from (vars(thing)[name] for name in names if name in vars(thing))
        elif isinstance(thing, types.FunctionType) and depth > 0:
            yield from _objects(thing, depth - 1, seen)


def objects_called(
    function: Callable[..., Any], methods: frozenset[str], depth: int = SCAN_DEPTH_MAX
) -> Iterator[object]:
    """Module-level and enclosed objects one of whose `methods` the code names, as in `topic.send(...)`; also through
    modules and through helper functions. Exact where `objects_used` is generous, and blind to what is passed around."""
    yield from _called(function, methods, depth, set())


def _called(
    function: Callable[..., Any], methods: frozenset[str], depth: int, seen: set[types.CodeType]
) -> Iterator[object]:
    code = _code_of(function)
    if code is None or code in seen:
        return
    seen.add(code)
    plain: Any = _unwrapped(function)
    enclosed = {}
    for name, cell in zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True):
        with suppress(ValueError):  # a name that is assigned later
            enclosed[name] = cell.cell_contents
    for one in _nested(code):
        thing: object = None  # what the last instruction put on the stack, if that is known
        for instruction in dis.get_instructions(one):
            match instruction.opname:
                case "LOAD_GLOBAL":
                    thing = plain.__globals__.get(instruction.argval)
                case "LOAD_DEREF":
                    thing = enclosed.get(instruction.argval)
                case "LOAD_ATTR" | "LOAD_METHOD":
                    if thing is not None and instruction.argval in methods:
                        yield thing
                    is_module = isinstance(thing, types.ModuleType)
                    thing = vars(thing).get(instruction.argval) if is_module else None
                case "EXTENDED_ARG" | "CACHE" | "PUSH_NULL":
                    pass
                case _:
                    thing = None
            if isinstance(thing, types.FunctionType) and depth > 0:
                yield from _called(thing, methods, depth - 1, seen)


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    while True:
        inner = getattr(function, "__wrapped__", None) or getattr(function, "__func__", None)
        if inner is None:
            return function
        function = inner


def _code_of(function: Callable[..., Any]) -> types.CodeType | None:
    code = getattr(_unwrapped(function), "__code__", None)
    return code if isinstance(code, types.CodeType) else None


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _joined_type(value_type: Any, step: Lookup) -> Any:
    row_type = getattr(step.table, "value_type", None)
    if value_type is None or row_type is None:
        return None
    return types.GenericAlias(tuple, (value_type, row_type | None if step.keep_unmatched else row_type))


def _check_owner(step: GroupBy, value_type: Any, what: str) -> None:
    owner = step.by.owner
    if owner is not None and isinstance(value_type, type) and not issubclass(value_type, owner):
        raise UserError(
            f"{what}: group_by({owner.__name__}.{step.by.name}) names a field of {owner.__name__}, and the stream's "
            f"values are "
            f"{value_type.__name__}"
        )


def _name_of(function: Callable[..., Any]) -> str:
    name: str = getattr(function, "__name__", type(function).__name__)
    return "lambda" if name == "<lambda>" else name
