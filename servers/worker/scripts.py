"""A distribution's console scripts: click, typer, argparse and optparse command trees, found by interception.

A script is started as it would be by hand, with no arguments, and stopped where it hands its arguments to a
parser; the parser then says everything. A script that asks no parser we know takes free arguments.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import optparse
import os
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from typing import Any

from . import commands, contain, options

_DEPTH = 4


class _Parser(BaseException):
    """Carries a parser out of the script that made it."""

    def __init__(self, framework: str, parser: Any) -> None:
        super().__init__(framework)
        self.framework = framework
        self.parser = parser


def walk(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Every console script of ``distribution``, each with its commands."""
    found = []
    for script, entry in _scripts(request["distribution"]):
        record: dict[str, Any] = {"script": script, "entry": entry, "framework": "free", "commands": []}
        for arguments in ([], ["--help"]):  # some look at their arguments before they make a parser
            _try(record, script, entry, arguments, request["seconds"])
            if record["commands"] or "error" in record:
                break
        found.append(record)
    return found


def _try(
    record: dict[str, Any], script: str, entry: str | None, arguments: list[str], seconds: float
) -> None:
    """Start a script with these arguments, and note its commands, or how it describes itself."""
    with contain.quiet() as said:
        try:
            with contain.limit(seconds):
                _start(script, entry, arguments)
        except _Parser as caught:
            record["framework"] = caught.framework
            record["commands"] = list(_tree(caught))
        except contain.TooSlow:
            record["note"] = "it did not come to a parser in time"
        except ImportError as error:
            record["error"] = contain.describe(error)
            record["module"] = error.name or ""
        except (Exception, SystemExit) as error:  # foreign code
            record["note"] = contain.describe(error)
        complaint = contain.complaints()
    text = said.text().strip() or complaint.strip()
    if (
        arguments
        and re.search(r"usage|options|synopsis|^\s*-\w", text, re.I | re.M)
        and "Traceback" not in text
    ):
        record["usage"] = text[:6000]


def _scripts(distribution: str) -> Iterator[tuple[str, str | None]]:
    dist = importlib.metadata.distribution(distribution)
    named = set()
    for entry in dist.entry_points:
        if entry.group == "console_scripts":
            named.add(entry.name)
            yield entry.name, entry.value.split("[")[0].strip()
    folder = os.path.dirname(sys.executable)
    for file in dist.files or ():
        parts = file.parts
        if len(parts) >= 2 and parts[-2] in ("bin", "Scripts") and parts[-1] not in named:
            path = os.path.join(folder, parts[-1])
            if os.path.isfile(path) and _is_python(path):
                yield parts[-1], None


def _is_python(path: str) -> bool:
    with open(path, "rb") as file:
        return b"python" in file.readline(200)


def _start(script: str, entry: str | None, arguments: list[str]) -> None:
    sys.argv[:] = [script, *arguments]
    undo = list(_intercept())
    try:
        if entry is None:
            runpy.run_path(os.path.join(os.path.dirname(sys.executable), script), run_name="__main__")
            return
        module, _, path = entry.partition(":")
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        undo += _intercept()  # click may have been imported only now
        if arguments and commands.holds_arguments(found):
            found(arguments)  # its default is the command line of this process
        else:
            found()
    finally:
        for owner, name, original in reversed(undo):
            setattr(owner, name, original)


def _intercept() -> Iterator[tuple[Any, str, Any]]:
    places: list[tuple[Any, str, str]] = [
        (argparse.ArgumentParser, "parse_known_args", "argparse"),
        (argparse.ArgumentParser, "parse_args", "argparse"),
        (optparse.OptionParser, "parse_args", "optparse"),
    ]
    click, typer = sys.modules.get("click.core"), sys.modules.get("typer.core")
    if click is not None:
        places += [(getattr(click, name), "main", "click") for name in ("BaseCommand", "Command", "Group", "MultiCommand") if "main" in vars(getattr(click, name, object))]  # fmt: skip
    if typer is not None:
        places += [(getattr(typer, name), "main", "typer") for name in ("TyperGroup", "TyperCommand") if "main" in vars(getattr(typer, name, object))]  # fmt: skip
    for owner, name, framework in places:
        original = vars(owner)[name]
        if getattr(original, "intercepts", False):
            continue
        setattr(owner, name, _catcher(framework))
        yield owner, name, original


def _catcher(framework: str) -> Callable[..., Any]:
    def caught(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise _Parser(framework, self)

    caught.intercepts = True  # type: ignore[attr-defined]
    return caught


def _tree(caught: _Parser) -> Iterator[dict[str, Any]]:
    if caught.framework in ("click", "typer"):
        yield from _click(caught.parser, [], None, 0)
    elif caught.framework == "argparse":
        yield from _argparse(caught.parser, [], 0)
    else:
        yield {
            "sub": [],
            "help": _flat(caught.parser.get_description()),
            "usage": caught.parser.format_help()[:6000],
        }


def _flat(text: Any) -> str:
    return " ".join(str(text or "").replace("\b", "").split())[:1500]


def _click(command: Any, sub: list[str], parent: Any, depth: int) -> Iterator[dict[str, Any]]:
    context = command.make_context(
        sub[-1] if sub else os.path.basename(sys.argv[0]), [], parent=parent, resilient_parsing=True
    )
    record: dict[str, Any] = {
        "sub": sub,
        "help": _flat(command.help or command.short_help),
        "usage": _usage(command, context),
        "options": _options(options.of_click, command),
    }
    names = command.list_commands(context) if hasattr(command, "list_commands") else []
    record["group"] = bool(names)
    yield record
    if depth >= _DEPTH:
        return
    for name in names:
        inner = command.get_command(context, name)
        if inner is not None and not getattr(inner, "hidden", False):
            yield from _click(inner, [*sub, name], context, depth + 1)


def _options(read: Callable[[Any], list[dict[str, Any]]], parser: Any) -> list[dict[str, Any]]:
    """A parser's options; none where it is of a make that we cannot read: it still takes free arguments."""
    try:
        return read(parser)
    except (AttributeError, TypeError, ValueError):
        return []


def _usage(command: Any, context: Any) -> str:
    try:
        return str(command.get_help(context))[:6000]
    except Exception as error:  # a help text that its own program cannot print
        return f"(its help cannot be shown: {contain.describe(error)})"


def _argparse(parser: Any, sub: list[str], depth: int) -> Iterator[dict[str, Any]]:
    inner: dict[int, tuple[str, Any, str]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help for choice in action._choices_actions}
            for name, each in action.choices.items():
                inner.setdefault(id(each), (name, each, helps.get(name) or ""))
    try:
        usage = parser.format_help()[:6000]
    except Exception as error:  # a `%` in a help text is enough
        usage = f"(its help cannot be shown: {contain.describe(error)})"
    yield {
        "sub": sub,
        "help": _flat(parser.description),
        "usage": usage,
        "group": bool(inner),
        "options": _options(options.of_argparse, parser),
    }
    if depth >= _DEPTH:
        return
    for name, each, text in inner.values():
        for record in _argparse(each, [*sub, name], depth + 1):
            if record["sub"] == [*sub, name] and not record["help"]:
                record["help"] = _flat(text)
            yield record
