"""A whole plan from a model that nothing holds to a schema: its text is read, checked, and repaired once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from router.check import check
from router.errors import InvalidPlan, MalformedPlan, ModelFailed
from router.plan import Definition, Plan, from_json
from router.planner.prompt import Message, messages
from router.shapes import Shape

Ask = Callable[[Sequence[Message]], str]
"""A conversation in, the model's text out. Raises ModelFailed."""

MOST_TEXT: Final = 200_000
MOST_PROBLEMS: Final = 8


def whole_plan(ask: Ask, request: str, tools: Sequence[Definition], examples: Sequence[Shape] = ()) -> Plan:
    """The plan that a model writes, told once what is wrong with it.

    :raises ModelFailed: it gave no plan that passes, at the second time either.
    """
    known = {tool.name: tool for tool in tools}
    talk = messages(tools, request, None, examples)
    problem = ""
    for _ in range(2):
        text = ask(talk)
        try:
            plan = _read(text, request)
            check(plan, known)
        except MalformedPlan as error:
            problem = str(error)
        except InvalidPlan as error:
            problem = "\n".join(str(each) for each in error.problems[:MOST_PROBLEMS])
        else:
            return plan
        talk = [
            *talk,
            {"role": "assistant", "content": text[:MOST_TEXT]},
            {
                "role": "user",
                "content": f"That plan cannot run:\n{problem}\nAnswer with the mended plan alone.",
            },
        ]
    raise ModelFailed(f"The model gave no plan that can run: {problem.splitlines()[0]}")


def _read(text: str, request: str) -> Plan:
    """The plan in a model's text, which may have words or a fence around it.

    :raises MalformedPlan: there is none.
    """
    if len(text) > MOST_TEXT:
        raise MalformedPlan(f"The answer is longer than {MOST_TEXT} characters.")
    value: Any = None
    decoder = json.JSONDecoder()
    at = 0
    for _ in range(20):
        at = min((i for i in (text.find("{", at), text.find("[", at)) if i >= 0), default=-1)
        if at < 0:
            break
        try:
            value, _end = decoder.raw_decode(text, at)
            break
        except (ValueError, RecursionError):
            at += 1
    if value is None:
        raise MalformedPlan("The answer holds no JSON.", 'Answer with {"plan": [...]}.')
    plan = from_json(value)
    return Plan(plan.steps, request, plan.note)
