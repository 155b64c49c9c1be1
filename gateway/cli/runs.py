"""``run`` and ``runs``: plans that are run, followed, answered and taken up again."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.admin.run_client import RunClient
from gateway.cli import dag, picture, render
from gateway.cli.exits import Exit
from gateway.cli.shared import JsonFlag, StateFlag, verb
from gateway.cli.waiting import Waiting
from gateway.errors import GatewayError
from gateway.paths import StateDir

_EVERY: Final = 0.2
"""Seconds between two looks at a run that is followed on a terminal."""
_OVER: Final = frozenset({"done", "failed", "cancelled", "waiting_approval"})

RunArgument = Annotated[str, typer.Argument(metavar="ID", hidden=True)]
StepArgument = Annotated[str, typer.Argument(metavar="STEP", hidden=True)]
NoWaitFlag = Annotated[bool, typer.Option("--no-wait", help="Do not wait for the end.")]


def add_to(app: typer.Typer) -> typer.Typer:
    """Add the verbs of this file. Returns the group ``runs``, for further ones."""
    verb(app, '"REQUEST" | FILE', run)
    group = typer.Typer(
        name="runs", help="Runs of plans.", rich_markup_mode=None, no_args_is_help=True, add_completion=False
    )
    verb(group, "", list_runs, name="list")
    verb(group, "ID", show)
    verb(group, "ID", resume)
    verb(group, "ID", cancel)
    verb(group, "ID STEP", approve)
    verb(group, "ID STEP", deny)
    app.add_typer(group)
    return group


def _client(state_dir: Path | None) -> RunClient:
    return RunClient(StateDir.at(state_dir))


def run(
    what: Annotated[str, typer.Argument(metavar="REQUEST | FILE", hidden=True)],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the plan would do; call nothing.")
    ] = False,
    approve_: Annotated[
        str, typer.Option("--approve", metavar="WHAT", help="What runs unasked: ask, reads or all.")
    ] = "reads",
    deadline: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help="How long it may take.")
    ] = 3600.0,
    hedge: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0, help="Ask a slow read-only tool a second time after this."),
    ] = None,
    no_wait: NoWaitFlag = False,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Plan REQUEST and run it, or run the plan in FILE, a JSON list of steps; a single - reads it from stdin.

    A step is {"id", "tool", "arguments", "depends_on"}; a value may be {"$ref": "ID", "path": "KEY.0.KEY"},
    the result of an earlier step. Steps run at the same time where they can. What is not known to be
    read-only waits for `toolyard runs approve`, unless --approve all is given; a value of somebody else's
    that would be written, sent or run is asked about in any case.
    """
    if approve_ not in ("ask", "reads", "all"):
        render.problem(f"--approve takes ask, reads or all, not {approve_!r}.")
        raise typer.Exit(Exit.USAGE)
    gateway = _client(state_dir)
    plan, candidates = _planned(gateway, what, as_json=json_)
    body = {
        "plan": plan,
        "candidates": candidates,
        "approve": approve_,
        "deadline": deadline,
        "hedge": hedge,
        "dry_run": dry_run,
    }
    answer = gateway.start_run(body)
    if dry_run:
        _dry(answer, as_json=json_)
        return
    if no_wait:
        render.as_json(answer) if json_ else render.out(answer["id"])
        return
    _follow(gateway, answer["id"], as_json=json_)


def _planned(gateway: RunClient, what: str, *, as_json: bool) -> tuple[Any, list[str]]:
    """The plan to run, and the tools it was chosen from: of a file, or made for a request."""
    if not what.strip():
        render.problem("Say what is to be done.", 'As in: toolyard run "the weather in Rome and in Oslo"')
        raise typer.Exit(Exit.USAGE)
    named = what.endswith(".json") and not any(map(str.isspace, what))
    if what == "-" or named or os.path.isfile(what):  # which says no where a request is too long for a name
        return _plan(what), []
    with Waiting("planning"):
        found = gateway.plan(what)
    if not found["plan"]:
        render.as_json(found) if as_json else render.out(found.get("note", "No tool fits."))
        raise typer.Exit(Exit.FAILED)
    if found.get("note"):
        render.note(found["note"])
    if found.get("questions"):
        found = _answered(found, as_json=as_json)
    return {key: found[key] for key in ("request", "plan", "note") if key in found}, found["candidates"]


