"""Docstrings read by griffe: what a callable is for, what its parameters mean, and examples of calls."""

from __future__ import annotations

import ast
import logging
import re
from dataclasses import dataclass, field
from typing import Any, Final

from griffe import Docstring, DocstringSectionKind, Parser

from servers.worker import wording
from servers.worker.hints import Type

logging.getLogger("griffe").setLevel(logging.CRITICAL)  # a docstring that breaks its style is no news

_SPHINX: Final = re.compile(r"^\s*:(param|type|arg|returns?|rtype|raises)\b", re.M)
_NUMPY: Final = re.compile(r"^\s*(Parameters|Returns|Examples|Notes)\s*\n\s*-{3,}", re.M)
_GOOGLE: Final = re.compile(
    r"^\s*(Args|Arguments|Parameters|Returns|Yields|Raises|Example|Examples):\s*$", re.M
)


@dataclass(frozen=True, slots=True)
class Read:
    """What a docstring says.

    :ivar summary: its prose, up to the first section.
    :ivar parameters: name -> (type or None, description).
    """

    summary: str = ""
    parameters: dict[str, tuple[Type | None, str]] = field(default_factory=dict)


def read(text: str) -> Read:
    """Parse a docstring in the style it is written in."""
    if not text.strip():
        return Read()
    style = _style(text)
    if style is None:
        return Read(summary=_prose(text), parameters=_dashed(text))
    parameters: dict[str, tuple[Type | None, str]] = {}
    prose = ""
    try:
        sections: Any = Docstring(text).parse(style)
    except Exception:  # griffe's parsers meet docstrings that break them; the text is still of use
        return Read(summary=_prose(text))
    for section in sections:
        if section.kind is DocstringSectionKind.text and not prose:
            prose = _prose(str(section.value))
        elif section.kind in (
            DocstringSectionKind.parameters,
            DocstringSectionKind.other_parameters,
        ):
            for each in section.value:
                written = str(each.annotation) if each.annotation is not None else ""
                kind = wording.describe(written) if written else None
                for name in str(each.name).split(","):
                    parameters[name.strip().lstrip("*")] = (kind, _flat(str(each.description)))
    return Read(summary=prose, parameters=parameters or _dashed(text))


_HEADED: Final = re.compile(
    r"^[ \t]*(?:keyword |optional |required )?(?:arguments|args|parameters|params|options):?[ \t]*$",
    re.I | re.M,
)
_DASHED: Final = re.compile(r"^[ \t]*[-*]?[ \t]*[`*]*(\w+)[`*]*[ \t]+--?[ \t]+(\S.*)$")


def _dashed(text: str) -> dict[str, tuple[Type | None, str]]:
    """The parameters of a docstring of no known style that has them as ``name - what it is``, a line each."""
    header = _HEADED.search(text)
    found: dict[str, tuple[Type | None, str]] = {}
    name = ""
    for line in text[header.end() :].splitlines() if header else ():
        match = _DASHED.match(line)
        if match:
            name = match.group(1)
            found[name] = (None, _flat(match.group(2)))
        elif name and line.strip() and line[:1] in " \t":
            found[name] = (None, _flat(f"{found[name][1]} {line}"))
        elif line.strip():
            break
        else:
            name = ""
    return found


def _style(text: str) -> Parser | None:
    if _NUMPY.search(text):
        return Parser.numpy
    if _SPHINX.search(text):
        return Parser.sphinx
    return Parser.google if _GOOGLE.search(text) else None


def _prose(text: str) -> str:
    kept: list[str] = []
    text = re.sub(r"^[ \t]*```.*?^[ \t]*```[ \t]*$", "", text, flags=re.S | re.M)  # code, not prose
    for block in re.split(r"\n\s*\n", text.strip()):
        if kept and (_HEADED.match(block.splitlines()[0]) or _FOOTNOTE.match(block)):
            break
        if kept and re.match(r"\s*(usage|examples?|example usage|for example)\s*:*\s*$", block, re.I):
            break
        if ">>>" in block or re.match(r"\s*(::|\.\. )", block):
            break
        kept.append(_flat(block))
        if sum(map(len, kept)) > 600:
            break
    return " ".join(kept)[:1000]


def _flat(text: str) -> str:
    text = re.sub(r"(?::[\w.+-]+)+:`([^`<]*?)\s*(?:<[^`>]*>)?`", _role, text)
    text = re.sub(r"\[([^\[\]]+)\](?:\[\w*\]|\(https?://[^)]*\))", r"\1", text)  # links, as what they are on
    return " ".join(text.replace("``", "`").split())[:600]


_FOOTNOTE: Final = re.compile(r"\s*\[\w+\]: ")


