"""Finding the app that -A names, and saying well why it cannot be found or does not import."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from types import ModuleType, TracebackType

import streamlog
from streamlog.errors import StreamlogError, UserError
from streamlog.streams.app import App

ATTRIBUTE_DEFAULT = "app"

OUR_DIRECTORY = os.path.dirname(os.path.abspath(streamlog.__file__))


def load_app(target: str, *, debug: bool = False) -> App:
    """The App that `module`, `module:attribute` or `path/to/module.py` names.

    Args:   debug: let exceptions of the user's module through as they are.
    Raises: UserError: there is no such module or no App in it, or the module does not import, with the line of it.
    """
    name, _, attribute = target.partition(":")
    name = _module_name(name)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return _app_in(_import(name, target, debug), attribute)


def _module_name(name: str) -> str:
    if name.endswith(".py") or os.sep in name:
        name = os.path.normpath(name.removesuffix(".py")).replace(os.sep, ".")
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"-A {name}: expected a module such as flights or examples.flights:app")
    return name


def _import(name: str, target: str, debug: bool) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UserError(
                f"-A {target}: there is no module {error.name!r} in {os.getcwd()} or on Python's path. Run streamlog "
                "in the directory that holds it, or install its package"
            ) from None
        if debug:
            raise
        raise UserError(_blame(error, name)) from error
    except StreamlogError as error:
        if debug:
            raise
        where = _own_line(error.__traceback__)
        raise UserError(f"{where}: {error}" if where else str(error)) from error
    except SystemExit as error:
        where = _own_line(error.__traceback__, with_code=True)
        raise UserError(
            f"{name} ends the program while it is imported. Put what should only run as a program under\n"
            f'  if __name__ == "__main__":' + (f"\n  at {where}" if where else "")
        ) from error
    except Exception as error:
        if debug:
            raise
        raise UserError(_blame(error, name)) from error


def _blame(error: Exception, name: str) -> str:
    """What failed in the user's module, where, and with which line of theirs."""
    if isinstance(error, SyntaxError) and error.filename:
        line = (error.text or "").strip()
        return f"{name} does not import: {error.msg} at {_shown(error.filename)}, line {error.lineno}:\n    {line}"
    summary = "".join(traceback.format_exception_only(error)).strip()
    where = _own_line(error.__traceback__, with_code=True)
    return f"{name} does not import: {summary}" + (f"\n  at {where}" if where else "")


def _own_line(trace: TracebackType | None, *, with_code: bool = False) -> str:
    """The deepest line of the traceback that is the user's: not ours, not the import machinery's, not a library's."""
    frames = [frame for frame in traceback.extract_tb(trace) if _is_users(frame.filename)]
    if not frames:
        return ""
    where = f"{_shown(frames[-1].filename)}, line {frames[-1].lineno}"
    return f"{where}:\n    {frames[-1].line}" if with_code and frames[-1].line else where


def _is_users(filename: str) -> bool:
    path = os.path.abspath(filename)
    others = (OUR_DIRECTORY + os.sep, os.path.dirname(os.path.abspath(os.__file__)) + os.sep)
    return not (filename.startswith("<") or path.startswith(others) or "site-packages" in path)


def _shown(filename: str) -> str:
    relative = os.path.relpath(filename)
    return filename if relative.startswith("..") else relative


def _app_in(module: ModuleType, attribute: str) -> App:
    where = _shown(module.__file__) if module.__file__ else module.__name__
    apps = {name: value for name, value in vars(module).items() if isinstance(value, App)}
    if attribute:
        found = getattr(module, attribute, None)
        if isinstance(found, App):
            return found
        if found is not None:
            raise UserError(f"{module.__name__}:{attribute} is a {type(found).__name__}, not a streamlog.App")
        hint = f" (there is {', '.join(sorted(apps))})" if apps else ""
        raise UserError(f"{where} has no {attribute!r}{hint}")
    if ATTRIBUTE_DEFAULT in apps:
        return apps[ATTRIBUTE_DEFAULT]
    distinct = {id(app): name for name, app in apps.items()}
    if len(distinct) == 1:
        return next(iter(apps.values()))
    if apps:
        names = ", ".join(f"-A {module.__name__}:{name}" for name in sorted(distinct.values()))
        raise UserError(f"{where} has several apps: choose with {names}")
    raise UserError(f'{where} has no streamlog.App in it: write  app = streamlog.App("{module.__name__}")')