def _answered(found: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """The plan with what the person at the terminal answers; where there is none, its questions end it."""
    from gateway.planning.questions import answered, read_answer, read_question
    from router.errors import BadRequest
    from router.plan import from_json, to_json

    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        if as_json:
            render.as_json(found)
        for question in found["questions"]:
            render.problem(f"Step {question['step']} asks: {question['question']}")
        render.note(
            "Say it in the request, or answer in the plan: toolyard plan --json, then toolyard run FILE."
        )
        raise typer.Exit(Exit.FAILED)
    questions = [read_question(value) for value in found["questions"]]
    answers: dict[str, Any] = {}
    for question in questions:
        while question.key not in answers:
            try:
                answers[question.key] = read_answer(question, typer.prompt(question.text))
            except BadRequest as error:
                render.problem(error.message, error.hint)
    try:
        return {**found, **to_json(answered(from_json(found), questions, answers))}
    except BadRequest as error:
        render.problem(error.message, error.hint)
        raise typer.Exit(Exit.FAILED) from None


def _plan(file: str) -> Any:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        render.problem(f"{file} cannot be read: {why}.", "Give a file with a plan in JSON.")
        raise typer.Exit(Exit.USAGE) from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        render.problem(f"{file} is not JSON: {error}.")
        raise typer.Exit(Exit.USAGE) from None


def _dry(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        render.as_json(found)
    else:
        for problem in found["problems"]:
            render.problem(problem["message"], problem["hint"])
        for question in found["questions"]:
            render.out(f"Step {question['step']} asks: {question['question']}")
        if found["steps"]:
            cells = [
                (
                    s["id"],
                    s["tool"],
                    ", ".join(s["needs"]),
                    f"{s['start_s']:.1f} s",
                    ", ".join(s["asks"]) or "-",
                )
                for s in found["steps"]
            ]
            render.table(("step", "tool", "needs", "starts", "asks about"), cells)
            render.out(
                f"About {found['seconds']:.1f} s along {', '.join(found['critical_path'])}; "
                f"{found['calls_s']:.1f} s of calls in all."
            )
        for step in found["steps"]:
            for flow in step["flows"]:
                render.out(flow)
        for note in found["notes"]:
            render.out(note)
    if found["problems"]:
        raise typer.Exit(Exit.FAILED)


def _follow(gateway: RunClient, run_: str, *, as_json: bool) -> None:
    """Follow a run to its end, or until it waits for a person."""
    try:
        found = _watch(gateway, run_) if sys.stdout.isatty() and not as_json else _wait(gateway, run_)
    except KeyboardInterrupt:
        render.note(f"The run goes on: toolyard runs show {run_}")
        raise
    found = gateway.run(run_, values=True)
    if as_json:
        render.as_json(found)
    else:
        _told(found, drawn=sys.stdout.isatty())
    if found["status"] != "done":
        raise typer.Exit(Exit.FAILED)


def _wait(gateway: RunClient, run_: str) -> dict[str, Any]:
    while (found := gateway.run(run_, wait=20.0))["status"] not in _OVER:
        pass
    return found


def _watch(gateway: RunClient, run_: str) -> dict[str, Any]:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(highlight=False), auto_refresh=False, transient=False) as live:
        while True:
            found = gateway.run(run_, wait=_EVERY)
            live.update(dag.table(found, live.console.width), refresh=True)
            if found["status"] in _OVER:
                return found


def _told(found: dict[str, Any], *, drawn: bool = False) -> None:
    """Say how a run stands, and what a person can do about it."""
    if not drawn:
        render.table(("step", "tool", "needs", "state", "time"), dag.rows(found))
    seconds = (found["ended_at"] - found["created_at"]) if found["ended_at"] else None
    took = (
        f" after {seconds:.2f} s (longest chain {found['critical_s']:.2f} s)" if seconds is not None else ""
    )
    render.out(f"Run {found['id']}: {found['status'].replace('_', ' ')}{took}")
    for step in found["steps"]:
        if error := step.get("error"):
            render.out(f"Step {step['id']}: {error['message']}")
            if said := error.get("said"):
                render.out(f"  {step['tool']} said: {render.first_line(said)}")
        if question := step.get("question"):
            _asked(found["id"], step, question)
    used = {need for step in found["steps"] for need in step["needs"]}
    for step in found["steps"]:
        if "value" in step and step["id"] not in used:
            value = step["value"]
            if isinstance(value, dict) and value.keys() == {"result"}:
                value = value["result"]  # as functions of converted services answer
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
            render.out(f"{step['id']} {step['tool']}:\n{text}")


def _asked(run_: str, step: dict[str, Any], question: dict[str, Any]) -> None:
    render.out(f"Step {step['id']}: {question['text']}")
    for flow in question["flows"]:
        render.out(f"  {flow}")
    if question["arguments"]:
        render.out("  " + question["arguments"].replace("\n", "\n  "))
    render.out(f"  toolyard runs approve {run_} {step['id']}    or deny")
    if "outcome_unknown" in question["rules"]:
        render.out(f"  toolyard runs approve --happened {run_} {step['id']}    if it was carried out")


def list_runs(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, latest first.")] = 20,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """List the latest runs."""
    found = _client(state_dir).runs(limit)
    if json_:
        render.as_json({"runs": found})
    elif not found:
        render.out("No plan was run yet.")
    else:
        cells = [
            (
                r["id"],
                r["status"].replace("_", " "),
                str(r["steps"]),
                render.ago(r["created_at"]),
                r["request"],
            )
            for r in found
        ]
        render.table(("id", "status", "steps", "begun", "request"), cells, right=("steps",))


def show(
    run_: RunArgument,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw its graph into a file.")] = None,
    history: Annotated[bool, typer.Option("--history", help="Everything that happened, in order.")] = False,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Show the run ID: its steps, their results, and what it waits for."""
    gateway = _client(state_dir)
    found = gateway.run(run_, values=True)
    events = gateway.run_events(run_) if history else []
    if svg is not None:
        try:
            svg.write_text(picture.svg(found), encoding="utf-8")
        except OSError as error:
            raise GatewayError(f"{svg} cannot be written: {error.strerror}.", "Name another file.") from None
        if not json_:
            render.out(f"Its graph is in {svg}.")
    if json_:
        render.as_json({**found, "events": events} if history else found)
        return
    _told(found)
    for event in events:
        where = f"step {event['step']}" if event["step"] else "run"
        attempt = f" (attempt {event['attempt']})" if event["attempt"] > 1 else ""
        detail = ", ".join(f"{key} {value}" for key, value in event["detail"].items())
        offset = event["at"] - found["created_at"]
        render.out(
            f"{offset:9.3f} s  {'  ' if event['step'] else ''}{where}: {event['kind']}{attempt} {detail}".rstrip()
        )


def resume(
    run_: RunArgument,
    retry: Annotated[bool, typer.Option("--retry-failed", help="Try again what has failed, too.")] = False,
    no_wait: NoWaitFlag = False,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Take the run ID up where it stands, and follow it."""
    gateway = _client(state_dir)
    gateway.resume_run(run_, retry=retry)
    if not no_wait:
        _follow(gateway, run_, as_json=json_)


def cancel(run_: RunArgument, json_: JsonFlag = False, state_dir: StateFlag = None) -> None:
    """Give the run ID up: calls in flight are cancelled, results are kept."""
    found = _client(state_dir).cancel_run(run_)
    render.as_json(found) if json_ else _told(found)


def approve(
    run_: RunArgument,
    step: StepArgument,
    happened: Annotated[
        bool, typer.Option("--happened", help="It was carried out: go on without calling it again.")
    ] = False,
    no_wait: NoWaitFlag = False,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Give leave to call STEP of the run ID as it was shown, and follow the run."""
    _decide(run_, step, "happened" if happened else "approve", no_wait, json_, state_dir)


def deny(
    run_: RunArgument,
    step: StepArgument,
    no_wait: NoWaitFlag = False,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Say no to STEP of the run ID: it fails, and what needs it is left out."""
    _decide(run_, step, "deny", no_wait, json_, state_dir)


def _decide(run_: str, step: str, verdict: str, no_wait: bool, as_json: bool, state_dir: Path | None) -> None:
    gateway = _client(state_dir)
    gateway.decide(run_, step, verdict)
    if not no_wait:
        _follow(gateway, run_, as_json=as_json)
