"""``search``: which tools answer a request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import render
from gateway.cli.shared import StateFlag, verb


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "--batch QUERIES.jsonl --out RUN.jsonl", search)


def search(
    batch: Annotated[
        Path,
        typer.Option("--batch", metavar="FILE", help='Requests, {"id", "query"} a line.', dir_okay=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help='Answers, {"query_id", "ranked": [ids]} a line.', dir_okay=False
        ),
    ],
    limit: Annotated[
        int, typer.Option("-k", metavar="N", min=1, max=1000, help="Tools for each request.")
    ] = 20,
    state_dir: StateFlag = None,
) -> None:
    """Find the tools that answer the requests of a file, the best first."""
    from gateway.cli.batch import batch as answer

    count = answer(batch, out, limit, state_dir)
    render.note(f"{render.count(count, 'request')} answered.")
