"""What a catalog is about, in a few lines: for the description of ``find_tools``.

Where there are few servers, each is a topic. Else topics are the words that cover the catalog:
greedy maximum coverage (Nemhauser, Wolsey, Fisher, 1978), each step taking the word that stands for
the most tools which no earlier word stands for. It depends on the tools alone: the same catalog gives
the same lines, in any order and in any process, without a model.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from registry.document import words_of
from registry.lexical.stem import stem
from registry.lexical.tokens import STOPWORDS

COUNT: Final = 12
TERMS: Final = 4
_WORD: Final = re.compile(r"[^\W\d_]{3,24}")
_WIDEST: Final = 0.3
"""A word that more of the tools share tells no part of the catalog from another."""
_SAID_BY_ALL: Final = (
    "get list search find fetch create make update delete remove add set put post send read write show "
    "check return retrieve allow enable perform execute run call use using user based given specific "
    "specified various available current new all single multiple detail details data info information "
    "result results tool tools api apis endpoint request response query value values type name names "
    "item items number string object parameter optional default support include provide version service "
    "server via per manage obtain view load submit generate calculate"
)
_GENERIC: Final = frozenset(map(stem, _SAID_BY_ALL.split()))
"""Words of which no part of a catalog is made."""


class Described(NamedTuple):
    """What is read of a tool: names. Descriptions share too much that says nothing."""

    server: str
    name: str


@dataclass(frozen=True, slots=True)
class Topic:
    """A part of a catalog.

    :param label: a server's name, or the word that stands for it.
    :param tools: how many tools it has.
    :param terms: what else they speak of, most telling first.
    """

    label: str
    tools: int
    terms: tuple[str, ...]


def topics(tools: Iterable[Described], count: int = COUNT) -> list[Topic]:
    """At most ``count`` topics, largest first."""
    known = sorted(tools)
    by_server: dict[str, list[int]] = {}
    for place, tool in enumerate(known):
        by_server.setdefault(tool.server, []).append(place)
    words = [_words(tool) for tool in known]
    spelled = _spellings(words)
    spread = Counter(base for found in words for base in found)
    if len(by_server) <= count:
        found = [
            Topic(server, len(places), _terms(places, words, spread, len(known), spelled, server))
            for server, places in by_server.items()
        ]
    else:
        found = _covering(words, spread, spelled, count)
    return sorted(found, key=lambda topic: (-topic.tools, topic.label))


def _words(tool: Described) -> dict[str, str]:
    """The telling words of a tool: by stem, as they are spelled first."""
    found: dict[str, str] = {}
    for word in _WORD.findall(f"{words_of(tool.name)} {words_of(_own(tool.server))}".lower()):
        base = stem(word)
        if word not in STOPWORDS and base not in _GENERIC:
            found.setdefault(base, word)
    return found


def _own(server: str) -> str:
    """A server's name without the namespace that many share, as ``org.example/weather`` has one."""
    return server.rpartition("/")[2]


def _spellings(words: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """For each stem the spelling most tools use; of several the first in the alphabet."""
    counts: dict[str, Counter[str]] = {}
    for found in words:
        for base, word in found.items():
            counts.setdefault(base, Counter())[word] += 1
    return {base: min(seen, key=lambda word: (-seen[word], word)) for base, seen in counts.items()}


def _terms(
    places: Sequence[int],
    words: Sequence[Mapping[str, str]],
    spread: Mapping[str, int],
    total: int,
    spelled: Mapping[str, str],
    label: str,
) -> tuple[str, ...]:
    """What these tools speak of more than all do: count times inverse document frequency."""
    said = {stem(word) for word in _WORD.findall(words_of(label).lower())}
    counts = Counter(base for place in places for base in words[place] if base not in said)
    worth = {base: n * math.log(1.0 + total / spread[base]) for base, n in counts.items()}
    best = sorted(worth, key=lambda base: (-worth[base], base))[:TERMS]
    return tuple(spelled[base] for base in best)


def _covering(
    words: Sequence[Mapping[str, str]], spread: Mapping[str, int], spelled: Mapping[str, str], count: int
) -> list[Topic]:
    total = len(words)
    holders: dict[str, set[int]] = {}
    for place, found in enumerate(words):
        for base in found:
            if 2 <= spread[base] <= max(2.0, _WIDEST * total):
                holders.setdefault(base, set()).add(place)
    covered: set[int] = set()
    chosen: list[Topic] = []
    while holders and len(chosen) < count:
        base = max(sorted(holders), key=lambda word: len(holders[word] - covered))
        places = sorted(holders.pop(base))
        if covered.issuperset(places):
            break
        chosen.append(
            Topic(spelled[base], len(places), _terms(places, words, spread, total, spelled, spelled[base]))
        )
        covered.update(places)
    return chosen
