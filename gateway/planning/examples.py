"""Plans that worked, for requests like a new one: shown to a model, and their tools made candidates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import anyio.to_thread

from gateway.toolsets.project import Projection
from registry.model import ItemKind

if TYPE_CHECKING:
    from router.memory import PlanMemory
    from router.plan import Definition
    from router.shapes import Shape

log = logging.getLogger("toolyard.planning")

ALIKE: Final = 0.5
"""Likeness of two requests from which the tools of the one are candidates for the other."""
MOST: Final = 2
"""Plans whose tools are added to those that search has found."""


class Examples:
    """What is remembered, as planners want it.

    :param memory: gives the memory where there is one, and it is open.
    """

    def __init__(self, memory: Callable[[], PlanMemory | None]) -> None:
        self._memory = memory

    def recall(self, request: str, tools: Sequence[Definition]) -> Sequence[Shape]:
        """Plans over these tools for requests like this one; a `router.planner.base.Recall`."""
        from router.errors import JournalError

        memory = self._memory()
        if memory is None:
            return ()
        try:
            return memory.examples(request, tools)
        except JournalError as error:  # a plan without examples is a plan
            log.warning("no examples are shown to the model: %s", error)
            return ()

    async def tools(self, request: str, projection: Projection) -> list[tuple[str, str]]:
        """The tools, as (server, its name for it), of plans that worked for a request much like this one.

        Only of plans whose every tool is in the projection, and is what it was.
        """
        memory = self._memory()
        if memory is None:
            return []
        from router.errors import JournalError

        try:
            shapes = await anyio.to_thread.run_sync(memory.alike, request, ALIKE)
        except JournalError as error:
            log.warning("plans that worked could not be read: %s", error)
            return []
        found: list[tuple[str, str]] = []
        for shape in shapes[:MOST]:
            refs = [_ref(projection, name, version) for name, version in shape.versions.items()]
            if all(ref in projection.by_ref for ref in refs):
                found += [ref for ref in refs if ref is not None]
        return found


def _ref(projection: Projection, name: str, version: str) -> tuple[str, str] | None:
    entry = projection.source.entries[ItemKind.TOOL].get(name)
    return (entry.server, entry.original) if entry is not None and entry.hash == version else None