def _role(match: re.Match[str]) -> str:
    """``:py:meth:`~a.b.c` `` as a reader sees it: its last part after a tilde, else all of it."""
    shown = match.group(1)
    return f"`{shown.rpartition('.')[2] if shown.startswith('~') else shown}`"


@dataclass(frozen=True, slots=True)
class Example:
    """A call with arguments that are constants: positional ones in order, then named ones."""

    name: str
    positional: tuple[Any, ...]
    named: dict[str, Any]
    source: str
    init: tuple[tuple[Any, ...], dict[str, Any]] | None = None


def examples(text: str, source: str) -> list[Example]:
    """The calls that doctests and code blocks in a text show, where every argument is a constant."""
    found: list[Example] = []
    for code in _code(text):
        try:
            tree = ast.parse(code)
        except (SyntaxError, ValueError, RecursionError):
            continue
        constants: dict[str, Any] = {}
        made: dict[str, ast.Call] = {}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Assign)
                and len(node.targets) == 1
                and isinstance(node.targets[0], ast.Name)
            ):
                value = _constant(node.value, constants)
                if value is not _NO:
                    constants[node.targets[0].id] = value
                elif isinstance(node.value, ast.Call):
                    made[node.targets[0].id] = node.value
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                example = _call(node, constants, made, source)
                if example is not None and example not in found:
                    found.append(example)
    return found


def _code(text: str) -> list[str]:
    """Doctest inputs, one block each group, and fenced or indented blocks."""
    blocks: list[str] = []
    current: list[str] = []
    for line in text.splitlines():
        match = re.match(r"\s*(>>>|\.\.\.|In \[\d+\]:) ?(.*)", line)
        if match:
            if match.group(1) != "..." and current:
                blocks.append("\n".join(current))
                current = []
            current.append(match.group(2))
        elif current and not line.strip():
            blocks.append("\n".join(current))
            current = []
    if current:
        blocks.append("\n".join(current))
    joined: list[str] = []
    for block in blocks:  # statements that parse alone, together with the assignments before them
        joined.append(block)
    whole = "\n".join(block for block in blocks if _parses(block))
    fenced = re.findall(r"```(?:python|py|pycon)?\s*\n(.*?)```", text, flags=re.S)
    indented = re.findall(r"(?:::|code-block:: python)\s*\n\n((?:[ \t]+.*\n|\s*\n)+)", text)
    made = [whole] if whole else []
    for block in (*fenced, *indented):
        lines = block.splitlines()
        widths = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
        cut = min(widths, default=0)
        cleaned = "\n".join(line[cut:] for line in lines)
        if ">>>" not in cleaned:
            made.extend(_pieces(cleaned))
    return made


def _pieces(code: str) -> list[str]:
    """A block as a whole if it is Python, else those of its lines that are."""
    if _parses(code):
        return [code]
    return ["\n".join(line for line in code.splitlines() if _parses(line.strip()) and line == line.lstrip())]


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError):
        return False
    return True


_NO: Final = object()


def _constant(node: ast.expr, known: dict[str, Any]) -> Any:
    """A JSON value for an expression of constants, or ``_NO``."""
    if isinstance(node, ast.Name):
        return known.get(node.id, _NO)
    try:
        value = ast.literal_eval(node)
    except (ValueError, SyntaxError, TypeError, RecursionError):
        if isinstance(node, (ast.List, ast.Tuple)):
            items = [_constant(item, known) for item in node.elts]
            return _NO if any(item is _NO for item in items) else items
        return _NO
    return _json(value)


def _json(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return _NO
    if isinstance(value, (list, tuple, set)):
        items = [_json(item) for item in value]
        return _NO if any(item is _NO for item in items) else items
    if isinstance(value, dict):
        if not all(isinstance(key, (str, int)) for key in value):
            return _NO
        pairs = {str(key): _json(item) for key, item in value.items()}
        return _NO if any(item is _NO for item in pairs.values()) else pairs
    return _NO


def _call(node: ast.Call, known: dict[str, Any], made: dict[str, ast.Call], source: str) -> Example | None:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    arguments = _arguments(node, known)
    if not name or arguments is None:
        return None
    init = None
    if isinstance(node.func, ast.Attribute):
        base = node.func.value
        maker = (
            made.get(base.id) if isinstance(base, ast.Name) else base if isinstance(base, ast.Call) else None
        )
        if maker is not None:
            init = _arguments(maker, known)
    return Example(name, arguments[0], arguments[1], source, init)


def _arguments(node: ast.Call, known: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    positional = [_constant(each, known) for each in node.args if not isinstance(each, ast.Starred)]
    if len(positional) != len(node.args) or any(each is _NO for each in positional):
        return None
    named: dict[str, Any] = {}
    for keyword in node.keywords:
        value = _constant(keyword.value, known)
        if keyword.arg is None or value is _NO:
            return None
        named[keyword.arg] = value
    return tuple(positional), named
