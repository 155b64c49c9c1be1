"""``plan``: plans for many requests, one a line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli import render
from gateway.cli.exits import Exit
from gateway.paths import default_state_dir

if TYPE_CHECKING:
    from router.planner.base import Planner
    from router.planner.rules.choose import Similar

app = typer.Typer(name="plan", add_completion=False)


@app.callback()
def planning() -> None:
    """Plans: which tools serve a request, with what, in what order."""


@app.command()
def plan(
    batch: Annotated[
        Path, typer.Option(help='Requests, one JSON object a line: {"id", "request", "tools"}.')
    ],
    out: Annotated[Path, typer.Option(help='Where to write {"id", "plan"} for each.')],
    planner: Annotated[str, typer.Option(help="rules or model.")] = "rules",
    model_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible endpoint, for --planner model.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model's name there. [default: the first it lists]")
    ] = None,
    model_token: Annotated[
        str | None, typer.Option(envvar="TOOLYARD_MODEL_TOKEN", help="Bearer token for the endpoint.")
    ] = None,
    strings: Annotated[
        str, typer.Option(help="What a model may write as text: free, or copied from the request.")
    ] = "free",
    cache: Annotated[
        Path | None,
        typer.Option(help="Where the encoder's export is kept. [default: in the state directory]"),
    ] = None,
    words: Annotated[
        bool, typer.Option("--words", help="Compare by words alone, without the encoder.")
    ] = False,
) -> None:
    """Plan every request of a file; the tools given with each are its candidates."""
    from router import batch as batches
    from router.errors import RouterError

    try:
        chosen = _planner(planner, None if words else cache or default_state_dir() / "cache")
        if planner == "model":
            chosen = _by_model(chosen, model_url, model, model_token, strings)
        partial = out.with_name(out.name + ".part")
        with partial.open("w", encoding="utf-8") as lines:
            for record in batches.records(batch):
                lines.write(json.dumps(batches.run(chosen, record), ensure_ascii=False) + "\n")
        os.replace(partial, out)
    except RouterError as error:
        render.problem(error.message, error.hint)
        raise typer.Exit(Exit.FAILED) from None
    except OSError as error:
        render.problem(
            f"{error.filename or batch}: {error.strerror or error}.", "Check the path and the disk."
        )
        raise typer.Exit(Exit.FAILED) from None


def _planner(name: str, cache: Path | None) -> Planner:
    """The planner by rules, which another one falls back to.

    :raises BadRequest: there is no planner of that name.
    """
    from router.errors import BadRequest
    from router.planner.rules.planner import RulesPlanner
    from router.planner.rules.weights import weights

    if name not in ("rules", "model"):
        raise BadRequest(f"There is no planner named {name}.", "Use rules or model.")
    return RulesPlanner(weights(), _similar(cache), guess=True)


def _by_model(rules: Planner, url: str | None, name: str | None, token: str | None, strings: str) -> Planner:
    """The planner that asks a model.

    :raises PlannerMissing: there is no address to ask.
    :raises BadRequest: an option is none.
    """
    from router.errors import BadRequest, PlannerMissing
    from router.planner.endpoint import Endpoint
    from router.planner.model import ModelPlanner

    if url is None:
        raise PlannerMissing(
            "There is no model to plan with.", "Start one with toolyard infer serve, and give --model-url."
        )
    if strings not in ("free", "copied"):
        raise BadRequest(f"{strings!r} is no way to write strings.", "Use --strings free or copied.")
    return ModelPlanner(
        Endpoint(url, name, token), rules, strings="copied" if strings == "copied" else "free", say=_say
    )


def _similar(cache: Path | None) -> Similar | None:
    """Closeness in meaning where the encoder can be had; None, said aloud, where it cannot."""
    if cache is None:
        return None
    from registry.errors import RegistryError
    from router.planner.rules.meaning import by_encoder

    try:
        return by_encoder(cache, _say)
    except RegistryError as error:
        _say(f"Tools are compared by words alone: {error}")
        return None


def _say(text: str) -> None:
    print(text, file=sys.stderr)
