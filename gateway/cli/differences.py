"""What changed between two definitions of a tool, for a person to read: a unified diff of each field."""

from __future__ import annotations

import difflib
import json
import textwrap
from typing import Any, Final

from registry.poison import inspect, visible

_FIRST: Final = ("name", "title", "description", "annotations", "inputSchema", "outputSchema")
_COLUMNS: Final = 100


def difference(before: bytes | None, after: bytes) -> list[str]:
    """The lines of the diff, hidden characters written out as ``<U+202E>``.

    :param before: the approved definition; None where there is none, so that all of it is new.
    """
    old, new = _fields(before) if before is not None else {}, _fields(after)
    lines: list[str] = []
    rest = sorted((old.keys() | new.keys()) - set(_FIRST))
    for field in (*_FIRST, *rest):
        if field in old and field in new and old[field] == new[field]:
            continue
        was, now = _lines(old.get(field, _ABSENT)), _lines(new.get(field, _ABSENT))
        if was == now and field in old and field in new:  # only white space, or what JSON escapes
            was, now = _exact(old[field]), _exact(new[field])
        made = list(difflib.unified_diff(was, now, lineterm="", n=2))[2:]
        if made:
            lines += [f"--- approved {field}", f"+++ offered {field}", *made]
    if not lines:
        lines.append("The two say the same; numbers or duplicate keys are spelled differently.")
    return lines


def signs(definition: bytes) -> list[str]:
    """What the detector of poisoned definitions has to say, a line for each sign; empty for nothing."""
    finding = inspect(definition)
    said = [f"{name}: {visible(words)!r}" for name, words in finding.signs]
    said += [
        f"hidden character <U+{ord(one.text):04X}> ({one.kind}) in {visible(path) or 'the top'}"
        for path, one in finding.hidden
    ]
    return (
        [f"score {finding.score:g}{', withheld from 2' if finding.withhold else ''}", *said] if said else []
    )


_ABSENT: Final = object()


def _fields(definition: bytes) -> dict[str, Any]:
    value = json.loads(definition)
    return value if isinstance(value, dict) else {"definition": value}


def _lines(value: Any) -> list[str]:
    if value is _ABSENT:
        return []
    text = (
        value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
    )
    lines: list[str] = []
    for line in visible(text).splitlines() or [""]:
        wrapped = textwrap.wrap(
            line,
            _COLUMNS,
            subsequent_indent=" " * (len(line) - len(line.lstrip())),
            break_on_hyphens=False,
            replace_whitespace=False,
            drop_whitespace=True,
        )
        lines += wrapped or [""]
    return lines


def _exact(value: Any) -> list[str]:
    text = json.dumps(value, ensure_ascii=True, indent=2)
    return [text[start : start + _COLUMNS] for start in range(0, len(text), _COLUMNS)]
