"""Regular expressions of JSON schemas, run so that none can hang the gateway or fill its memory.

JSON Schema means ECMA-262 expressions (2020-12 Core, 6.4). They run in the ``regex`` module, which
can stop at a time limit; what differs between the dialects and matters to validation is rewritten:
``$`` is the very end, ``\\d`` and ``\\w`` are ASCII.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import regex

MAX_LENGTH: Final = 4096
MAX_SIZE: Final = 20_000
"""Atoms after the fixed part of counted repeats is written out, as ``regex`` does when compiling:
``(?:a{1000}){1000}`` takes 280 MiB."""

_PART = re.compile(r"\\.|\[\^?|\]|\(|\)|\{(\d+)(?:,\d*)?\}|\$|.", re.DOTALL)
_CLASS_ESCAPES: Final = {r"\d": "0-9", r"\w": "A-Za-z0-9_"}
_EMPTY_CLASSES: Final = {"[": "(?!)", "[^": r"[\s\S]"}
_ESCAPES: Final = {
    r"\d": "[0-9]",
    r"\D": "[^0-9]",
    r"\w": "[A-Za-z0-9_]",
    r"\W": "[^A-Za-z0-9_]",
}


class PatternError(ValueError):
    """A pattern that cannot be used."""


def _translate(pattern: str) -> str:
    """The pattern for ``regex``. Raises PatternError for one that would compile to too much."""
    out: list[str] = []
    in_class = False
    sizes = [0]
    last = 0
    for match in _PART.finditer(pattern):
        text = match[0]
        if in_class:
            in_class = text != "]"
            if not in_class and out[-1] in _EMPTY_CLASSES:
                out[-1] = _EMPTY_CLASSES[out[-1]]
                continue
            out.append(_CLASS_ESCAPES.get(text, r"\[" if text == "[" else text))
            continue
        if text == "(":
            sizes.append(0)
            last = 0
        elif text == ")" and len(sizes) > 1:
            last = sizes.pop() + 1
            sizes[-1] += last
        elif match[1] is not None:
            # A limit on the digits keeps the product itself small.
            grown = last * max(int(match[1][:9]), 1)
            sizes[-1] += grown - last
            last = grown
        else:
            in_class = text.startswith("[")
            last = 1
            sizes[-1] += 1
        if sum(sizes) > MAX_SIZE:
            raise PatternError(f"its repeats come to more than {MAX_SIZE} steps")
        out.append(r"\Z" if text == "$" else _ESCAPES.get(text, text))
    return "".join(out)


@lru_cache(maxsize=2048)
def compiled(pattern: str) -> regex.Pattern[str]:
    """The pattern, compiled once. Raises PatternError."""
    import regex

    if len(pattern) > MAX_LENGTH:
        raise PatternError(f"it is longer than {MAX_LENGTH} characters")
    try:
        return regex.compile(_translate(pattern))
    except regex.error as error:
        raise PatternError(str(error)) from None
    except (RecursionError, OverflowError):
        raise PatternError("it nests too deep") from None


def search(pattern: str, text: str, seconds: float) -> bool:
    """Whether the pattern matches somewhere in the text.

    Raises PatternError, and TimeoutError when the time is up.
    """
    return compiled(pattern).search(text, timeout=max(seconds, 0.001)) is not None
