"""The options and arguments of a command, as its own parser knows them, and the command line they make.

An option is written as a dictionary: ``name`` (of the property), ``flag`` (empty for a positional argument),
``off`` (the flag that says no), ``switch`` (it takes no value), ``many`` (``repeat`` the flag, or ``list`` the values
behind it; empty for one value), ``type`` (as in ``hints``), ``required``, ``default``, ``description``.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

from .problems import BadArgument

MOST = 60
_PLAIN = (str, int, float)
_CLICK_TYPES = {
    "integer": "int",
    "integer range": "int",
    "float": "float",
    "float range": "float",
    "boolean": "bool",
}


def of_argparse(parser: argparse.ArgumentParser) -> list[dict[str, Any]]:
    """What an argparse parser takes; subcommands, help and version are not among it."""
    found = []
    for action in parser._actions:
        if isinstance(action, (argparse._SubParsersAction, argparse._HelpAction, argparse._VersionAction)):
            continue
        if action.help == argparse.SUPPRESS:
            continue
        flags = sorted(action.option_strings, key=lambda each: (each.startswith("--"), len(each)))
        flag = flags[-1] if flags else ""
        repeated = isinstance(action, argparse._AppendAction)
        listed = action.nargs not in (None, 0, "?") and action.nargs != argparse.REMAINDER
        off = next((each for each in flags if each.startswith("--no-")), "")
        if off and len(flags) > 1:
            flag = next(each for each in reversed(flags) if not each.startswith("--no-"))
        kind: dict[str, Any] = {
            "k": "int" if action.type is int else "float" if action.type is float else "str"
        }
        if action.choices is not None:
            kind = _choices(action.choices, kind)
        found.append(
            _option(
                action.dest if flags else str(action.metavar or action.dest),
                flag,
                off=off if isinstance(action, argparse.BooleanOptionalAction) else "",
                switch=action.nargs == 0,
                many="repeat" if repeated else "list" if listed else "",
                kind=kind,
                required=action.required,
                default=action.default,
                description=_filled(action),
            )
        )
    return _named(found)


def of_click(command: Any) -> list[dict[str, Any]]:
    """What a click or typer command takes, read by the names of click's attributes alone."""
    found = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name in (None, "help", "version"):
            continue
        if getattr(parameter, "is_eager", False) and not parameter.expose_value:
            continue
        is_option = parameter.param_type_name == "option"
        flags = sorted(parameter.opts, key=lambda each: (each.startswith("--"), len(each)))
        many = ""
        if getattr(parameter, "multiple", False):
            many = "repeat"
        elif parameter.nargs != 1:
            many = "list"
        kind: dict[str, Any] = {"k": _CLICK_TYPES.get(getattr(parameter.type, "name", ""), "str")}
        if getattr(parameter.type, "choices", None):
            kind = _choices(parameter.type.choices, kind)
        found.append(
            _option(
                parameter.name,
                flags[-1] if is_option else "",
                off=(parameter.secondary_opts or [""])[0],
                switch=bool(getattr(parameter, "is_flag", False) or getattr(parameter, "count", False)),
                many=many,
                kind=kind,
                required=parameter.required,
                default=None if callable(parameter.default) else parameter.default,
                description=str(getattr(parameter, "help", "") or ""),
            )
        )
    return _named(found)


def _option(
    name: str, flag: str, *, off: str, switch: bool, many: str, kind: dict[str, Any], required: Any,
    default: Any, description: str,
) -> dict[str, Any]:  # fmt: skip
    made: dict[str, Any] = {"name": name, "flag": flag, "type": {"k": "bool"} if switch else kind}
    for key, value in (("off", off), ("switch", switch), ("many", many), ("required", bool(required))):
        if value:
            made[key] = value
    if isinstance(default, _PLAIN) and not isinstance(default, bool) and default != argparse.SUPPRESS:
        made["default"] = default
    text = " ".join(description.split())[:300]
    if text:
        made["description"] = text
    return made


def _named(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The options with names that can be properties, each once."""
    kept: dict[str, dict[str, Any]] = {}
    for option in found[:MOST]:
        name = re.sub(r"\W+", "_", option["name"]).strip("_").lower()
        name += "_" if name in ("argv", "stdin", "files") else ""
        if name and name not in kept:
            kept[name] = {**option, "name": name}
    return list(kept.values())


def _choices(choices: Any, kind: dict[str, Any]) -> dict[str, Any]:
    values = [getattr(each, "value", each) for each in choices]
    if values and len(values) <= 60 and all(isinstance(each, _PLAIN) for each in values):
        return {"k": "literal", "values": values}
    return kind


def _filled(action: argparse.Action) -> str:
    """A help text with its ``%(default)s`` filled in, where it can be."""
    text = action.help or ""
    try:
        return text % {**vars(action), "prog": ""}
    except (KeyError, ValueError, TypeError):
        return text


def argv(options: list[dict[str, Any]], arguments: dict[str, Any]) -> list[str]:
    """The words that say what the properties say: positional arguments, then options.

    :raises BadArgument: an earlier positional argument is missing.
    """
    behind: list[str] = []
    words: list[str] = []
    skipped = ""
    for option in options:
        value = arguments.get(option["name"])
        if value is None or (value == [] and option.get("many")):
            skipped = skipped or ("" if option["flag"] else option["name"])
            continue
        if not option["flag"]:
            if skipped:
                raise BadArgument(f"'{skipped}' is missing: it comes before '{option['name']}'")
            behind += _texts(value)
        elif option.get("switch"):
            words += _switch(option, value)
        elif option.get("many") == "repeat":
            words += [word for each in _texts(value) for word in _valued(option["flag"], each)]
        elif option.get("many") == "list":
            words += [option["flag"], *_texts(value)]
        else:
            words += _valued(option["flag"], *_texts(value)[:1])
    if any(word.startswith("-") and word != "-" for word in behind):
        return [*words, "--", *behind]
    return [*behind, *words]


def _switch(option: dict[str, Any], value: Any) -> list[str]:
    if value is True:
        return [option["flag"]]
    if value is False:
        return [option["off"]] if option.get("off") else []
    return [option["flag"]] * int(value)


def _valued(flag: str, value: str = "") -> list[str]:
    return [f"{flag}={value}"] if flag.startswith("--") else [flag, value]


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [("true" if each else "false") if isinstance(each, bool) else str(each) for each in values]
