"""Tools out of what a survey found: names, parameters with all that is known of them, descriptions, schemas."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from servers.convert import docstrings, schema, stubs
from servers.manifest.records import Dropped, Option, Parameter, Tool
from servers.worker.hints import ANY, Type

_NAME: Final = re.compile(r"[^a-zA-Z0-9]+")
_PATHLIKE: Final = re.compile(
    r"(^|_)(file|files|filename|filepath|path|paths|filenames|fname|folder|directory)(_|$)|^fp_|_fp$"
    r"|^(?!pro)[a-z]{1,8}file$|^(fp|fn|input|source|src|archive|image|dir|location)$"
)
_SAID_PATH: Final = re.compile(
    r"\b(path (to|of)|file ?path|file ?name|name of (a|the) file|open(ed)? file)\b", re.I
)
_EXACT: Final = {
    "ndarray", "datetime", "date", "time", "timedelta", "decimal", "tuple", "set", "fraction", "uuid", "enum",
}  # fmt: skip
_MAX_NAME: Final = 64
_MOST_NAMED: Final = 40


class Namer:
    """Gives every tool a name of its own: the callable's, with as much before it as makes it unique."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, *choices: str) -> str:
        """The first choice that is free, else the last with a number."""
        cleaned = [_NAME.sub("_", choice).strip("_").lower()[:_MAX_NAME] or "tool" for choice in choices]
        for choice in cleaned:
            if choice not in self._taken:
                self._taken.add(choice)
                return choice
        number = 2
        while f"{cleaned[-1][: _MAX_NAME - 4]}_{number}" in self._taken:
            number += 1
        made = f"{cleaned[-1][: _MAX_NAME - 4]}_{number}"
        self._taken.add(made)
        return made


def python_tools(
    records: Iterable[dict[str, Any]], site: Path, namer: Namer, about: str = ""
) -> tuple[list[tuple[Tool, dict[str, Any]]], list[Dropped]]:
    """A tool, with its survey record, for every callable that a JSON caller can use; the rest with the reason.

    :param about: what the package as a whole is for: the last resort of a description.
    """
    made: list[tuple[Tool, dict[str, Any]]] = []
    dropped: list[Dropped] = []
    for record in sorted(records, key=_order):
        reason = _unusable(record)
        if reason:
            dropped.append(Dropped(record["qualname"], reason))
            continue
        made.append((_python_tool(record, site, namer, about), record))
    return made, dropped


def _order(record: dict[str, Any]) -> tuple[Any, ...]:
    module, _, path = record["qualname"].partition(":")
    return (
        record["kind"] != "function",
        module.count("."),
        not record["listed"],
        path.count("."),
        module,
        path,
    )


def _unusable(record: dict[str, Any]) -> str | None:
    name = record["qualname"].rpartition(".")[2]
    if re.match(r"(test_|Test[A-Z])", name) and record["kind"] != "method":
        return "it is a test"
    for parameter in record["parameters"]:
        if not parameter["name"].isidentifier():
            return f"its parameter '{parameter['name']}' has no name to send it under"
    return None


