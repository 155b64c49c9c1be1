"""Which server a URI belongs to: matching against RFC 6570 URI templates.

A template comes from a server and a URI from a client, so either may be hostile. Instead of a
backtracking regular expression the matcher moves the set of all places it could be at, kept as the
bits of one integer, through the template; a run of characters of a class is a single addition
(MatchStar: Cameron et al., "Bitwise Data Parallelism in Regular Expression Matching", PACT 2014,
section 3). The time is linear in template times URI, whatever either holds.

Matching is a little wider than expansion: ``{var}`` takes any characters but ``/``, ``?`` and
``#`` (hosts seldom percent-encode), and the parameters of ``{?a,b}`` may come in any order.
Lengths (``{var:3}``) are not checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias
from urllib.parse import quote

MAX_URI: Final = 8 * 1024
"""Bytes of a URI that is matched against templates."""
MAX_TEMPLATE: Final = 2 * 1024
"""Bytes of a template that takes part in matching."""
MAX_VARIABLES: Final = 32
"""Variables one expression may have."""
MATCH_BUDGET: Final = 400_000
"""Steps spent on one URI over all templates, about 0.1 s; a step is one character of a template
against 512 bytes of URI. Ordinary templates take 20 to 100 steps."""

_VARIABLE = re.compile(
    r"((?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})(?:[A-Za-z0-9_.]|%[0-9A-Fa-f]{2})*)(\*|:[1-9]\d{0,3})?"
)
_OPERATORS: Final = "+#./;?&=,!@|"
_RESERVED: Final = "=,!@|"
_KEPT: Final = "!#$&'()*+,/:;=?@[]~-._%"
_BITS: Final = tuple(bytes(49 if byte == wanted else 48 for byte in range(256)) for wanted in range(256))


def _table(excluded: bytes) -> bytes:
    return bytes(48 if byte in excluded else 49 for byte in range(256))


_ANY: Final = _table(b"")
_SEGMENT: Final = _table(b"/?#")
_PATH: Final = _table(b"?#")
_QUERY: Final = _table(b"&#")
_BEFORE_FRAGMENT: Final = _table(b"#")
_MATRIX: Final = _table(b"/?#;")


class TemplateError(ValueError):
    """A template that RFC 6570 does not allow, or beyond the limits here."""


class _Subject:
    """A URI, and for each character class the places where one of its members stands."""

    __slots__ = ("_masks", "_reversed", "end", "uri")

    def __init__(self, uri: bytes) -> None:
        self.uri = uri
        self.end = 1 << len(uri)
        self._reversed = uri[::-1]
        self._masks: dict[bytes, int] = {}

    def mask(self, table: bytes) -> int:
        found = self._masks.get(table)
        if found is None:
            bits = self._reversed.translate(table)
            found = self._masks[table] = int(bits, 2) if bits else 0
        return found

    def star(self, places: int, table: bytes) -> int:
        """Every place reached from these over any number of members of the class."""
        mask = self.mask(table)
        return (((places & mask) + mask) ^ mask) | places

    def literal(self, places: int, text: bytes) -> int:
        for byte in text:
            places = (places & self.mask(_BITS[byte])) << 1
            if not places:
                break
        return places


_Step: TypeAlias = Callable[[_Subject, int], int]


def _literal(text: str) -> tuple[_Step, int]:
    """The literal as written, or with what a URI cannot hold percent-encoded (RFC 6570, 3.1)."""
    plain = text.encode()
    encoded = quote(text, safe=_KEPT).encode()
    if plain == encoded:
        return lambda subject, places: subject.literal(places, plain), len(plain)
    return (
        lambda subject, places: subject.literal(places, plain) | subject.literal(places, encoded),
        len(plain) + len(encoded),
    )


def _optional(lead: bytes, table: bytes, times: int) -> _Step:
    """Up to ``times`` runs of the class, each behind ``lead``."""

    def step(subject: _Subject, places: int) -> int:
        for _ in range(times):
            places |= subject.star(subject.literal(places, lead), table)
        return places

    return step


def _pairs(first: bytes, between: bytes, names: tuple[bytes, ...], table: bytes) -> _Step:
    """``name=value`` pairs in any order, at most as many as there are names."""

    def step(subject: _Subject, places: int) -> int:
        lead, reached = first, places
        for _ in names:
            start = subject.literal(reached, lead)
            now = 0
            for name in names:
                ends = subject.literal(start, name)
                now |= ends | subject.star(subject.literal(ends, b"="), table)
            if not now:
                break
            places |= now
            reached, lead = now, between
        return places

    return step


def _expression(text: str) -> tuple[_Step, int]:
    """One ``{…}`` without its braces, and what a match of it costs. Raises TemplateError."""
    operator = text[:1] if text and text[0] in _OPERATORS else ""
    if operator and operator in _RESERVED:
        raise TemplateError(f"the operator {operator!r} is reserved")
    variables = text[len(operator) :].split(",")
    if len(variables) > MAX_VARIABLES:
        raise TemplateError(f"an expression has more than {MAX_VARIABLES} variables")
    names: list[bytes] = []
    exploded = False
    for variable in variables:
        match = _VARIABLE.fullmatch(variable)
        if match is None:
            raise TemplateError(f"{variable!r} is no variable")
        names.append(match[1].encode())
        exploded = exploded or match[2] == "*"
    count = len(names)
    if operator == "":
        return lambda subject, places: subject.star(places, _SEGMENT), 1
    if operator == "+":
        return lambda subject, places: subject.star(places, _ANY), 1
    lead = operator.encode()
    if operator == "#":
        return _optional(lead, _ANY, 1), 2
    if operator == ".":
        return _optional(lead, _SEGMENT, 1), 2
    if operator == "/":
        return (_optional(lead, _PATH, 1), 2) if exploded else (_optional(lead, _SEGMENT, count), 2 * count)
    matrix = operator == ";"
    if exploded:
        # The value may be a map, whose keys are not known: any names will do.
        return _optional(lead, _PATH if matrix else _BEFORE_FRAGMENT, 1), 2
    cost = count * sum(len(name) + 3 for name in names)
    return _pairs(lead, b";" if matrix else b"&", tuple(names), _MATRIX if matrix else _QUERY), cost


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template.

    :param literals: characters outside expressions: how specific it is.
    :param cost: steps a match takes at most.
    """

    text: str
    literals: int
    cost: int
    _prefix: bytes
    _steps: tuple[_Step, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises TemplateError."""
        if len(text.encode()) > MAX_TEMPLATE:
            raise TemplateError(f"it is longer than {MAX_TEMPLATE} bytes")
        steps: list[_Step] = []
        literals = cost = 0
        prefix: str | None = None
        for index, part in enumerate(re.split(r"\{([^{}]*)\}", text)):
            if index % 2 == 0 and not part:
                prefix = part if prefix is None else prefix
                continue
            if index % 2 == 0:
                if "{" in part or "}" in part:
                    raise TemplateError("a brace has no partner")
                step, price = _literal(part)
                literals += len(part)
                prefix = part if prefix is None else prefix
            else:
                step, price = _expression(part)
            steps.append(step)
            cost += price
        # A first literal that has an encoded form too cannot serve as a quick test.
        quick = prefix.encode() if prefix and quote(prefix, safe=_KEPT) == prefix else b""
        return cls(text, literals, cost, quick, tuple(steps))

    def may_match(self, uri: bytes) -> bool:
        """A quick test that settles most templates."""
        return uri.startswith(self._prefix)

    def matches(self, uri: str | bytes) -> bool:
        """Whether some values of the variables make this URI."""
        data = uri.encode() if isinstance(uri, str) else uri
        return len(data) <= MAX_URI and self.may_match(data) and self._matches(_Subject(data))

    def _matches(self, subject: _Subject) -> bool:
        places = 1
        for step in self._steps:
            places = step(subject, places)
            if not places:
                return False
        return places & subject.end != 0


@lru_cache(maxsize=4096)
def parse(text: str) -> Template:
    """A template, parsed once. Raises TemplateError."""
    return Template.parse(text)


@dataclass(frozen=True, slots=True)
class Route:
    """A template and the server that listed it; ``rank`` is the server's place in the priority."""

    template: Template
    server: str
    rank: int


def order(routes: Iterable[Route]) -> tuple[Route, ...]:
    """Most specific first: most literal characters, then priority, then spelling."""
    return tuple(sorted(routes, key=lambda r: (-r.template.literals, r.rank, r.template.text)))


def matching(routes: Iterable[Route], uri: str, budget: int = MATCH_BUDGET) -> list[Route]:
    """The routes whose template matches, in the order given.

    None for a URI longer than MAX_URI. Matching ends when the budget is spent, so that thousands
    of costly templates cannot hold up the gateway; what matched so far is the answer.
    """
    data = uri.encode(errors="replace")
    if len(data) > MAX_URI:
        return []
    subject = _Subject(data)
    weight = 1 + len(data) // 512
    found: list[Route] = []
    for route in routes:
        if not route.template.may_match(data):
            continue
        budget -= route.template.cost * weight
        if budget < 0:
            break
        if route.template._matches(subject):
            found.append(route)
    return found
