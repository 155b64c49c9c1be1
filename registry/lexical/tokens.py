"""Text to terms, the same way for a tool's definition and for a request.

Identifiers are split (``getUserByID``, ``get_user``) and also kept whole, so that ``arXiv`` is found
by *arxiv* and *getUser* by *get the user*. Every word gives itself and its stem. Scripts that do not
separate words (Chinese, Japanese, Thai …) are cut into pairs of characters.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from registry.document import ToolDocument, words_of
from registry.lexical.stem import stem

_IDENTIFIER: Final = re.compile(r"[^\W_]+(?:[_'\u2019][^\W_]+)*")
_PIECE: Final = re.compile(r"\d+|[^\W\d_]+")
_UNSPACED: Final = re.compile(
    r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+"
)
MAX_WORD: Final = 64
"""Characters of a word that count; a longer one is a key or a blob, and no word."""

_COMMON: Final = (
    "a about above after again all also am an and any are as at be because been before being below "
    "between both but by can cannot could did do does doing down during each few for from further had "
    "has have having he her here hers herself him himself his how i if in into is it its itself just me "
    "more most my myself no nor not now of off on once only or other our ours ourselves out over own "
    "please same she should so some such than that the their theirs them themselves then there these "
    "they this those through to too under until up us very was we were what when where which while who "
    "whom why will with would you your yours yourself yourselves m d ve ll s t re "
    "additionally finally lastly furthermore moreover thanks thank "
    "need want like help assist provide tell give know"
)
STOPWORDS: Final = frozenset(_COMMON.split())
"""Words that tell no tool from another: English function words, and how people phrase a request."""

NAME_WEIGHT: Final = 3.0
"""How often a term of the tool's own name counts."""

MARK: Final = "~"
"""Begins a stem, so that it is never taken for a word. A word gives both: the stem finds *booking* by
*book*, and the word itself ranks the tool that says exactly what was asked above one merely near.
"""


def query_terms(text: str) -> list[str]:
    """The terms of a request, in order, repeats kept, without stop words.

    A request of stop words alone keeps them: they are all it has.
    """
    words = _words(text)
    kept = [word for word in words if word not in STOPWORDS]
    return [term for word in kept or words for term in _terms(word)]


def document_terms(document: ToolDocument) -> dict[str, float]:
    """The terms of a tool with their weights (term frequencies)."""
    counts: dict[str, float] = {}
    _count(counts, document.server, 1.0)
    _count(counts, document.name, NAME_WEIGHT)
    _count(counts, document.description, 1.0)
    for name, description in document.parameters:
        _count(counts, name, 1.0)
        _count(counts, description, 1.0)
    return counts


def _count(counts: dict[str, float], text: str, weight: float) -> None:
    for word in _words(text):
        if word not in STOPWORDS:
            for term in _terms(word):
                counts[term] = counts.get(term, 0.0) + weight


def _words(text: str) -> list[str]:
    """Lower-case words and identifier parts; an identifier of several parts also as a whole."""
    found: list[str] = []
    for match in _IDENTIFIER.finditer(fold(text)):
        whole = match.group().replace("\u2019", "'")
        parts = [part for piece in words_of(whole).split(" ") for part in piece.split("'") if part]
        found.extend(part.lower()[:MAX_WORD] for part in parts)
        if len(parts) > 1 and "'" not in whole:
            found.append(whole.lower().replace("_", "")[:MAX_WORD])
    return found


def fold(text: str) -> str:
    """Compatibility forms and accents folded away (Unicode TR15), ASCII as it is."""
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(char for char in decomposed if not unicodedata.combining(char))


@lru_cache(maxsize=65536)
def _terms(word: str) -> tuple[str, ...]:
    if word.isascii() or not _UNSPACED.search(word):
        return word, MARK + stem(word)
    found: list[str] = []
    for run in _UNSPACED.findall(word):
        found.extend(run[i : i + 2] for i in range(max(1, len(run) - 1)))
    found.extend(_PIECE.findall(_UNSPACED.sub(" ", word)))
    return tuple(found)
