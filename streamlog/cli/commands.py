"""An app's own commands: functions under `@app.command()`, run as `streamlog -A module:app NAME`.

They may be async, and then may send to topics and ask agents: a program of the app without tasks stands behind them.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from streamlog.cli.apps import load_app
from streamlog.cli.invocation import Invocation, run
from streamlog.cli.sender import sending
from streamlog.env import cancel_requests
from streamlog.streams.app import App


def commands_of_app(invocation: Invocation) -> list[tuple[str, click.Command]]:
    app = load_app(invocation.app_target(), debug=invocation.debug)
    return sorted(app.commands.items())


def command_of_app(invocation: Invocation, name: str) -> click.Command | None:
    app = load_app(invocation.app_target(), debug=invocation.debug)
    command = app.commands.get(name)
    if command is not None and command.callback is not None and inspect.iscoroutinefunction(command.callback):
        command.callback = _blocking(app, invocation, command.callback)
    return command


def _blocking(app: App, invocation: Invocation, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        async def work() -> Any:
            requests = cancel_requests()
            try:
                async with sending(app, invocation):
                    return await function(*arguments, **options)
            except asyncio.CancelledError as error:
                if cancel_requests() > requests:
                    raise
                raise RuntimeError(f"{function.__name__} awaited something that was cancelled") from error

        return run(work())

    return call
