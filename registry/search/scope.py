"""Who may find what: the part of the index that one caller's toolset and approvals leave."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from fnmatch import translate
from typing import TYPE_CHECKING

from registry.errors import BadFilter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.search.index import ToolIndex
    from registry.tools import ToolRef

MAX_PATTERN = 300
"""Characters of a pattern."""


class Scope:
    """A rule over tools, worked out once per revision of the index and then a lookup.

    A search is made inside its scope: scores are scaled over what the caller may see, and an
    approximate index looks for neighbours there, so a narrow scope still fills its page.

    :param rule: whether a tool may be found; it must depend on the tool alone.
    """

    def __init__(self, rule: Callable[[ToolRef], bool]) -> None:
        self._rule = rule
        self._revision = -1
        self._slots: frozenset[int] = frozenset()
        self._mask: NDArray[np.bool_] | None = None

    @classmethod
    def of(
        cls,
        *,
        include: Iterable[str] = ("*",),
        exclude: Iterable[str] = (),
        servers: Collection[str] | None = None,
        approved: Callable[[ToolRef], bool] | None = None,
    ) -> Scope:
        """A scope of patterns over ``server/name``, as a toolset is written: ``github/*``, ``*/read_*``.

        :param servers: only these servers; None for all.
        :param approved: a further rule, such as "its pinned version is this one".
        :raises BadFilter: a pattern is too long.
        """
        wanted, unwanted = matcher(include), matcher(exclude)
        only = None if servers is None else frozenset(servers)

        def rule(ref: ToolRef) -> bool:
            if only is not None and ref.server not in only:
                return False
            name = f"{ref.server}/{ref.name}"
            if wanted is not None and not wanted.match(name):
                return False
            if unwanted is not None and unwanted.match(name):
                return False
            return approved is None or approved(ref)

        return cls(rule)

    def slots(self, index: ToolIndex) -> frozenset[int]:
        """The slots in scope. The caller holds the index's lock."""
        if self._revision != index.revision:
            self._slots = frozenset(slot for slot, ref in index.living() if self._rule(ref))
            self._mask = None
            self._revision = index.revision
        return self._slots

    def mask(self, index: ToolIndex) -> NDArray[np.bool_]:
        """The slots in scope as a mask. The caller holds the index's lock."""
        import numpy as np

        slots = self.slots(index)
        if self._mask is None:
            self._mask = np.zeros(index.slots, dtype=np.bool_)
            self._mask[list(slots)] = True
        return self._mask


def everything() -> Scope:
    """The scope of one who may find every tool."""
    return Scope(lambda ref: True)


def matcher(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """One expression over ``server/name`` for all patterns, None for none.

    A pattern without ``/`` is a server's or a tool's name. Raises BadFilter for one that is too long.
    """
    parts = []
    for pattern in patterns:
        if len(pattern) > MAX_PATTERN:
            raise BadFilter(
                f"The pattern {pattern[:40]}… is too long.", f"Use at most {MAX_PATTERN} characters."
            )
        if "/" in pattern or pattern == "*":
            parts.append(translate(pattern))
        else:
            parts.extend((translate(f"{pattern}/*"), translate(f"*/{pattern}")))
    return re.compile("|".join(parts)) if parts else None
