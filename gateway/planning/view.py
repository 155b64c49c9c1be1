"""Runs as the control socket and MCP clients see them: plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from router.cost import critical_path
from router.dryrun import DryRun
from router.plan import Plan, from_json
from router.runs import Run, StepState, StepStatus
from router.values import value_of


def run_row(run: Run) -> dict[str, Any]:
    """One run in a list."""
    return {
        "id": run.id,
        "request": run.request,
        "status": run.status.value,
        "reason": run.reason,
        "revision": run.revision,
        "steps": len(run.plan.get("plan", ())),
        "created_at": run.created_at,
        "ended_at": run.ended_at,
    }


def run_view(
    run: Run, states: Mapping[str, StepState], results: Mapping[str, bytes] | None = None
) -> dict[str, Any]:
    """A run with its steps, in the order of the plan; those of earlier revisions last.

    :param results: bodies by step, for those whose value is to be shown.
    """
    plan = from_json(run.plan)
    needs = {step.id: step.depends_on for step in plan.steps}
    order = [*needs, *(id_ for id_ in states if id_ not in needs)]
    steps = [
        step_view(states.get(id_) or StepState(id_, _tool(plan, id_)), needs.get(id_, ()), results or {})
        for id_ in order
    ]
    return {**run_row(run), "steps": steps, "critical_s": _critical(plan, states)}


def _tool(plan: Plan, id_: str) -> str:
    return next(step.tool for step in plan.steps if step.id == id_)


def _critical(plan: Plan, states: Mapping[str, StepState]) -> float:
    seconds = {s.id: (states[s.id].seconds or 0.0) if s.id in states else 0.0 for s in plan.steps}
    return round(critical_path(plan, seconds).seconds, 3)


def step_view(state: StepState, needs: tuple[str, ...], results: Mapping[str, bytes]) -> dict[str, Any]:
    """One step. What a tool said is under ``said`` and ``value`` alone, and is untrusted."""
    seconds = state.seconds
    view: dict[str, Any] = {
        "id": state.id,
        "tool": state.tool,
        "server": state.server,
        "status": state.status.value,
        "needs": list(needs),
        "attempts": state.attempts,
        "revision": state.revision,
        "started_at": state.started_at,
        "seconds": round(seconds, 3)
        if seconds is not None and state.status is not StepStatus.RUNNING
        else None,
        "cached": state.cached,
    }
    if state.sent:
        view["arguments"] = state.sent
    if state.label is not None:
        view["trusted"], view["confidential"] = state.label.trusted, state.label.confidential
    if state.result is not None:
        view["result"] = {"handle": state.result.handle, "bytes": state.result.size}
    if state.failure is not None:
        view["error"] = {"type": state.failure.kind, "message": state.failure.message}
        view["error"] |= {
            key: value for key in ("path", "schema_path", "said") if (value := getattr(state.failure, key))
        }
    if state.question is not None:
        view["question"] = {
            "rules": list(state.question.rules),
            "text": state.question.text,
            "flows": list(state.question.flows),
            "arguments": state.question.preview,
        }
    if state.id in results:
        view["value"] = _value(results[state.id])
    return view


def _value(body: bytes) -> Any:
    try:
        return value_of(body)
    except msgspec.MsgspecError:
        return None


def dry_view(found: DryRun) -> dict[str, Any]:
    """What a plan would do."""
    expected = found.estimate
    return {
        "problems": [
            {"type": p.kind, "step": p.step, "message": p.message, "hint": p.hint} for p in found.problems
        ],
        "questions": [{"step": step, "question": question} for step, question in found.questions],
        "steps": [
            {
                "id": step.id,
                "tool": step.tool,
                "server": step.server,
                "needs": list(step.needs),
                "asks": list(step.asks),
                "flows": list(step.flows),
                "repeatable": step.repeatable,
                "start_s": round(step.start, 3),
                "seconds": step.seconds,
            }
            for step in found.steps
        ],
        "seconds": round(expected.seconds, 3) if expected is not None else None,
        "calls_s": round(expected.total, 3) if expected is not None else None,
        "cost": expected.cost if expected is not None else None,
        "critical_path": list(expected.path.steps) if expected is not None else [],
        "notes": list(found.notes),
        "unasked": found.unasked,
    }
