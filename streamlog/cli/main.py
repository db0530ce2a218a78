"""The `streamlog` command. Subcommands are imported when they are run, so that each starts as fast as it can.

What goes wrong ends here, as one message and an exit code: 2 the command line is wrong, 1 something the user can change
(UserError, or the log said no), 3 the machine or the network failed us, 130 Ctrl-C, 70 a bug. `--debug` shows
tracebacks.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from streamlog.__main__ import EXIT_INTERRUPTED, end_at_once
from streamlog.cli.invocation import Invocation
from streamlog.errors import EnvironmentFailure, RemoteProtocolError, UserError

if TYPE_CHECKING:
    from streamlog.wire.error_codes import KafkaError

F = TypeVar("F", bound=Callable[..., Any])

EXIT_USER = 1
EXIT_USAGE = 2
EXIT_SYSTEM = 3
EXIT_INTERNAL = 70
"""sysexits.h's EX_SOFTWARE: a bug of ours, with its traceback."""

THREADS_S_MAX = 3.0
"""What threads that are not ours get to end after the command has."""

OURS = "streamlog_"
"""How names of Env's threads begin."""

SUBCOMMANDS = {
    "agents": "streamlog.cli.declared:agents",
    "broker": "streamlog.cli.broker:broker",
    "cluster": "streamlog.cli.cluster:cluster",
    "configs": "streamlog.cli.configs:configs",
    "consume": "streamlog.cli.consume:consume",
    "doctor": "streamlog.cli.doctor:doctor",
    "elect": "streamlog.cli.elect:elect",
    "format": "streamlog.cli.format:format_",
    "groups": "streamlog.cli.groups:groups",
    "produce": "streamlog.cli.produce:produce",
    "quorum": "streamlog.cli.quorum:quorum",
    "reassign": "streamlog.cli.reassign:reassign",
    "reset": "streamlog.cli.reset:reset",
    "send": "streamlog.cli.send:send",
    "tables": "streamlog.cli.tables:tables",
    "topics": "streamlog.cli.topics:topics",
    "topology": "streamlog.cli.declared:topology",
    "worker": "streamlog.cli.worker:worker",
}
"""Name -> module:attribute of a click command."""

SUMMARIES = {
    "agents": "List the agents of an app.",
    "broker": "Run a broker.",
    "cluster": "Start, stop, kill and describe a cluster of local nodes.",
    "configs": "Show and change settings of brokers.",
    "consume": "Print the records of topics.",
    "doctor": "Say whether everything that is needed is there and works.",
    "elect": "Elect leaders of partitions.",
    "format": "Make the data directory of a node of a new cluster.",
    "groups": "List, describe, delete consumer groups; reset their offsets.",
    "produce": "Write lines as records to a topic.",
    "quorum": "Describe the metadata quorum; add and remove voters.",
    "reassign": "Move partitions to other brokers.",
    "reset": "Empty an app's tables and have it process its topics again.",
    "send": "Send one value to an agent or a topic of an app.",
    "tables": "List an app's tables; get, scan and watch their live rows.",
    "topics": "List, create, describe, alter and delete topics.",
    "topology": "Print what an app will do.",
    "worker": "Run a worker of an app.",
}
"""What `streamlog --help` says, without importing what it talks about."""


