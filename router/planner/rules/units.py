"""Units of measure: what stands behind a number, what a parameter is in, and one put into the other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from registry.lexical.stem import stem


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of measure.

    :param size: how many of the first unit of its dimension it is.
    """

    dimension: str
    size: float


_NAMES: Final = {
    "length": "meter metre m:1 kilometer kilometre km kms:1000 centimeter centimetre cm:0.01 "
    "millimeter millimetre mm:0.001 mile mi:1609.344 yard yd:0.9144 foot feet ft:0.3048 inch inches:0.0254",
    "mass": "gram gramme g:1 kilogram kilo kg kgs:1000 milligram mg:0.001 tonne ton:1000000 "
    "pound lb lbs:453.59237 ounce oz:28.349523125",
    "time": "second sec s:1 minute min mins:60 hour hr hrs h:3600 day:86400 week:604800 millisecond ms:0.001",
    "volume": "liter litre l:1 milliliter millilitre ml:0.001",
    "data": "byte:1 kilobyte kb:1000 megabyte mb:1000000 gigabyte gb:1000000000",
    "power": "watt w:1 kilowatt kw:1000 megawatt mw:1000000",
}
UNITS: Final = {
    key: Unit(dimension, float(size))
    for dimension, text in _NAMES.items()
    for names, size in re.findall(r"([a-z ]+):([\d.]+)", text)
    for name in names.split()
    for key in (name, stem(name))
}
_AFTER: Final = re.compile(r"[\s-]?([A-Za-z]+)")


def unit_after(text: str, end: int) -> Unit | None:
    """The unit of the number that ends at a position of a text: "5km", "5 km", "5-kilometer"."""
    match = _AFTER.match(text, end)
    return UNITS.get(word) or UNITS.get(stem(word)) if match and (word := match[1].lower()) else None


def unit_wanted(stems: Iterable[str]) -> Unit | None:
    """The one unit that words about a parameter name; None where they name none, or several."""
    found = {UNITS[word] for word in stems if len(word) > 1 and word in UNITS}
    return found.pop() if len(found) == 1 else None


def put_into(number: float, unit: Unit, wanted: Unit) -> int | float:
    """A number of one unit in another unit of the same dimension."""
    value = round(number * unit.size / wanted.size, 9)
    return int(value) if value.is_integer() else value