def _python_tool(record: dict[str, Any], site: Path, namer: Namer, about_all: str) -> Tool:
    qualname = record["qualname"]
    module, _, path = qualname.partition(":")
    read = docstrings.read(record["doc"])
    about = docstrings.read(record.get("init_doc") or "") if record["kind"] == "class" else docstrings.Read()
    known = {**read.parameters, **about.parameters}
    static: list[dict[str, Any]] = []
    returns: Type = record["returns"]
    if _untyped(record["parameters"]) and record["kind"] != "class":
        static, declared = stubs.facts(site, [qualname, *record["aliases"]], record["file"])
        returns = declared if returns == ANY else returns
    parameters = _parameters(record, known, static)
    constructor: tuple[Parameter, ...] = ()
    init_property = None
    input_schema = schema.of_parameters(parameters)
    if "constructor" in record:
        class_known = docstrings.read(record.get("class_doc") or "").parameters
        constructor = tuple(_parameter(each, class_known, {}) for each in record["constructor"])
        init_property = _free("init", parameters)
        inner = schema.of_parameters(constructor)
        handle = {"type": "string", "pattern": "^handle:", "description": "an object made before"}
        name = path.partition(".")[0]
        input_schema["properties"][init_property] = {
            "anyOf": [inner, handle, {"type": "object", "required": ["$call"]}],
            "description": f"what the {name} is made of",
        }
        if inner.get("required"):
            input_schema["required"] = [*input_schema.get("required", []), init_property]
    files_property = None
    if any(_is_path(parameter) for parameter in (*parameters, *constructor)):
        files_property = _free("files", parameters)
        input_schema["properties"][files_property] = {
            "type": "object",
            "description": "files for the call's working directory: name to text",
        }
    tail = module.rpartition(".")[2]
    choices = (path, f"{tail}_{path}", f"{module}_{path}")
    where = f"{Path(record['file']).name}:{record['line']}" if record["file"] else ""
    return Tool(
        name=namer.name(*choices),
        qualname=qualname,
        kind=record["kind"],
        aliases=tuple(record["aliases"]),
        description=_description(record, read.summary or about.summary, path, about_all),
        parameters=parameters,
        constructor=constructor,
        input_schema=input_schema,
        output_schema=schema.of_result(returns) if not files_property else None,
        init_property=init_property,
        files_property=files_property,
        line=where,
    )


def _untyped(parameters: list[dict[str, Any]]) -> bool:
    return all(parameter["type"]["k"] == "any" for parameter in parameters)


def _parameters(
    record: dict[str, Any],
    known: dict[str, tuple[Type | None, str]],
    static: list[dict[str, Any]],
) -> tuple[Parameter, ...]:
    raw = static if record.get("unknown") and static else record["parameters"]
    declared = {each["name"]: each["type"] for each in static}
    made = [_parameter(each, known, declared) for each in raw]
    if any(each.kind == "varkw" for each in made):
        # what `**kwargs` takes is known from the docstring alone
        names = {each.name for each in made} | {"args", "kwargs", "kw", "kwds", "options", "self"}
        more = [name for name in known if name.isidentifier() and name not in names][:_MOST_NAMED]
        made += [_parameter({"name": name, "kind": "keyword", "type": ANY}, known, declared) for name in more]
    return tuple(made)


def _parameter(
    raw: dict[str, Any], known: dict[str, tuple[Type | None, str]], declared: dict[str, Type]
) -> Parameter:
    kind: Type = raw["type"]
    documented, text = known.get(raw["name"], (None, ""))
    if kind["k"] == "any":
        static = declared.get(raw["name"], ANY)
        if static["k"] != "any":
            kind = static
        elif documented is not None:
            kind = _softened(documented, kind)
    return Parameter(
        name=raw["name"],
        kind=raw["kind"],
        type=kind,
        required=bool(raw.get("required", False)),
        default=raw.get("default"),
        description=text,
    )


def _softened(documented: Type, kind: Type) -> Type:
    """A docstring's type is a hint, no promise: values are made by it, others go in as they are."""
    k = documented["k"]
    if k == "bytes":
        return documented
    if k in _EXACT:
        return {"k": "union", "of": [documented, ANY]}
    if k == "union":
        exact = [each for each in documented["of"] if each["k"] in _EXACT]
        return {"k": "union", "of": [*exact, ANY]} if exact else kind
    if k == "any":
        return documented if documented.get("hint") else kind
    return (
        {"k": "any", "hint": [k]}
        if k != "literal"
        else {"k": "any", "hint": ["str"], "values": documented["values"]}
    )


def _is_path(parameter: Parameter) -> bool:
    kinds = [each["k"] for each in parameter.type.get("of", [])] if parameter.type.get("k") == "union" else []
    kinds.append(str(parameter.type.get("k")))
    if "path" in kinds:
        return True
    if _SAID_PATH.search(parameter.description) and any(k in ("any", "str", "object") for k in kinds):
        return True
    return bool(_PATHLIKE.search(parameter.name.lower())) and any(
        k in ("any", "str", "object") for k in kinds
    )