class LazyGroup(click.Group):
    """Imports a subcommand when it is named, and knows the commands of the app that -A names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = SUBCOMMANDS.get(cmd_name)
        if target is None:
            return self._command_of_app(ctx, cmd_name)
        module, _, attribute = target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command), f"{target} is not a command"
        if signal.getsignal(signal.SIGINT) is end_at_once:  # from here on there may be something to clean up
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return command

    def _command_of_app(self, ctx: click.Context, name: str) -> click.Command | None:
        invocation = ctx.ensure_object(Invocation)
        if not invocation.names_app():
            return None
        from streamlog.cli.commands import command_of_app

        return command_of_app(invocation, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            invocation = ctx.ensure_object(Invocation)
            if args and not invocation.names_app() and args[0] not in SUBCOMMANDS and not args[0].startswith("-"):
                message = f"{error.message} Commands of an app need -A: streamlog -A module:app COMMAND."
                raise click.UsageError(message, ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(SUMMARIES.items()))
        invocation = ctx.ensure_object(Invocation)
        if invocation.names_app():
            from streamlog.cli.commands import commands_of_app

            rows = [(name, command.get_short_help_str()) for name, command in commands_of_app(invocation)]
            if rows:
                with formatter.section("Commands of the app"):
                    formatter.write_dl(rows)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and exit the process."""
        arguments = sys.argv[1:]
        try:
            self._run(arguments)
        finally:
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, end_at_once)  # the interpreter's own end takes a moment too
            end_despite_threads(sys.exc_info()[1])

    def _run(self, arguments: list[str]) -> NoReturn:
        stdout = sys.stdout
        try:
            code = self.main(arguments, "streamlog", standalone_mode=False)
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_stdout()
            sys.exit(0)
        except Exception as error:
            if "--debug" in arguments and not isinstance(error, click.ClickException | click.exceptions.Exit):
                traceback.print_exc()
                sys.exit(_exit_code(error))
            sys.exit(_explain(error))
        except SystemExit:
            if sys.stdout is not stdout:  # click has met a broken pipe, covered it, and says 1
                _forget_stdout()
                sys.exit(0)
            raise
        except KeyboardInterrupt:
            sys.exit(EXIT_INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


def end_despite_threads(ending: BaseException | None) -> None:
    """See to it that this process ends, with the code of `ending`, although threads of an app may go on: nobody would
    end them, and whoever waits for the process (a supervisor, a terminal) would wait for ever."""
    others = [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
    if not others:
        return
    code = ending.code if isinstance(ending, SystemExit) and isinstance(ending.code, int) else EXIT_INTERNAL

    def end() -> None:
        names = ", ".join(sorted(one.name for one in others if one.is_alive() and not one.name.startswith(OURS)))
        if names:  # ours waits in a call that nothing ends, such as reading what somebody types
            click.echo(
                f"streamlog: ended while threads still ran: {names}. Make them daemon threads, or end them", err=True
            )
        sys.stdout.flush()
        os._exit(code)

    watchdog = threading.Timer(0 if code == EXIT_INTERRUPTED else THREADS_S_MAX, end)
    watchdog.daemon = True
    watchdog.start()


def _explain(error: Exception) -> int:
    """Say what happened in one message; returns the exit code."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.Abort):
        return EXIT_INTERRUPTED
    code = _exit_code(error)
    if code == EXIT_INTERNAL:
        traceback.print_exception(error)
        click.echo("streamlog: this is a bug in streamlog, or in code that it was given; please report it", err=True)
    else:
        click.echo(f"streamlog: {_sentence(error)}", err=True)
    return code


def _exit_code(error: Exception) -> int:
    from streamlog.wire.error_codes import KafkaError

    match error:
        case UserError():
            return EXIT_USER
        case KafkaError():
            return EXIT_SYSTEM if error.retriable and error.code.name not in _ANSWERS else EXIT_USER
        case EnvironmentFailure() | RemoteProtocolError() | OSError():
            return EXIT_SYSTEM
        case _:
            return EXIT_INTERNAL


_ANSWERS = frozenset({"UNKNOWN_TOPIC_OR_PARTITION", "UNKNOWN_TOPIC_ID"})
"""Retriable for programs; for somebody who typed a name they are the answer."""


_HINTS = {
    "NON_EMPTY_GROUP": "it has members; stop them first",
    "INCONSISTENT_GROUP_PROTOCOL": "its members share partitions otherwise (workers of an app?); take another group",
}
"""What a bare code means, for codes that come without words."""


def _sentence(error: Exception) -> str:
    """An error as a person reads it: the sentence first, Kafka's code after it."""
    from streamlog.wire.error_codes import KafkaError

    several: Mapping[str, KafkaError] | None = getattr(error, "errors", None)
    if several is not None:
        return "\n".join(_sentence_of(name, one) for name, one in several.items())
    if isinstance(error, KafkaError):
        return _sentence_of("", error)
    return str(error) or type(error).__name__


def _sentence_of(name: str, error: KafkaError) -> str:
    message = error.message.rstrip(".")
    hint = _HINTS.get(error.code.name)
    if message and hint is not None:
        message = f"{message}: {hint}"
    if not message:
        return f"{name}: {error.code.name}" if name else error.code.name
    about = "" if name in message else f"{name}: "
    return f"{about}{message} ({error.code.name})"


def _forget_stdout() -> None:
    """The reader of our output left (`| head`): nothing more to say, and nothing to complain about at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _store(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Known before the subcommand is looked for: it may be the app's."""
    setattr(ctx.ensure_object(Invocation), str(parameter.name), value)


def _option(*names: str, **details: Any) -> Callable[[F], F]:
    return click.option(*names, expose_value=False, callback=_store, is_eager=True, **details)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@_option("-A", "--app", metavar="MODULE[:APP]", help="The app. [app of [tool.streamlog] in pyproject.toml]")
@_option("--broker", metavar="HOST:PORT,...", help="The brokers. [STREAMLOG_BROKER; else the embedded log]")
@_option("--data-dir", metavar="DIR", help="State and embedded log. [STREAMLOG_DATA_DIR; ./streamlog-data]")
@_option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="streamlog", message="streamlog %(version)s")
def main() -> None:
    """Kafka and Kafka Streams for Python."""
