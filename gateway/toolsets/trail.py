"""From a search to the call that followed it: what a deployment's own use teaches its search.

That a request led to a call that succeeded is worth keeping; the request is redacted first, and of
what was searched and not called nothing is kept.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from registry.errors import RegistryError

log = logging.getLogger("toolyard.search")

CALLERS: Final = 2000
SEARCHES: Final = 8
"""Searches remembered of each caller: a call belongs to the latest that found its tool."""
MOST_WAITING: Final = 1000
"""Rows that may wait to be stored; more are dropped, as feedback is worth no memory without bound."""

Row = tuple[str, str, str]


class _Search(NamedTuple):
    query: str
    tools: set[tuple[str, str]]


class Trail:
    """Joins searches to calls, and stores the pairs in groups off the call path.

    :param put: stores rows of (redacted request, server, tool); blocks, raises RegistryError.
    """

    def __init__(self, put: Callable[[list[Row]], None], *, kept: bool = True) -> None:
        self._put = put
        self._kept = kept
        self._searches: OrderedDict[str, deque[_Search]] = OrderedDict()
        self._rows: list[Row] = []

    @property
    def waiting(self) -> int:
        """Rows that are not stored yet."""
        return len(self._rows)

    def found(self, caller: str, query: str, tools: Collection[tuple[str, str]]) -> None:
        """A caller searched, and was shown these tools."""
        if not self._kept or not tools:
            return
        mine = self._searches.setdefault(caller, deque(maxlen=SEARCHES))
        self._searches.move_to_end(caller)
        mine.append(_Search(query, set(tools)))
        if len(self._searches) > CALLERS:
            self._searches.popitem(last=False)

    def succeeded(self, caller: str, server: str, name: str) -> bool:
        """A call of this caller's succeeded. Returns whether it follows from a search; each pair counts once."""
        for search in reversed(self._searches.get(caller, ())):
            if (server, name) in search.tools:
                search.tools.discard((server, name))
                if len(self._rows) < MOST_WAITING:
                    self._rows.append((search.query, server, name))
                return True
        return False

    def take(self) -> list[Row]:
        """The rows that wait, which from now on are the caller's to `store`."""
        rows, self._rows = self._rows, []
        return rows

    def store(self, rows: list[Row]) -> int:
        """Store rows, redacted; blocks. Returns how many. What cannot be stored is dropped, and said."""
        from registry.feedback.redact import redact

        try:
            self._put([(redact(query), server, name) for query, server, name in rows])
        except RegistryError as error:
            log.error("%d rows of search feedback were lost: %s", len(rows), error)
            return 0
        return len(rows)