def _free(wanted: str, parameters: tuple[Parameter, ...]) -> str:
    taken = {parameter.name for parameter in parameters}
    for choice in (wanted, f"{wanted}_", f"_{wanted}", f"toolyard_{wanted}"):
        if choice not in taken:
            return choice
    return f"toolyard_{wanted}_"


def _description(record: dict[str, Any], summary: str, path: str, about_all: str) -> str:
    if "constructor" in record:
        cls = path.partition(".")[0]
        about = docstrings.read(record.get("class_doc") or "").summary.split(". ")[0][:200]
        if summary or about:
            summary = summary or f"{path.partition('.')[2]} of a {cls}.{_takes(record)}"
            return f"{summary} ({cls}: {about.rstrip('.')}.)" if about else summary
        made = f"{path.partition('.')[2]} of a {cls}.{_takes(record)}"
    elif summary:
        return summary
    else:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", path.replace("_", " ").replace(".", ": "))
        made = f"Make a {words}." if record["kind"] == "class" else f"{words[:1].upper()}{words[1:]}."
        made += _takes(record)
    module = record["qualname"].partition(":")[0]
    about = docstrings.read(record.get("module_doc") or "").summary.split(". ")[0]
    about = (about or about_all)[:200].rstrip(". ")
    return f"{made} ({module}: {about}.)" if about else made


def _takes(record: dict[str, Any]) -> str:
    """What a callable takes, in words: the most that can be said of one that nobody has described."""
    names = [each["name"] for each in record["parameters"] if each["kind"] not in ("varargs", "varkw")][:6]
    return f" Takes {', '.join(names)}." if names else ""


def command_tools(scripts: Iterable[dict[str, Any]], namer: Namer) -> list[tuple[Tool, dict[str, Any]]]:
    """A tool for each console script, and for each command of those whose tree is known."""
    made: list[tuple[Tool, dict[str, Any]]] = []
    for script in scripts:
        if script.get("error"):
            continue
        usage = script.get("usage", "")
        commands = script["commands"] or [{"sub": [], "help": "", "usage": usage, "group": False}]
        for command in commands:
            made.append((_command_tool(script, command, namer), {**script, **command}))
    return made


_LISTED: Final = re.compile(r"(options|optional arguments|positional arguments|arguments):", re.I)


def _usage(command: dict[str, Any], about: str) -> str:
    """A command's usage, without what its description and its properties say already."""
    usage: str = command["usage"].strip()
    if command.get("group") or not command.get("options"):
        return usage
    blocks = re.split(r"\n[ \t]*\n", usage)
    kept = [
        block for block in blocks if not _LISTED.match(block.strip()) and " ".join(block.split()) != about
    ]
    return "\n\n".join(kept).strip()


def _command_tool(script: dict[str, Any], command: dict[str, Any], namer: Namer) -> Tool:
    words = [script["script"], *command["sub"]]
    line = " ".join(words)
    about = command["help"] or f"The command line program {line}."
    usage = _usage(command, about)
    text = f"{about}\n\n{usage}" if usage else about
    label = _NAME.sub("_", line)
    # a group's own options belong before its subcommand's name: they are left to argv
    options = (
        () if command.get("group") else msgspec.convert(command.get("options") or (), tuple[Option, ...])
    )
    return Tool(
        name=namer.name(label, f"{label}_command"),
        qualname=f"cli:{line}",
        kind="cli",
        description=text[:4000],
        line=script["entry"] or "",
        input_schema={
            "type": "object",
            "properties": {
                "argv": {
                    "type": "array",
                    "items": {"type": ["string", "number"]},
                    "description": f"arguments after '{script['script']}'"
                    + (f"; '{' '.join(command['sub'])}' may be left out" if command["sub"] else ""),
                },
                "stdin": {"type": "string", "description": "text for standard input"},
                "files": {
                    "type": "object",
                    "description": "files for the working directory: name to text",
                },
                **{option.name: schema.of_option(option) for option in options},
            },
            "additionalProperties": False,
        },
        argv_property="argv",
        stdin_property="stdin",
        files_property="files",
        options=options,
    )
