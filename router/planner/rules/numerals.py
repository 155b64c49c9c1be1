"""Numbers as people write them: in digits with their scales and signs, and in words."""

# ruff: noqa: RUF001, SIM905  (word lists, and the signs that people type)
from __future__ import annotations

import re
from typing import Final

NUMBER: Final = re.compile(
    r"(?<![\w.])(?P<sign>[-+−]?)(?P<money>(?:[$€£¥₹]\s?)?)(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|\.\d+)"
    r"(?P<scale>(?:[kKM]|bn|\s?(?:thousand|million|billion|trillion|hundred|dozen))(?!\w))?(?P<percent>\s?%|\s?percent\b)?(?!\w*@|\d|\.\d)"
)
_SCALES: Final = {
    "k": 1e3,
    "m": 1e6,
    "bn": 1e9,
    "hundred": 1e2,
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
    "trillion": 1e12,
    "dozen": 12.0,
}
_ONES: Final = {
    name: value
    for value, name in enumerate(
        (
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
            "fifteen sixteen seventeen eighteen nineteen"
        ).split()
    )
}
_TENS: Final = {
    name: 10 * value
    for value, name in enumerate(("twenty thirty forty fifty sixty seventy eighty ninety").split(), 2)
}
SPELLED: Final = re.compile(
    r"\b(?:(?:a|an|half a|"
    + "|".join([*_ONES, *_TENS])
    + r")[\s-]+)?(?:"
    + "|".join([*_ONES, *_TENS, "hundred", "thousand", "million", "billion", "dozen"])
    + r")(?:[\s-]+(?:and\s+)?(?:"
    + "|".join([*_ONES, *_TENS, "hundred", "thousand", "million", "billion"])
    + r"))*\b",
    re.IGNORECASE,
)
ORDINALS: Final = {
    name: value
    for value, name in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth".split(), 1
    )
}


def number_of(match: re.Match[str]) -> int | float:
    """The value of what NUMBER has found."""
    digits = match["number"].replace(",", "")
    number = float(digits)
    if match["scale"]:
        number *= _SCALES[match["scale"].strip().lower()]
    if match["sign"] in ("-", "−") and (match.start() == 0 or match.string[match.start() - 1] in " ([,:="):
        number = -number
    whole = number.is_integer() and "." not in digits and "e" not in digits.lower()
    return int(number) if whole and abs(number) < 1e15 else number


def spelled(text: str) -> int | float | None:
    """The number that words stand for: "twenty-five", "a dozen", "two hundred and five"."""
    total, part, known = 0.0, 0.0, False
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in _ONES:
            part, known = part + _ONES[word], True
        elif word in _TENS:
            part, known = part + _TENS[word], True
        elif word == "half":
            part = 0.5
        elif word in ("a", "an", "and"):
            continue
        elif word in ("hundred", "dozen"):
            part, known = (part or 1) * _SCALES[word], True
        elif word in _SCALES:
            total, part, known = total + (part or 1) * _SCALES[word], 0.0, True
        else:
            return None
    number = total + part
    return None if not known else int(number) if number.is_integer() else number
