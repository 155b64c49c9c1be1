"""A JSON object whose fields are taken with a type."""

from __future__ import annotations

from typing import Any, TypeVar

from inference.errors import BadRequestError

T = TypeVar("T")


class Body:
    """What is wrong is said with the field's name, after `path`, as a BadRequestError."""

    def __init__(self, raw: Any, path: str = "") -> None:
        if not isinstance(raw, dict):
            raise BadRequestError("The request body should be a JSON object.")
        self.raw, self.path = raw, path

    def get(self, name: str, kind: type[T] | tuple[type[T], ...], default: T) -> T:
        value = self.raw.get(name)
        if value is None:
            return default
        wrong_bool = isinstance(value, bool) and kind is not bool
        if not isinstance(value, kind) or wrong_bool:
            wanted = kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind)
            raise BadRequestError(
                f"'{self.path}{name}' should be {wanted}, not {value!r:.80}", param=self.path + name
            )
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = float(self.get(name, (int, float), default))
        if not low <= value <= high:
            raise BadRequestError(
                f"{name!r} should be between {low:g} and {high:g}, not {value:g}", param=name
            )
        return value

    def whole(self, name: str, default: int, low: int, high: int = 2**62) -> int:
        value = self.get(name, int, default)
        if not low <= value <= high:
            raise BadRequestError(f"{name!r} should be between {low} and {high}, not {value}", param=name)
        return value
