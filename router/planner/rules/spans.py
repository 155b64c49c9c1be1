"""The parts of a request that may be values: typed spans, found without a model.

    spans("Email 'Hi' to ann@example.com at 5 pm").of  # quoted, email, time …

Every kind is found by itself and spans overlap freely: which one a parameter takes is decided later,
by what it is and by what stands around it.
"""

# ruff: noqa: RUF001, SIM905  (word lists, and the quotes and signs that people type)
from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from registry.document import words_of
from registry.lexical.stem import stem
from router.planner.rules.moments import Moment, moments
from router.planner.rules.numerals import NUMBER, ORDINALS, SPELLED, number_of, spelled

MAX_TEXT: Final = 6000
"""Characters of a request that are read."""
MAX_SPANS: Final = 400
MAX_OPENINGS: Final = 100
"""Brackets that are tried as the beginning of JSON."""

WORD: Final = re.compile(r"[^\W_]+(?:[-'’_.&@/][^\W_]+)*|[^\s]")
_QUOTED: Final = re.compile(
    r"\"([^\"\n]{1,400})\"|“([^”\n]{1,400})”|(?<!\w)'((?:[^'\n]|(?<=\w)'(?=\w)){1,400}?)'(?!\w)|`([^`\n]{1,400})`"
    r"|«([^»\n]{1,400})»|(?<!\w)‘([^’\n]{1,400})’(?!\w)"
)
_URL: Final = re.compile(
    r"\b(?:https?|ftp|postgres(?:ql)?|mysql|redis|s3|file)://[^\s\"'<>]+|\bwww\.[^\s\"'<>]+"
)
_EMAIL: Final = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_PATH: Final = re.compile(
    r"(?<![\w/.])(?:~?/[\w.@~-]+(?:/[\w.@~-]*)*|[A-Za-z]:\\[\w\\.-]+|[\w-]+(?:/[\w-]+)*\.[A-Za-z]\w{1,4})(?!\w)"
)
_ORDINAL: Final = re.compile(rf"\b(?:{'|'.join(ORDINALS)})(?=\s+[a-z])", re.IGNORECASE)
_TITLED: Final = re.compile(r"\b(?:Dr|Mr|Mrs|Ms|Prof|St)\.\s+[A-Z][\w'’-]*(?:\s+[A-Z][\w'’-]*)*")
_OWNER: Final = re.compile(r"\b[A-Z][\w-]*(?:\s+[A-Z][\w-]*)*(?=['’]s\b)")
_MARKUP: Final = re.compile(r"<([A-Za-z][\w:.-]*)(?:\s[^<>]*)?/?>(?:.*</\1\s*>)?", re.DOTALL)
_CHUNK: Final = re.compile(r"[^\s,;\"“”‘’`<>(){}\[\]]+")
"""What stands between spaces: ``#ff4500``, ``01:23:45``, ``user_id``."""
_SHORTCODE: Final = re.compile(r":\w+:")
_INSIDE: Final = re.compile(r"\w[^\w\s'’-]+\w|_|#\w|:\w+:")
_SIGN: Final = re.compile(r"[^\s\d.,%-]")
_FORMULA: Final = re.compile(
    r"(?<![^\s:=])[\d(*+/.-][^\sA-Za-z\"'“”‘’`,;:!?]*(?:\s+[^\sA-Za-z\"'“”‘’`,;:!?]+)*(?![^\s?!.,;:])"
)
"""Signs and numbers in a row without a word: ``(5 + 10) * 3``, ``*/15 * * * *``."""
_ADDRESS: Final = re.compile(r"(?<![\w.])\d+(?:\.\d+){2,}(?![\w.]*\w)")
"""An address or a version: several dots."""
_LITERAL: Final = re.compile(
    r"\[[^\[\]\n]{0,600}\]|\[(?:\s*\[[^\[\]]*\]\s*,?)+\s*\]|\{[^{}\n]{1,600}\}"
    r"|\((?:\s*[-+]?\d+(?:\.\d+)?\s*,){1,8}\s*[-+]?\d+(?:\.\d+)?\s*\)"
)
_BESIDE: Final = re.compile(
    r",?\s+(?:(?:morning|afternoon|evening|night),?\s+)?(?:(?:at|on|from|around)\s+)?"
)
"""What may stand between a day and its time."""
_OPENING: Final = re.compile(r"[\[{]")
_DECODER: Final = json.JSONDecoder()
_BREAKS: Final = frozenset(
    (
        "in on at to from for with by of about as into onto over under between during within "
        "without using via through near around after before since until till per and or but than "
        "that which who whose where when while if so then is are was were be been being has have "
        "had do does did can could will would should may might must i you we they he she it this "
        "these those please me my your our their his her its them us named called titled labeled "
        'labelled entitled saying says . , ; : ! ? ( ) [ ] { } < > * + / ^ ~ " “ ” | – — also want need like '
        "get find show tell give let make check see know help what how ' ‘ ’ ` = it's i'm i'd i'll i've "
        "that's what's let's there's who's where's don't it’s i’m i’d i’ll i’ve that’s what’s let’s "
        "a an the also additionally finally lastly furthermore moreover however hi hello hey sure yes no thanks "
        "thank ok okay sorry"
    ).split()
)
_LEADS: Final = frozenset(
    (
        "the a an my your our their his her its this that these those some any all both each "
        "every please is are was were new current specific particular"
    ).split()
)
_JOINTS: Final = frozenset("of and in for to with , on at & a an the".split())
"""What joins two phrases to a longer one."""
NAMERS: Final = frozenset(("named called titled labeled labelled entitled saying says reads").split())


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a request that may be a value.

    :param kind: ``quoted``, ``url``, ``email``, ``path``, ``number``, ``date``, ``time``, ``datetime``,
        ``relative``, ``id``, ``name``, ``phrase``, ``tail``, ``line`` or ``list``, which may be an object.
    :param value: the number, Moment, list or object it stands for; the text itself otherwise.
    :param start: position in the request of its first character, quotes left out.
    """

    text: str
    kind: str
    start: int
    end: int
    value: Any


@dataclass(frozen=True, slots=True)
class Word:
    """A word or a sign of a text with its stem."""

    text: str
    lower: str
    stem: str
    start: int
    end: int


@lru_cache(maxsize=8192)
def stems_of(text: str) -> tuple[str, ...]:
    """The stems of an identifier or of a text, stop words and all."""
    return tuple(stem(word) for word in re.findall(r"[^\W_]+", words_of(text).lower()))


def words(text: str) -> list[Word]:
    """The words and signs of a text."""
    return [
        Word(m.group(), low := m.group().lower(), stem(low), m.start(), m.end()) for m in WORD.finditer(text)
    ]


def spans(text: str, tokens: list[Word] | None = None) -> list[Span]:
    """Every span of a text that may be a value, each text at one place once."""
    text = text[:MAX_TEXT]
    tokens = words(text) if tokens is None else tokens
    found: list[Span] = []
    seen: set[tuple[int, int, str]] = set()

    def add(start: int, end: int, kind: str, value: Any = None) -> None:
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        group = "number" if kind == "number" else "moment" if isinstance(value, Moment) else "text"
        if kind == "phrase" and not any(char.isalnum() for char in text[start:end]):
            return
        if start < end and (start, end, group) not in seen and len(found) < MAX_SPANS:
            seen.add((start, end, group))
            part = text[start:end]
            found.append(Span(part, kind, start, end, part if value is None else value))

    for match in _QUOTED.finditer(text):
        group = match.lastindex or 1
        said = match.group(group).rstrip(" ,")
        # English puts the sentence's full stop inside the quotes; a single word has none of its own.
        add(match.start(group), match.end(group), "quoted", said if " " in said else said.rstrip("."))
    at = 0
    for _ in range(MAX_OPENINGS):
        opening = _OPENING.search(text, at)
        if opening is None:
            break
        try:
            value, at = _DECODER.raw_decode(text, opening.start())
            add(opening.start(), at, "list", value)
        except (ValueError, RecursionError):
            at = opening.end()
    for match in _LITERAL.finditer(text):
        items = literal(match.group())
        if items is not None:
            add(*match.span(), "list", items)
    for pattern, kind in ((_URL, "url"), (_EMAIL, "email"), (_ADDRESS, "id"), (_PATH, "path")):
        for match in pattern.finditer(text):
            add(match.start(), match.start() + len(match.group().rstrip(".,;:!?)")), kind)
    times = moments(text)
    for moment in times:
        add(moment.start, moment.end, moment.kind, moment)
    for first, second in itertools.pairwise(times):
        beside = {first.kind, second.kind} == {"relative", "time"}
        if beside and _BESIDE.fullmatch(text, first.end, second.start):
            add(first.start, second.end, "datetime")
    for match in NUMBER.finditer(text):
        add(match.start(), match.end(), "number", number_of(match))
    for match in SPELLED.finditer(text):
        number = spelled(match.group())
        if number is not None:
            add(*match.span(), "number", number)
    for match in _ORDINAL.finditer(text):
        add(*match.span(), "number", ORDINALS[match.group().lower()])
    _signs(text, {(span.start, span.end) for span in found}, add)
    for pattern in (_TITLED, _OWNER):
        for match in pattern.finditer(text):
            if match.group().lower() not in _BREAKS:
                add(*match.span(), "name")
    _wordy(text, tokens, add)
    return found


def _signs(text: str, known: set[tuple[int, int]], add: Any) -> None:
    """Markup, formulas, and what stands between spaces and is no plain word."""
    for match in _MARKUP.finditer(text):
        add(*match.span(), "id")
    for match in _FORMULA.finditer(text):
        end = match.start() + len(match.group().rstrip("."))
        if (match.start(), end) not in known and _SIGN.search(match.group()):
            add(match.start(), end, "id")
    for match in _CHUNK.finditer(text):
        end = (
            match.end()
            if _SHORTCODE.fullmatch(match.group())
            else match.start() + len(match.group().rstrip(".:!?'"))
        )
        if (match.start(), end) not in known and _INSIDE.search(text, match.start(), end):
            add(match.start(), end, "id")


def literal(text: str) -> list[Any] | dict[str, Any] | None:
    """A list or an object as a person types it: ``[1, 2]``, ``(1, 2)``, ``['a', 'b']``, ``[a, b]``, ``{'a': 1}``."""
    if text[0] == "(":
        text = f"[{text[1:-1]}]"
    for form in (text, text.replace("'", '"')):
        try:
            value = json.loads(form)
        except ValueError:
            continue
        return value if isinstance(value, list | dict) else None
    if text[0] == "{":
        return None
    inner = [item.strip(" '\"") for item in text[1:-1].split(",")]
    return [item for item in inner if item] if "[" not in text[1:] else None


def _wordy(text: str, tokens: list[Word], add: Any) -> None:
    """Names, identifiers, phrases between function words, tails of clauses, and short lines."""
    runs: list[tuple[int, int]] = []
    at = 0
    while at < len(tokens):
        end = at
        while (
            end < len(tokens)
            and not _breaks(tokens, end)
            and (end == at or "\n" not in text[tokens[end - 1].end : tokens[end].start])
        ):
            end += 1
        if end > at:
            runs.append((at, end))
        at = max(end, at + 1)
    for first, last in runs:
        _phrases(tokens, first, last, add)
    _chains(text, tokens, runs, add)
    for (a, b), (c, d) in itertools.pairwise(runs):
        joint = [token for token in tokens[b:c] if token.lower not in ("a", "an", "the")] or tokens[b:c]
        if len(joint) == 1 and joint[0].lower in _JOINTS:
            start = _led(tokens, a, b)
            add(tokens[start].start, tokens[d - 1].end, "phrase")
            capital = next((i for i in range(start, b) if tokens[i].text[:1].isupper()), None)
            if capital is not None and capital > start:
                add(tokens[capital].start, tokens[d - 1].end, "phrase")
    for index, token in enumerate(tokens):
        mixed = any(c.isdigit() for c in token.text) and any(c.isalpha() for c in token.text)
        if mixed or (token.text.isdigit() and len(token.text) > 3):
            add(token.start, token.end, "id")
        opens = (
            token.lower in NAMERS
            or token.lower in ("about", "for", "of", "with", "on")
            or (token.text == ":" and text[token.end : token.end + 1].isspace())
        )
        if opens and index + 1 < len(tokens):
            stop = re.compile(r"[\n;]|[.!?](?=\s|$)").search(text, tokens[index + 1].start)
            end_at = stop.start() if stop else len(text)
            if 0 < end_at - tokens[index + 1].start <= 300:
                start_at = tokens[index + 1].start
                if tokens[index + 1].lower in _LEADS and index + 2 < len(tokens):
                    add(tokens[index + 2].start, end_at, "tail")
                add(start_at, end_at, "tail")
    if "\n" in text:
        for match in re.finditer(r"[^\n]+", text):
            line = match.group().rstrip(" .!?")
            if len(line.split()) <= 12:
                add(match.start(), match.start() + len(line), "line")
            add(*match.span(), "line")


def _chains(text: str, tokens: list[Word], runs: list[tuple[int, int]], add: Any) -> None:
    """Names and numbers joined by commas alone, of three and more: an address."""
    at = 0
    while at < len(runs):
        last = at
        while (
            last + 1 < len(runs)
            and text[tokens[runs[last][1] - 1].end : tokens[runs[last + 1][0]].start].strip() == ","
            and not tokens[runs[last + 1][0]].text[:1].islower()
        ):
            last += 1
        if last - at > 1:
            add(tokens[_led(tokens, *runs[at])].start, tokens[runs[last][1] - 1].end, "phrase")
        at = last + 1


def _breaks(tokens: list[Word], at: int) -> bool:
    """Whether a phrase ends before a word; a capital inside a sentence makes a function word a name."""
    token = tokens[at]
    if token.lower not in _BREAKS:
        return False
    return not (token.text[0].isupper() and len(token.text) > 1 and at and tokens[at - 1].text not in ".!?:;")


def _led(tokens: list[Word], first: int, last: int) -> int:
    """Where a phrase begins after its articles and the like; the "New" of "New York" is none."""
    while first < last and tokens[first].lower in _LEADS:
        if not tokens[first].text.islower() and first + 1 < last and tokens[first + 1].text[0].isupper():
            break
        first += 1
    return first


def _phrases(tokens: list[Word], first: int, last: int, add: Any) -> None:
    first = _led(tokens, first, last)
    if first == last:
        return
    add(tokens[first].start, tokens[last - 1].end, "phrase")
    at = first
    while at < last:
        end = at
        while end < last and (
            tokens[end].text[:1].isupper() or (end > at and tokens[end].text[:1].isdigit())
        ):
            end += 1
        if end > at:
            add(tokens[at].start, tokens[end - 1].end, "name")
            if end - at > 1:
                add(tokens[at + 1].start, tokens[end - 1].end, "name")
        at = max(end, at + 1)
    size = last - first
    for length in range(1, min(4, size)):
        add(tokens[last - length].start, tokens[last - 1].end, "phrase")
        add(tokens[first].start, tokens[first + length - 1].end, "phrase")
    if size > 2:
        for middle in range(first + 1, last - 1):
            add(tokens[middle].start, tokens[middle].end, "phrase")
