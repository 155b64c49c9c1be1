"""Which of the given tools a request calls for: what speaks for each, as numbers.

Every clause is held against every tool, by shared words and, where there is a model, by meaning. The
columns in FEATURES compare a tool with the others of the same request; none names a tool or a word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from registry.document import words_of
from registry.lexical.tokens import STOPWORDS
from router.plan import Definition
from router.planner.rules.reading import Reading
from router.planner.rules.spans import stems_of

Matrix = list[list[float]]
Similar = Callable[[Sequence[str], Sequence[str]], Matrix]
"""Cosines of each of the first texts (of a request) with each of the second (of tools)."""

MAX_CLAUSE_WORDS: Final = 40
MAX_REQUEST_WORDS: Final = 60
MAX_TOOL_WORDS: Final = 24
MAX_VERB: Final = 30
"""Characters of a description that its first word is looked for in."""
SHARED: Final = 6
"""Words that the descriptions of several tools begin with alike, from which on they tell nothing."""
SEVERAL: Final = 3
"""Tools from which on what their descriptions share is left out."""

_VIEWS: Final = ("cos", "lex", "mix")
FEATURES: Final = (
    *(
        f"{view}_{name}"
        for view in _VIEWS
        for name in ("whole", "best", "mean", "rank", "gap", "wins", "margin", "top", "z", "second")
    ),
    "name_in_request",
    "name_in_clause",
    "about_in_clause",
    "clause_in_tool",
    "verb",
    "params_in_clause",
    "clauses",
    "needed",
    "needed_numbers",
    "numbers",
    "values",
    "open_needs",
)
GROWS: Final = frozenset(
    (
        *(
            f"{view}_{name}"
            for view in _VIEWS
            for name in ("whole", "best", "mean", "gap", "margin", "top", "z")
        ),
        "name_in_request",
        "name_in_clause",
        "about_in_clause",
        "clause_in_tool",
        "verb",
        "params_in_clause",
    )
)
"""Numbers that never speak against a tool the greater they are, whatever was learned from."""
FALLS: Final = frozenset((*(f"{view}_rank" for view in _VIEWS), "open_needs"))
"""Numbers that never speak for it."""


@dataclass(frozen=True, slots=True)
class ToolText:
    """The words of a tool.

    :param name: stems of its name; ``about`` of its description, ``params`` of its parameters' names.
    :param line: name and the beginning of the description, for the model.
    """

    name: frozenset[str]
    about: frozenset[str]
    params: frozenset[str]
    verb: str
    line: str
    needed: int
    needed_numbers: int


@lru_cache(maxsize=4096)
def _text(name: str, description: str) -> tuple[frozenset[str], frozenset[str], str, str]:
    names = [word for word in stems_of(name) if len(word) > 1]
    about = frozenset(word for word in stems_of(description[:600]) if word not in STOPWORDS)
    line = f"{words_of(name).lower()}: {' '.join(description.split()[:MAX_TOOL_WORDS])}"
    return frozenset(names) - STOPWORDS, about, names[0] if names else "", line


def text_of(tool: Definition) -> ToolText:
    """The words of a tool, kept for the next request."""
    name, about, verb, line = _text(tool.name, tool.description)
    properties = tool.input_schema.get("properties")
    params: set[str] = set()
    numbers = 0
    required = tool.input_schema.get("required")
    needed = [key for key in required if isinstance(key, str)] if isinstance(required, list) else []
    if isinstance(properties, dict):
        for key, part in list(properties.items())[:40]:
            params.update(stems_of(str(key)))
            if key in needed and isinstance(part, dict) and part.get("type") in ("integer", "number"):
                numbers += 1
    return ToolText(name, about, frozenset(params - STOPWORDS), verb, line, len(needed), numbers)


def verbs_of(tools: Iterable[Definition]) -> frozenset[str]:
    """The verbs that tools are named for and described with: "Sound the alarm of a city." of ``sound_alarm``."""
    found = set()
    for tool in tools:
        verb = words_of(tool.name).lower().partition(" ")[0]
        said = tool.description[:MAX_VERB].lower().partition(" ")[0]
        if verb.isalpha() and said in (verb, f"{verb}s", f"{verb}es"):
            found.add(verb)
    return frozenset(found)


def told_apart(tools: Sequence[Definition]) -> Sequence[Definition]:
    """Tools without what the descriptions of several of them begin with.

    "This tool belongs to the Message API, which …" before every description is true of each and tells none from
    the others, and what is compared is the beginning.
    """
    alike: dict[tuple[str, ...], list[int]] = {}
    said = [tool.description.split() for tool in tools]
    for index, words in enumerate(said):
        if len(words) > SHARED:
            alike.setdefault(tuple(words[:SHARED]), []).append(index)
    out = list(tools)
    for same in alike.values():
        if len(same) >= SEVERAL:
            columns = enumerate(zip(*(said[index] for index in same), strict=False))
            shared = next((at for at, words in columns if len(set(words)) > 1), 0)
            for index in same:
                out[index] = replace(tools[index], description=" ".join(said[index][shared:]))
    return out


@dataclass(frozen=True, slots=True)
class Sight:
    """A request held against tools.

    :param rows: for each tool its numbers, in the order of FEATURES.
    :param near: for each clause and tool, how near they are: shared words and meaning together.
    """

    rows: tuple[tuple[float, ...], ...]
    near: Matrix


def look(
    reading: Reading, tools: Sequence[Definition], similar: Similar | None, rarity: dict[str, float]
) -> Sight:
    """Hold a request against tools.

    :param similar: closeness in meaning; None where there is no model.
    :param rarity: how much a stem tells; those it lacks are rare.
    """
    texts = [text_of(tool) for tool in tools]
    clauses = reading.clauses
    lex = [[_overlap(clause.stems, text, rarity) for text in texts] for clause in clauses]
    every = tuple(dict.fromkeys(stem for clause in clauses for stem in clause.stems))
    whole_lex = [_overlap(every, text, rarity) for text in texts]
    if similar is None:
        cos, whole_cos = [[0.0] * len(tools) for _ in clauses], [0.0] * len(tools)
        mix, whole_mix = lex, whole_lex
    else:
        head = " ".join(reading.text.split()[:MAX_REQUEST_WORDS])
        asked = [" ".join(clause.text.split()[:MAX_CLAUSE_WORDS]) for clause in clauses]
        # Rounded, because what is encoded together changes the last digits, and a plan hangs on them.
        found = [[round(c, 4) for c in row] for row in similar([*asked, head], [t.line for t in texts])]
        cos, whole_cos = found[:-1], found[-1]
        mix = [[0.6 * c + 0.4 * w for c, w in zip(a, b, strict=True)] for a, b in zip(cos, lex, strict=True)]
        whole_mix = [0.6 * c + 0.4 * w for c, w in zip(whole_cos, whole_lex, strict=True)]
    numbers = sum(1 for span in reading.spans if span.kind == "number")
    values = sum(
        1
        for span in reading.spans
        if span.kind in ("quoted", "number", "date", "time", "name", "email", "url", "id")
    )
    views = [
        _view(part, whole, len(tools))
        for part, whole in ((cos, whole_cos), (lex, whole_lex), (mix, whole_mix))
    ]
    rows = []
    for index, text in enumerate(texts):
        best = max(range(len(clauses)), key=lambda c: mix[c][index])
        stems = set(clauses[best].stems)
        request = set(every)
        rows.append(
            (
                *views[0][index],
                *views[1][index],
                *views[2][index],
                _covered(text.name, request, rarity),
                _covered(text.name, stems, rarity),
                _covered(text.about, stems, rarity),
                _covered(frozenset(stems), text.name | text.about, rarity),
                float(text.verb in stems),
                _covered(text.params, stems, rarity),
                float(len(clauses)),
                float(text.needed),
                float(text.needed_numbers),
                float(numbers),
                float(values),
                float(text.needed_numbers - numbers),
            )
        )
    return Sight(tuple(rows), mix)


def _weight(stem: str, rarity: dict[str, float]) -> float:
    return rarity.get(stem, 1.0)


def _overlap(stems: Sequence[str], text: ToolText, rarity: dict[str, float]) -> float:
    """Shared words, those of the tool's name twice, over the geometric mean of what each side has."""
    if not stems:
        return 0.0
    have = set(stems)
    shared = math.fsum(_weight(s, rarity) for s in have & text.about) + 2 * math.fsum(
        _weight(s, rarity) for s in have & text.name
    )
    shared += 0.3 * math.fsum(_weight(s, rarity) for s in have & text.params)
    mass = math.fsum(_weight(s, rarity) for s in text.about) + 2 * math.fsum(
        _weight(s, rarity) for s in text.name
    )
    own = math.fsum(_weight(s, rarity) for s in have)
    return min(1.5, shared / math.sqrt(max(mass, 1.0) * max(own, 1.0)))


