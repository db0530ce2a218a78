"""What one run of the command was told: which app, which brokers, which data directory, and how to reach them."""

from __future__ import annotations

import asyncio
import logging
import os
import tomllib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from streamlog.embedded import EmbeddedLog, exists
from streamlog.env import Env
from streamlog.errors import UserError

WAITING: Final = ("streamlog.client.cluster", "streamlog.client.refusals", "streamlog.client.silence")
"""Who logs that no broker is reached, or answers, or takes what we write: a person who waits should know what for."""

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

DATA_DIR_DEFAULT: Final = "./streamlog-data"

TIMEOUT_MS: Final = 10_000
"""How long a command waits for brokers: a person watches."""


@dataclass(slots=True)
class Invocation:
    """The options of `streamlog` itself. Subcommands take some of them as well, and theirs go first."""

    app: str | None = None
    broker: str | None = None
    data_dir: str | None = None
    debug: bool = False

    def names_app(self) -> bool:
        return (self.app or _app_of_project()) is not None

    def app_target(self) -> str:
        """module or module:app. Raises UserError when none is named."""
        target = self.app or _app_of_project()
        if target is None:
            raise UserError(
                "which app? Name it with -A (streamlog -A module:app ...), or in pyproject.toml:\n"
                '  [tool.streamlog]\n  app = "module:app"'
            )
        return target

    def broker_named(self) -> str | None:
        """The brokers that the command line or the environment names, as host:port,host:port."""
        return self.broker or os.environ.get("STREAMLOG_BROKER") or None

    def data_directory(self, app_default: str | None = None) -> str:
        return self.data_dir or app_default or os.environ.get("STREAMLOG_DATA_DIR") or DATA_DIR_DEFAULT

    @asynccontextmanager
    async def brokers(self, env: Env) -> AsyncIterator[str]:
        """Addresses of brokers to talk to, while the block lasts: those that were named, or the embedded log's."""
        named = self.broker_named()
        if named is not None:
            yield named
            return
        data_dir = self.data_directory()
        if not exists(env, data_dir):
            raise UserError(
                f"which broker? Name it with --broker HOST:PORT or STREAMLOG_BROKER. ({data_dir} has no embedded log "
                "either: a worker makes one)"
            )
        async with EmbeddedLog(env, data_dir) as embedded:
            yield embedded.address


def _app_of_project() -> str | None:
    """`app` of [tool.streamlog] in the pyproject.toml of this directory or the nearest one above."""
    directory = os.getcwd()
    while True:
        path = os.path.join(directory, "pyproject.toml")
        if os.path.isfile(path):
            try:
                with open(path, "rb") as file:
                    found = tomllib.load(file).get("tool", {}).get("streamlog", {}).get("app")
            except (OSError, tomllib.TOMLDecodeError) as error:
                raise UserError(f"{path} cannot be read: {error}") from error
            if found is not None and not isinstance(found, str):
                raise UserError(f'{path}: [tool.streamlog] app has to be text, such as app = "module:app"')
            return found
        above = os.path.dirname(directory)
        if above == directory:
            return None
        directory = above


def broker_option(function: F) -> F:
    """--broker and --data-dir after the subcommand's name, where most people write them."""

    def store(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            setattr(ctx.ensure_object(Invocation), str(parameter.name), value)

    broker = click.option(
        "--broker", metavar="HOST:PORT,...", expose_value=False, callback=store, help="The brokers. [STREAMLOG_BROKER]"
    )
    data_dir = click.option(
        "--data-dir",
        metavar="DIR",
        expose_value=False,
        callback=store,
        help="Whose embedded log to use without --broker. [STREAMLOG_DATA_DIR; ./streamlog-data]",
    )
    return broker(data_dir(function))


def app_option(function: F) -> F:
    """-A after the subcommand's name."""

    def store(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.ensure_object(Invocation).app = value

    return click.option("-A", "--app", metavar="MODULE[:APP]", expose_value=False, callback=store, help="The app.")(
        function
    )


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def run(work: Coroutine[Any, Any, T], *, loglevel: int = logging.ERROR) -> T:
    """Run a command's coroutine to its end. uvloop where it is installed."""
    if not logging.getLogger().handlers:
        logging.basicConfig(level=loglevel, format="streamlog: %(message)s")
        for name in WAITING:
            logging.getLogger(name).setLevel(logging.WARNING)
    return runner()(work)


def runner() -> Callable[[Coroutine[Any, Any, T]], T]:
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run
