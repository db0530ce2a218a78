"""A run as a text: what `make sim` prints for a failing seed, and what a golden script in tests/scripts/sim/ is.

    # A comment says what the run once showed.
    seed 16
    set producers 2
    set topic.segment.ms 300
    1200 power broker for=500

Whatever is not set is as in `Setup`, not as the seed would draw it: a script means the same when the swarm changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from streamlog.testing.simulator.disk import Names
from streamlog.testing.simulator.nemesis import Fault
from streamlog.testing.simulator.network import NetworkKnobs
from streamlog.testing.simulator.setup import Setup

MAPPINGS: Final = ("broker", "topic")


def render(setup: Setup) -> str:
    """The setup as a script, without a comment."""
    lines = [f"seed {setup.seed}"]
    default = Setup(setup.seed)
    for field in fields(Setup):
        value, usual = getattr(setup, field.name), getattr(default, field.name)
        if field.name in ("seed", "faults"):
            continue
        if isinstance(value, Mapping):
            lines += [f"set {field.name}.{name} {text}" for name, text in value.items()]
        elif isinstance(value, NetworkKnobs):
            lines += [f"set network.{knob.name} {getattr(value, knob.name)}" for knob in fields(NetworkKnobs)]
        elif value != usual:
            lines.append(f"set {field.name} {value.value if isinstance(value, Names) else value}")
    return "\n".join([*lines, *map(str, setup.faults), ""])


def parse(text: str) -> Setup:
    """The inverse of `render`. Raises ValueError naming the line."""
    setup = Setup(0)
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        try:
            word, _, rest = line.partition(" ")
            if word == "seed":
                setup = replace(setup, seed=int(rest))
            elif word == "set":
                setup = _set(setup, *rest.split(" ", 1))
            else:
                setup = replace(setup, faults=(*setup.faults, Fault.parse(line)))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"'{line}': {error}") from error
    return setup


def _set(setup: Setup, name: str, text: str) -> Setup:
    group, dot, inner = name.partition(".")
    change: dict[str, Any]
    if group in MAPPINGS and dot:
        change = {group: {**getattr(setup, group), inner: text}}
    elif group == "network" and dot:
        getattr(setup.network, inner)
        change = {group: replace(setup.network, **{inner: int(text)})}
    else:
        usual = getattr(setup, name)
        value: object = text
        if isinstance(usual, bool):
            value = text == "True"
        elif isinstance(usual, int):
            value = int(text)
        elif isinstance(usual, Names):
            value = Names(text)
        change = {name: value}
    return replace(setup, **change)
