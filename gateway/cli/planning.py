"""``plan``: a plan for a request over the gateway's tools, or plans for many, one a line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.admin.run_client import RunClient
from gateway.cli import render
from gateway.cli.exits import Exit
from gateway.cli.shared import JsonFlag, StateFlag
from gateway.cli.waiting import Waiting
from gateway.paths import StateDir, default_state_dir

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.planner.base import Planner
    from router.planner.rules.choose import Similar

app = typer.Typer(name="plan", add_completion=False)


@app.callback()
def planning() -> None:
    """Plans: which tools serve a request, with what, in what order."""


@app.command()
def plan(
    request: Annotated[str | None, typer.Argument(metavar="REQUEST", help="What is to be done.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show which tools it was chosen from, and why.")
    ] = False,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
    batch: Annotated[
        Path | None,
        typer.Option(help='Plan a file of requests instead, a line each: {"id", "request", "tools"}.'),
    ] = None,
    out: Annotated[Path | None, typer.Option(help='Where --batch writes {"id", "plan"} for each.')] = None,
    planner: Annotated[str, typer.Option(help="For --batch: rules or model.")] = "rules",
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
        typer.Option(help="Where --batch keeps the encoder's export. [default: in the state directory]"),
    ] = None,
    words: Annotated[
        bool, typer.Option("--words", help="For --batch: compare by words alone, without the encoder.")
    ] = False,
) -> None:
    """Say which tools serve REQUEST, with what, in what order. Nothing is called.

    `toolyard run` does it. The tools are those of the running gateway; with --batch those given with each
    request.
    """
    if batch is not None:
        if out is None or request is not None:
            render.problem("--batch takes no request, and needs --out FILE.")
            raise typer.Exit(Exit.USAGE)
        where = None if words else cache or default_state_dir() / "cache"
        _batch(
            batch, out, planner, where, lambda rules: _by_model(rules, model_url, model, model_token, strings)
        )
        return
    if request is None or not request.strip():
        render.problem("Say what is to be done.", 'As in: toolyard plan "the weather in Rome and in Oslo"')
        raise typer.Exit(Exit.USAGE)
    with Waiting("planning"):
        found = RunClient(StateDir.at(state_dir)).plan(request)
    if json_:
        render.as_json(found)
        return
    show(found)
    if explain:
        _explain(found)


def show(found: dict[str, Any]) -> None:
    """Print a plan: its steps, what it asks for, and what it leaves out."""
    if found["plan"]:
        rows = [
            (
                step["id"],
                step["tool"],
                ", ".join(step["depends_on"]),
                json.dumps(step["arguments"], ensure_ascii=False),
            )
            for step in found["plan"]
        ]
        render.table(("step", "tool", "needs", "arguments"), rows)
    if note := found.get("note"):
        render.out(note)
    for question in found.get("questions", ()):
        render.out(f"Step {question['step']} asks: {question['question']}")


def _explain(found: dict[str, Any]) -> None:
    used = {step["tool"] for step in found["plan"]}
    for wish in found["wishes"]:
        render.out(f"\n{wish['text']}")
        rows = [
            ("*" if t["name"] in used else "", f"{t['score']:.2f}", t["name"], t["why"])
            for t in wish["tools"]
        ]
        if rows:
            render.table(("", "score", "tool", "why"), rows, right=("score",))
        else:
            render.out("No tool was found for it.")
    searched = "words and meaning" if found["mode"] == "hybrid" else "words alone"
    render.out(f"\nPlanned by {found['planner']}, over what a search by {searched} found.")


def _batch(
    batch: Path, out: Path, planner: str, cache: Path | None, by_model: Callable[[Planner], Planner]
) -> None:
    from router import batch as batches
    from router.errors import RouterError

    try:
        chosen = _planner(planner, cache)
        if planner == "model":
            chosen = by_model(chosen)
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
