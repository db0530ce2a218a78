"""`streamlog broker`: one broker on one data directory, in the foreground.

Exit codes: 0 stopped as asked; 1 a setting or the data directory is wrong (UserError); 2 the command line is
wrong; 3 the machine failed us (port taken, disk).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import sys
from collections.abc import Callable, Coroutine

import click

from streamlog.broker.config import DEFAULT_LISTEN, load_config, parse_address, parse_properties
from streamlog.broker.disk_watch import tell_disk_failure
from streamlog.broker.run import RunOptions, run_broker, run_controller
from streamlog.env import real_env
from streamlog.errors import EnvironmentFailure, UserError
from streamlog.wire.error_codes import KafkaError

EXIT_USER = 1
EXIT_SYSTEM = 3

GC_THRESHOLD = 20_000
"""Requests are trees that reference counting frees. The collector's default of 700 would walk them for nothing many
times a second."""


@click.command(context_settings={"max_content_width": 120})
@click.option("--data-dir", metavar="DIR", help="Where to keep the log. Made if it does not exist.")
@click.option("--listen", metavar="HOST:PORT", help=f"Address to listen on; port 0 picks one. [{DEFAULT_LISTEN}]")
@click.option("--config", "config_path", metavar="FILE", help="A server.properties file, with Kafka's names.")
@click.option("--exit-when-idle", type=float, metavar="SECONDS", help="Stop after so long without a connection.")
@click.option("--log-level", default="WARNING", show_default=True, metavar="LEVEL", help="DEBUG, INFO, WARNING, ERROR.")
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
def broker(
    data_dir: str | None,
    listen: str | None,
    config_path: str | None,
    exit_when_idle: float | None,
    log_level: str,
    settings: tuple[str, ...],
) -> None:
    """Run a broker. NAME=VALUE overrides a setting of the file."""
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        values = _read_settings(config_path, settings)
        if listen is not None:
            try:
                host, port = parse_address(listen, "--listen")
            except UserError as error:
                raise click.UsageError(str(error)) from None
            values["listeners"] = f"PLAINTEXT://{f'[{host}]' if ':' in host else host}:{port}"
            values.pop("advertised.listeners", None)
            values.pop("inter.broker.listener.name", None)
        data_dir = data_dir or os.environ.get("STREAMLOG_DATA_DIR") or values.get("log.dirs") or values.get("log.dir")
        if not data_dir:
            raise UserError("No data directory: name one with --data-dir, or log.dirs in the properties file.")
        config, warnings = load_config(values)
        for warning in warnings:
            click.echo(f"streamlog broker: {warning}", err=True)
        idle_ms = None if exit_when_idle is None else int(exit_when_idle * 1000)
        options = RunOptions(os.path.abspath(data_dir), idle_ms)
        gc.set_threshold(GC_THRESHOLD)
        _raise_descriptor_limit()
        run = run_broker if config.is_broker else run_controller
        _runner()(run(real_env(), config, options, click.echo))
    except UserError as error:
        _fail(str(error), EXIT_USER)
    except (EnvironmentFailure, KafkaError, OSError) as error:
        _fail(tell_disk_failure(error, data_dir or ""), EXIT_SYSTEM)


def _read_settings(config_path: str | None, settings: tuple[str, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    if config_path is not None:
        try:
            with open(config_path, encoding="utf-8") as file:
                values = parse_properties(file.read())
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{config_path} cannot be read: {error}") from error
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise click.UsageError(f"{setting!r} is not NAME=VALUE")
        values[name.strip()] = value.strip()
    return values


def _raise_descriptor_limit() -> None:
    """A broker opens a few files a partition and a socket a client; shells default to 1024 of both."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _runner() -> Callable[[Coroutine[None, None, None]], None]:
    """uvloop where it is installed: twice the requests for the same CPU."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


def _fail(message: str, code: int) -> None:
    click.echo(f"streamlog broker: {message}", err=True)
    sys.exit(code)
