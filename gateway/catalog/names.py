"""The names tools and prompts go by at the gateway. A name once given stays.

Clients accept ``[a-zA-Z0-9_-]{1,64}`` only, so other characters are replaced and long names are
shortened with a hash. Resources and templates keep their URIs and never come here.

How far a name depends on the order in which servers were first seen:

- ``prefix``: not at all, except where two names read alike once cleaned (``a.b`` and ``a/b``, or
  server ``x`` with ``y__z`` and server ``x__y`` with ``z``). The first to come keeps the plain
  form and the other gets a hash; with both present at once, priority decides, then spelling.
- ``on-collision``: the first server seen with a name holds it. That is what "stays" means, so it
  cannot be otherwise; servers present at once are taken in order of priority.
- ``priority``: not at all. A name is a function of the original alone, nothing is stored, and who
  owns it is settled anew at each merge.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final

from gateway.errors import ConfigError
from registry.model import AssignedName, ItemKind

MAX_NAME: Final = 64
"""Longest name that all large model APIs take for a function."""
SEPARATOR: Final = "__"
_SUFFIX: Final = 8
_OTHER = re.compile(r"[^a-zA-Z0-9_-]")
_READABLE = re.compile(r"[a-zA-Z0-9]")
_VALID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class NamePolicy(StrEnum):
    """How the tools and prompts of several servers share one space of names."""

    PREFIX = "prefix"
    """``server__tool``, always."""
    ON_COLLISION = "on-collision"
    """The plain name; ``server__tool`` where another server already holds it."""
    PRIORITY = "priority"
    """The plain name; the server with the lowest ordinal owns it, the others are shadowed."""


def is_valid(name: str) -> bool:
    """Whether a client can use the name as it is."""
    return _VALID.fullmatch(name) is not None


def clean(name: str) -> str:
    """The name with each character that clients refuse replaced by ``_``; of any length, never empty."""
    return _OTHER.sub("_", name) or "_"


def _tag(*parts: str) -> str:
    """A short hash of the parts, each told apart from the next whatever they hold."""
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _suffixed(text: str, tag: str) -> str:
    return f"{text[: MAX_NAME - len(tag) - 1]}_{tag}"


def _fitting(text: str, source: str, tag: str) -> str:
    """``text`` if it can stand for ``source`` as it is; with a hash if too long or unreadable."""
    if len(text) > MAX_NAME or (not _READABLE.search(text) and text != source):
        return _suffixed(text, tag[:_SUFFIX])
    return text


class NameBook:
    """Gives each (kind, server, original name) its exposed name, the same one every time.

    :param given: names given before, as the store kept them, under this same policy. Ones that
        clients would refuse, or that two originals share, are not taken over.

    ``fresh`` holds the names made since, for the store to save; the caller empties it. Names of
    servers that have gone stay taken, so that a server which comes back finds its own.
    """

    def __init__(self, policy: NamePolicy | str, given: Iterable[AssignedName] = ()) -> None:
        try:
            self.policy = NamePolicy(policy)
        except ValueError:
            choices = ", ".join(NamePolicy)
            raise ConfigError(f"There is no name policy {policy!r}.", f"Choose one of {choices}.") from None
        self.fresh: list[AssignedName] = []
        self._names: dict[tuple[ItemKind, str, str], str] = {}
        self._taken: set[tuple[ItemKind, str]] = set()
        if self.policy is NamePolicy.PRIORITY:
            return
        for name in given:
            key = (name.kind, name.server, name.original)
            held = (name.kind, name.exposed)
            if key not in self._names and held not in self._taken and is_valid(name.exposed):
                self._names[key] = name.exposed
                self._taken.add(held)

    def assign(self, kind: ItemKind, server: str, original: str) -> str:
        """The exposed name of an item: the one it was given, else a new one, noted in ``fresh``.

        Under ``priority`` the name depends on the original alone, so that servers share it: plain
        where valid, else cleaned and with a hash, so that two originals still never meet.
        """
        if self.policy is NamePolicy.PRIORITY:
            return original if is_valid(original) else _suffixed(clean(original), _tag(original)[:_SUFFIX])
        key = (kind, server, original)
        known = self._names.get(key)
        if known is not None:
            return known
        exposed = next(name for name in self._choices(server, original) if (kind, name) not in self._taken)
        self._names[key] = exposed
        self._taken.add((kind, exposed))
        self.fresh.append(AssignedName(kind, server, original, exposed))
        return exposed

    def _choices(self, server: str, original: str) -> Iterator[str]:
        """Names to try, best first. Ends only when 2^256 hashes are taken."""
        tag = _tag(server, original)
        prefixed = clean(server) + SEPARATOR + clean(original)
        if self.policy is NamePolicy.ON_COLLISION:
            yield _fitting(clean(original), original, tag)
        yield _fitting(prefixed, server + SEPARATOR + original, tag)
        yield _suffixed(prefixed, tag[:_SUFFIX])
        attempt = 0
        while True:
            yield _suffixed(prefixed, _tag(server, original, str(attempt))[: 2 * _SUFFIX])
            attempt += 1


def naming_order(originals: Iterable[str]) -> list[str]:
    """The order in which a server's items are to be named: those that need no change first.

    So ``a_b`` keeps its name whether or not ``a.b`` stands before it in the server's list.
    """
    return sorted(originals, key=lambda name: (not is_valid(name), name))
