"""``search``: the tools that answer a request, of a running gateway or of the store."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway import jsonrpc
from gateway.admin.client import NotRunning
from gateway.admin.toolset_client import ToolsetClient
from gateway.cli import offline, render
from gateway.cli.exits import Exit
from gateway.cli.shared import LAST_KNOWN, JsonFlag, StateFlag, verb
from gateway.cli.toolset_store import Stored
from gateway.cli.waiting import Waiting
from gateway.config.options import ServeOptions
from gateway.config.settings import Settings
from gateway.paths import StateDir

if TYPE_CHECKING:
    from registry.search.service import SearchService
    from registry.store import Store

MOST: Final = 100


def add_to(app: typer.Typer) -> None:
    """Add the verb of this file."""
    verb(app, '"REQUEST"', search)


def search(
    request: Annotated[str | None, typer.Argument(metavar="REQUEST", hidden=True)] = None,
    limit: Annotated[int, typer.Option("-k", "--limit", min=1, max=MOST, help="How many tools.")] = 10,
    toolset: Annotated[str | None, typer.Option(metavar="NAME", help="Only tools of this toolset.")] = None,
    batch: Annotated[
        Path | None, typer.Option(metavar="FILE", help='Answer a file of {"id", "query"} lines instead.')
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help='Where {"query_id", "ranked"} lines go; else stdout.')
    ] = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Find the tools that can do what REQUEST says, best first.

    By meaning and words where search by meaning is installed and ready, else by words alone.
    """
    if batch is not None:
        _batch(state_dir, batch, out, limit)
        return
    if request is None or not request.strip():
        render.problem("Say what is to be done.", 'As in: toolyard search "book a flight to Rome"')
        raise typer.Exit(Exit.USAGE)
    try:
        with Waiting("searching"):
            found = ToolsetClient(StateDir.at(state_dir)).search(request, limit, toolset)
    except NotRunning:
        render.note(LAST_KNOWN)
        found = _stored(state_dir, request, limit, toolset)
    if json_:
        render.as_json(found)
        return
    _show(found)


def _show(found: dict[str, Any]) -> None:
    if not found["searched"]:
        render.out("There is no tool to find: no server here has listed any yet. See: toolyard status.")
        render.note("What `registry import-tools` reads has no server behind it: search that with --batch.")
        return
    if not found["tools"]:
        render.out("No tool fits that. Say it in other words.")
    else:
        rows = [(f"{t['score']:.2f}", t["name"], render.first_line(t["description"])) for t in found["tools"]]
        render.table(("score", "tool", "does"), rows, right=("score",))
    if found["mode"] == "lexical":
        render.note("Searched by words alone: search by meaning is not ready, or not installed.")


def _stored(state: Path | None, request: str, limit: int, toolset: str | None) -> dict[str, Any]:
    """Search what the store holds, within the last known catalog."""
    from gateway.toolsets.finding import Filters, Scopes
    from gateway.toolsets.rows import answered
    from registry.store import Store
    from registry.toolsets import Toolset

    if toolset is not None:
        projection = Stored.read(state).project(toolset)
    else:
        projection = offline.project(state, Toolset(name="all", expose="all"))
    with Store.open(offline.store_of(state), readonly=True) as store, Waiting("searching"):
        service = _service(store, state)
        found = service.find(request, limit, Scopes(projection).of(Filters()))
        return dict(jsonrpc.value(jsonrpc.encode(answered(found, projection))))


def _service(store: Store, state: Path | None) -> SearchService:
    from registry.search.service import SearchService

    service = SearchService(
        store,
        StateDir.at(state).search,
        model=Settings.load(ServeOptions()).search.model or None,
        say=render.note,
    )
    service.open()
    return service


def _batch(state: Path | None, queries: Path, out: Path | None, limit: int) -> None:
    """Answer a file of queries over every tool that is stored, those without a server behind them too.

    Where no gateway holds the store, what search by meaning lacks is prepared first.
    """
    from gateway.cli.exits import Locked
    from registry.exchange import BadLine, search_batch
    from registry.store import Store

    with ExitStack() as stack:
        try:
            store = stack.enter_context(offline.writing(state))
            ready = True
        except Locked:
            store = stack.enter_context(Store.open(offline.store_of(state), readonly=True))
            ready = False
        service = _service(store, state)
        if ready:
            with Waiting("preparing search by meaning") as waiting:
                service.prepare(lambda done, total: waiting.tell({"progress": done, "total": total}))
        try:
            target = sys.stdout if out is None else stack.enter_context(out.open("w", encoding="utf-8"))
            with Waiting("searching") as waiting:
                count = search_batch(
                    service, queries, target, limit=limit, progress=lambda n: waiting.tell({"progress": n})
                )
        except OSError as error:
            raise BadLine(f"{error.filename or queries} cannot be used: {error.strerror}.") from None
    render.note(f"{count} requests were answered.")
