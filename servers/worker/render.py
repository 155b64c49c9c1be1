"""Results of every kind as JSON: what a caller can read, and whether it says all there is.

Iterators are lists, namedtuples and dataclasses objects, sets sorted lists, enums their values, times ISO
8601, timedeltas seconds, Decimals text, arrays nested lists, bytes text or base64; what is left is ``str``.
"""

from __future__ import annotations

import array
import base64
import collections.abc as abc
import dataclasses
import datetime
import decimal
import enum
import fractions
import inspect
import io
import itertools
import math
import os
import re
import uuid
from typing import Any

MAX_ITEMS = 10_000
MAX_DEPTH = 12
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,16}>")
"""Where an object happens to lie says nothing, and is another place each time."""
_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


class Rendered:
    """A result on its way out.

    :ivar value: its JSON.
    :ivar opaque: whether some object in it is only a text of itself.
    :ivar whole: whether the object itself is only a text of itself.
    :ivar cut: whether an iterator had more than ``MAX_ITEMS``.
    :ivar images: (MIME type, bytes) of pictures in it.
    """

    def __init__(self) -> None:
        self.value: Any = None
        self.opaque = False
        self.whole = False
        self.cut = False
        self.images: list[tuple[str, bytes]] = []


def settle(value: Any) -> Any:
    """Wait for what has to be awaited, and collect what is produced bit by bit: errors come up here."""
    if inspect.isawaitable(value):
        import asyncio

        async def wait() -> Any:
            return await value

        return settle(asyncio.run(wait()))
    if hasattr(type(value), "__aiter__"):  # objects that answer to every name are no iterators
        import asyncio

        async def collect() -> list[Any]:
            items: list[Any] = []
            async for item in value:
                items.append(item)
                if len(items) >= MAX_ITEMS:
                    break
            return items

        return asyncio.run(collect())
    if isinstance(value, abc.Iterator) and not isinstance(value, io.IOBase):
        return list(itertools.islice(value, MAX_ITEMS + 1))
    return value


def render(value: Any) -> Rendered:
    """A settled result as JSON. Runs iterators, so it may take time and raise what they raise."""
    rendered = Rendered()
    rendered.value = _json(value, 0, rendered)
    return rendered


def _json(o: Any, depth: int, to: Rendered) -> Any:
    if o is None or isinstance(o, bool):
        return o
    if isinstance(o, enum.Enum):
        return o.value if isinstance(o.value, (str, int, float)) else o.name
    if isinstance(o, str):
        return str(o).encode("utf-8", "replace").decode() if not str(o).isascii() else str(o)
    if isinstance(o, int):
        return int(o)
    if isinstance(o, float):
        return float(o) if math.isfinite(o) else str(float(o))
    if isinstance(o, (complex, decimal.Decimal, fractions.Fraction, uuid.UUID)):
        return str(o)
    if isinstance(o, (bytes, bytearray, memoryview)):
        return _bytes(bytes(o), to)
    if isinstance(o, datetime.timedelta):
        return o.total_seconds()
    if isinstance(o, (datetime.datetime, datetime.date, datetime.time)):
        return o.isoformat()
    if isinstance(o, type):
        return o.__name__ if o.__module__ == "builtins" else f"{o.__module__}:{o.__qualname__}"
    if isinstance(o, re.Match):
        return {"match": o.group(0), "groups": list(o.groups()), "span": list(o.span())}
    if isinstance(o, os.PathLike):
        return os.fsdecode(os.fspath(o))
    if isinstance(o, array.array):
        return o.tolist()
    if depth > MAX_DEPTH:
        to.opaque = True
        return str(o)
    if type(o).__module__.split(".")[0] == "numpy" and hasattr(o, "tolist"):
        return _json(o.tolist(), depth + 1, to)
    return _composed(o, depth, to)


def _composed(o: Any, depth: int, to: Rendered) -> Any:
    if isinstance(o, tuple) and hasattr(o, "_asdict"):
        return _json(o._asdict(), depth + 1, to)
    if dataclasses.is_dataclass(o):
        return {
            field.name: _json(getattr(o, field.name, None), depth + 1, to)
            for field in dataclasses.fields(o)
            if not field.name.startswith("_")
        }
    if isinstance(o, abc.Mapping):
        return {_key(key): _json(value, depth + 1, to) for key, value in _some(o.items(), to)}
    if isinstance(o, (set, frozenset, abc.Set)) and not isinstance(o, (abc.KeysView, abc.ItemsView)):
        return sorted((_json(item, depth + 1, to) for item in _some(o, to)), key=repr)
    if isinstance(o, (list, tuple, abc.Iterator, range, abc.KeysView, abc.ValuesView, abc.ItemsView)):
        return [_json(item, depth + 1, to) for item in _some(o, to)]
    image = _picture(o)
    if image is not None:
        to.images.append(image)
        return f"<{image[0]} of {len(image[1])} bytes>"
    to.opaque = True
    if depth == 0:
        to.whole = True
    return _ADDRESS.sub(">", str(o))


def _key(key: Any) -> str:
    if isinstance(key, str) and not isinstance(key, enum.Enum):
        return str(key)
    return str(_json(key, MAX_DEPTH, Rendered()))


def _some(items: abc.Iterable[Any], to: Rendered) -> abc.Iterator[Any]:
    for index, item in enumerate(itertools.islice(items, MAX_ITEMS + 1)):
        if index == MAX_ITEMS:
            to.cut = True
            return
        yield item


def _bytes(data: bytes, to: Rendered) -> str:
    for magic, mime in _IMAGES:
        if data.startswith(magic) and len(data) > 64:
            to.images.append((mime, data))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()


def _picture(o: Any) -> tuple[str, bytes] | None:
    """A picture object's PNG: Pillow's ``save``, or the protocol notebooks use."""
    if not hasattr(type(o), "_repr_png_"):
        return None
    data = o._repr_png_()
    return ("image/png", bytes(data)) if isinstance(data, (bytes, bytearray)) and data else None
