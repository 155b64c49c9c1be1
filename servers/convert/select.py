"""Which of many callables are shown: those that the project itself shows to its users."""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Final

from servers.manifest.records import Tool

MOST: Final = 38
"""With find_tools and call_tool, a service shows no more than 40."""
MOST_COMMANDS: Final = 14
EACH_METHOD: Final = 0.2
FREE_METHODS: Final = 4
SAME_METHOD: Final = 1.0
"""What a method loses for each one of its class beyond the free ones, and for each of the same name elsewhere."""
SHORT: Final = 12
"""A package that offers no more than this is shown whole, with what nobody has described."""
_TEXTS: Final = (".md", ".rst", ".txt", ".py")
_MAX_TEXT: Final = 4_000_000
_WEAK: Final = re.compile(
    r"^(main|cli|run|setup|register|unregister|install|uninstall|reset|clear|close|get_version|parse_args|command_line_\w+"
    r"|(create|make|get|build|init)_?(arg|args|argument|options?)?_?parser)$|^(set|add|register)_"
)
_STRONG: Final = re.compile(
    r"^(parse|format|convert|encode|decode|loads?|dumps?|validate|is|detect|search|find|match|extract|split|merge|diff"
    r"|simplify|solve|render|translate|to|from|compute|calculate|count|sort|sorted|analy[sz]e|check|clean|normali[sz]e)(_|$)"
)
_BACKSTAGE: Final = {
    "helper",
    "helpers",
    "compat",
    "internal",
    "internals",
    "typing",
    "plugins",
    "debug",
    "types",
}
_TAKES_CODE: Final = re.compile(r"func|function|callback|predicate|fn|pred|callable|parser|ctx|cls")
_HARD: Final = {"callable", "class", "file"}
_INTERNAL: Final = re.compile(
    r"\b(internal (method|function|helper|use)|for internal use|not part of the public|private)\b", re.I
)
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CALL: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*\(")


class Mentions:
    """How often a project's README, docs, tests and docstrings name something."""

    def __init__(self, readme: str, folder: Path | None, docstrings: Sequence[str] = ()) -> None:
        self.readme = Counter(_WORD.findall(readme))
        self.calls = Counter(_CALL.findall(readme))
        self.text = readme
        self.docs: Counter[str] = Counter()
        for text in _texts(folder) if folder is not None else ():
            self.docs.update(_CALL.findall(text))
        # what the examples of other functions use is what users use
        self.examples: Counter[str] = Counter()
        for text in set(docstrings):
            self.examples.update(set(_CALL.findall(text)))


def _texts(folder: Path) -> list[str]:
    found, size = [], 0
    for place in ("docs", "doc", "tests", "test", "examples", "README.md", "README.rst"):
        root = folder / place
        files = sorted(root.rglob("*")) if root.is_dir() else [root]
        for file in files:
            if file.is_file() and file.suffix in _TEXTS and size < _MAX_TEXT:
                text = file.read_text("utf-8", "replace")
                size += len(text)
                found.append(text)
    return found


def score(
    tool: Tool, record: dict[str, Any], mentions: Mentions, package: str, thin: bool, has_example: bool
) -> float:
    """How likely it is that a user of the project wants this callable. Higher is better.

    :param thin: whether the package's top level offers next to nothing itself, so that its modules do.
    """
    if tool.kind == "cli":
        return _command_score(record, mentions)
    module, _, path = tool.qualname.partition(":")
    name = path.rpartition(".")[2]
    depth = module.count(".")
    level = max(0, depth - 1) if thin else depth
    made = 3.0 - 1.5 * level if module.split(".")[0] == package else 0.0
    made += 1.0 if record["listed"] else -0.5
    made += 1.0 if record["doc"] else 0.0
    made += 1.5 if has_example else 0.0
    word = path.partition(".")[0] if tool.kind == "class" else name
    if len(word) > 2:
        made += min(4.0, 3.0 + math.log2(mentions.calls[word])) if mentions.calls[word] else 0.0
        made += 1.5 if mentions.readme[word] else 0.0
        made += min(2.5, 0.6 * math.log2(1 + mentions.docs[word]))
        used = math.log2(max(1, mentions.examples[word]))  # its own docstring is one
        made += min(4.0, used) if tool.kind in ("function", "class") else min(1.0, used / 4)
    made += _kind_score(tool, record, mentions, path)
    made += 1.0 if tool.kind == "function" and module == package else 0.0
    made -= 2.0 if _WEAK.search(name) else 0.0
    made += 0.6 if _STRONG.search(name) else 0.0
    made += 0.5 * math.log2(1 + len(record["doc"]) / 400)
    made -= 2.0 if _BACKSTAGE & set(module.split(".")[1:]) else 0.0
    about = (
        record["doc"][:300]
        if tool.kind != "method"
        else f"{record['doc'][:300]} {record.get('class_doc', '')[:200]}"
    )
    made -= 3.0 if re.search(r"\bdeprecated\b", about, re.I) else 0.0
    made -= (
        5.0 if ":meta private:" in record["doc"] else 2.0 if _INTERNAL.search(record["doc"][:200]) else 0.0
    )
    for parameter in (*tool.parameters, *tool.constructor):
        if parameter.required and parameter.kind not in ("varargs", "varkw"):
            k = parameter.type.get("k")
            made -= 3.0 if k in _HARD else 1.0 if k == "object" else 0.0
            made -= (
                2.0 if _TAKES_CODE.fullmatch(parameter.name) and k in ("any", "callable", "class") else 0.0
            )
    made -= 1.5 if record.get("unknown") else 0.0
    open_ones = sum(1 for each in tool.parameters if each.required and each.type.get("k") == "any")
    return made - 0.15 * open_ones


def is_quiet(tool: Tool, record: dict[str, Any], mentions: Mentions, package: str) -> bool:
    """Whether nothing says what a callable is for: no docstring, no word of it in what users read.

    What the package's top level itself offers is never quiet: being put there says enough.
    """
    module = tool.qualname.partition(":")[0]
    if tool.kind in ("function", "class") and module == package and record["listed"]:
        return False
    if tool.kind == "cli" or record["doc"].strip() or (tool.kind == "class" and record.get("init_doc")):
        return False
    name = tool.qualname.rpartition(":")[2].rpartition(".")[2]
    return not (len(name) > 2 and (mentions.readme[name] or mentions.docs[name] or mentions.examples[name]))


def _kind_score(tool: Tool, record: dict[str, Any], mentions: Mentions, path: str) -> float:
    if tool.kind == "function":
        return 1.5
    owner = path.partition(".")[0]
    if tool.kind == "class":
        fields = {parameter.name for parameter in tool.parameters}
        made = 2.0 if fields and mentions.calls[owner] else -1.5
        return made + (2.0 if owner.lower() == tool.qualname.partition(":")[0].lower() else 0.0)
    made = 0.5 if not tool.constructor and tool.init_property is None else 0.0
    made += 1.5 if mentions.readme[owner] else -0.5
    if record.get("foreign"):
        return made - 4.0  # what a class has from another library's, that library's users know
    inherited = 0.5 if mentions.readme[owner] else 1.5
    return made - (0.0 if record.get("direct", True) else inherited)


def _command_score(record: dict[str, Any], mentions: Mentions) -> float:
    line = " ".join([record["script"], *record["sub"]])
    made = 8.0 if not record["sub"] else 7.5 - 1.0 * len(record["sub"])
    made += 2.0 if line in mentions.text else 0.0
    return made - (4.0 if record.get("group") and record["sub"] else 0.0)


def is_thin(records: Sequence[dict[str, Any]], package: str) -> bool:
    """Whether a package's own top level offers less than a tenth of its functions, or hardly any."""
    functions = [record for record in records if record["kind"] == "function"]
    top = [record for record in functions if record["qualname"].startswith(package + ":")]
    return len(top) < 3 or len(top) * 10 < len(functions)


def choose(
    scored: Sequence[tuple[Tool, float]], most: int = MOST, quiet: Set[str] = frozenset()
) -> list[str]:
    """The names of the tools to show, best first: at most ``most``, commands at most a share of them.

    Chosen one by one, as maximal marginal relevance does (Carbonell and Goldstein, 1998): every further method of
    a class is worth a little less, and a method that another class has shown already a good deal less.

    :param quiet: tools that fill up a short list, and never a long one.
    """
    shown: list[str] = []
    commands = 0
    spare = max(0, SHORT - sum(tool.name not in quiet for tool, _ in scored))
    owners: Counter[str] = Counter()
    methods: Counter[str] = Counter()
    waiting = [(-points, tool.name, points, tool) for tool, points in scored]
    heapq.heapify(waiting)
    while waiting and len(shown) < most:
        key, name, points, tool = heapq.heappop(waiting)
        owner, method = _method(tool)
        worth = points
        if owner:
            worth -= EACH_METHOD * max(0, owners[owner] - FREE_METHODS) + SAME_METHOD * methods[method]
        if -worth > key + 1e-9:  # it has lost since it was put here
            heapq.heappush(waiting, (-worth, name, points, tool))
            continue
        if tool.kind == "cli":
            if commands >= MOST_COMMANDS:
                continue
            commands += 1
        if tool.name in quiet:
            if not spare:
                continue
            spare -= 1
        if owner:
            owners[owner] += 1
            methods[method] += 1
        shown.append(tool.name)
    return shown


def _method(tool: Tool) -> tuple[str, str]:
    """The class that a tool is a method of, with its module, and the method's own name; empty for others."""
    if tool.kind != "method":
        return "", ""
    owner, _, method = tool.qualname.rpartition(".")
    return owner, method
