"""``toolyard bench search``: how well, and how fast, search finds the tools that are here."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.admin.client import NotRunning
from gateway.cli import offline, render
from gateway.cli.shared import JsonFlag, StateFlag, client, verb
from gateway.cli.stored import reading
from gateway.cli.waiting import Waiting
from gateway.errors import GatewayError
from gateway.paths import StateDir
from registry.search import bench
from registry.search.service import SearchService

app: Final = typer.Typer(
    name="bench",
    help="Measure a part of the product on what is here.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_SAYS: Final = {
    bench.FEEDBACK: "Requests: what was asked here, each with the tool that was then called.",
    bench.DESCRIPTIONS: (
        "Requests: made from the tools' own descriptions, without the words of their names. They compare "
        "the ways to search; what people ask is harder to answer."
    ),
}


def add_to(root: typer.Typer) -> None:
    """Add the group to the command line."""
    root.add_typer(app, name="bench")


@app.callback()
def _group() -> None:
    """A group, although it has one verb so far."""


def search(
    queries: Annotated[
        str | None,
        typer.Option("--queries", metavar="feedback|descriptions", help="Where requests are taken from."),
    ] = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Measure search on your own tools: by words, by meaning, by both, and as it is served.

    NDCG@10 and recall@10 in percent, and the time of one search in milliseconds. Requests come from
    feedback where there are 20 or more, else from the tools' descriptions; it says which.
    """
    if queries not in (None, bench.FEEDBACK, bench.DESCRIPTIONS):
        raise typer.BadParameter(f"{queries!r} is neither feedback nor descriptions.", param_hint="--queries")
    report = _measured(queries, state_dir)
    if json_:
        render.as_json(dataclasses.asdict(report))
        return
    render.paragraph(_SAYS[report.source])
    render.out(f"{render.count(report.requests, 'request')} over {render.count(report.tools, 'tool')}.")
    render.out()
    columns = ("way", "ndcg@10", "recall@10", "p50 ms", "p95 ms")
    rows = [
        (row.way, f"{row.ndcg:.1f}", f"{row.recall:.1f}", f"{row.p50:.2f}", f"{row.p95:.2f}")
        for row in report.rows
    ]
    render.table(columns, rows, right=columns[1:])
    if report.mode == "lexical":
        render.note("There are no vectors here, so search by meaning was not measured.")


def _measured(queries: str | None, state_dir: Path | None) -> bench.Report:
    with ExitStack() as stack:
        waiting = stack.enter_context(Waiting("preparing search"))
        try:
            client(state_dir).status()
            store = stack.enter_context(reading(state_dir))
        except NotRunning:
            store = stack.enter_context(offline.writing(state_dir))

        def tell(message: str, done: int, total: int) -> None:
            waiting.tell({"progress": done, "total": total, "message": message})

        service = SearchService(store, StateDir.at(state_dir).search, say=render.note)
        service.open()
        if not len(service.searcher.index):
            raise _nothing("There are no tools here to search for.")
        if not store.readonly:
            service.prepare(lambda done, total: tell("embedding tools", done, total))
        source, requests = _requests(queries, service)
        return bench.measure(service, source, requests, lambda done, total: tell("searching", done, total))


def _requests(queries: str | None, service: SearchService) -> tuple[str, list[bench.Request]]:
    if queries != bench.DESCRIPTIONS:
        asked = bench.from_feedback(service.records, service.searcher)
        if len(asked) >= bench.ENOUGH or (queries == bench.FEEDBACK and asked):
            return bench.FEEDBACK, asked
        if queries == bench.FEEDBACK:
            raise GatewayError(
                "There is no feedback to measure on: no request here led to a tool that is still offered.",
                "Leave --queries out: requests are then made from the tools' descriptions.",
            )
    made = bench.from_descriptions(service.records, service.searcher)
    if not made:
        raise _nothing("There is no tool here whose description says enough to make a request from.")
    return bench.DESCRIPTIONS, made


def _nothing(what: str) -> GatewayError:
    return GatewayError(
        what, "Add servers (toolyard add), or take tools from a file (toolyard registry import-tools)."
    )


verb(app, "", search)