def _covered(wanted: frozenset[str], have: set[str] | frozenset[str], rarity: dict[str, float]) -> float:
    mass = math.fsum(_weight(s, rarity) for s in wanted)
    return math.fsum(_weight(s, rarity) for s in wanted if s in have) / mass if mass else 0.0


def _view(part: Matrix, whole: Sequence[float], tools: int) -> list[tuple[float, ...]]:
    """Ten numbers a tool: how near its best clause is, and how it compares with the other tools."""
    peak = [max(row[t] for row in part) for t in range(tools)]
    order = sorted(range(tools), key=lambda t: -peak[t])
    rank = {t: float(i) for i, t in enumerate(order)}
    mean = sum(peak) / tools
    spread = math.sqrt(sum((p - mean) ** 2 for p in peak) / tools) or 1.0
    out: list[tuple[float, ...]] = []
    for t in range(tools):
        best = max(part, key=lambda row: row[t])
        others = max((value for i, value in enumerate(best) if i != t), default=0.0)
        wins = [row for row in part if row[t] >= max(row)]
        margins = [row[t] - max((v for i, v in enumerate(row) if i != t), default=0.0) for row in part]
        ranked = sorted((row[t] for row in part), reverse=True)
        out.append(
            (
                whole[t],
                peak[t],
                sum(row[t] for row in part) / len(part),
                rank[t],
                best[t] - others,
                float(len(wins)),
                max(margins),
                peak[t] - peak[order[0]],
                (peak[t] - mean) / spread,
                ranked[1] if len(ranked) > 1 else 0.0,
            )
        )
    return out
