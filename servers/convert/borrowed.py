"""Arguments for what refused all that was made up: what the tools beside it were called with, and answered.

A decoder takes what its encoder gives, a parser what its writer writes, and a parameter of one name means
the same throughout a package.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from servers.convert.trials import Trial, made_up
from servers.manifest.records import Evidence, Parameter, Tool

MOST: Final = 8
"""Calls that are tried with borrowed values, for each tool."""
_LONGEST: Final = 400
"""Characters of an answer that is tried as an argument: what the manifest has cut is no answer any more."""


class Neighbours:
    """What is known of the tools that answered.

    :param known: each with the call that was made of it.
    """

    def __init__(self, known: Iterable[tuple[Tool, Evidence]]) -> None:
        self._given: dict[str, list[Any]] = {}
        self._texts: dict[str, str] = {}
        """By text: the name of the tool that answered it."""
        for tool, evidence in known:
            given = dict(evidence.arguments)
            inner = given.pop(tool.init_property, None) if tool.init_property else None
            for name, value in (*given.items(), *(inner.items() if isinstance(inner, dict) else ())):
                values = self._given.setdefault(name, [])
                if value not in values:
                    values.append(value)
            text = _text(evidence.result)
            if text is not None:
                self._texts.setdefault(text, tool.name)

    def trials(self, tool: Tool) -> Iterator[Trial]:
        """Calls with their values, at most MOST: by the parameters' names first, then with texts they answered."""
        seen: list[dict[str, Any]] = []
        for made in self._calls(tool):
            if made not in seen:
                seen.append(made)
                yield Trial(made, "neighbour")
            if len(seen) == MOST:
                return

    def _calls(self, tool: Tool) -> Iterator[dict[str, Any]]:
        for parameters, inside in ((tool.constructor, tool.init_property), (tool.parameters, None)):
            wanted = [p for p in parameters if p.required and p.kind in ("normal", "keyword", "positional")]
            for parameter in wanted:
                for value in self._given.get(parameter.name, ())[: MOST // 2]:
                    yield self._with(tool, inside, parameter, value)
            texts = [p for p in wanted if p.type.get("k") in ("str", "any")]
            for text in self._near(tool) if texts else ():
                yield self._with(tool, inside, texts[0], text)

    def _with(self, tool: Tool, inside: str | None, parameter: Parameter, value: Any) -> dict[str, Any]:
        """The call with one value borrowed, and where others are known by name, those too."""
        made = made_up(tool, 0)
        for given, parameters in (
            (made, tool.parameters),
            (made.get(tool.init_property or "", {}), tool.constructor),
        ):
            for each in parameters:
                if each.required and each.name in self._given:
                    given[each.name] = self._given[each.name][0]
        (made if inside is None else made[inside])[parameter.name] = value
        return made

    def _near(self, tool: Tool) -> list[str]:
        """Texts that were answered, those of tools whose names have most in common with this one's first."""
        own = _letters(tool.name)
        return sorted(self._texts, key=lambda text: -len(own & _letters(self._texts[text])))[:MOST]


def _letters(name: str) -> set[str]:
    """The groups of three letters in a name: ``b58encode_int`` and ``b58decode_int`` share most of theirs."""
    low = name.lower()
    return {low[i : i + 3] for i in range(len(low) - 2)}


def _text(result: str) -> str | None:
    """The text that a tool answered, where it is one, and whole."""
    if not 2 < len(result) <= _LONGEST:
        return None
    try:
        value = json.loads(result)
    except ValueError:
        return None
    return value if isinstance(value, str) and value else None
