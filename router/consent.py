"""Whose word a step needs before it is called, and how that is asked.

Only a tool whose approved annotations, or a person's policy, say read-only runs unasked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, TypeAlias

import msgspec

from router.facts import Facts
from router.plan import Step
from router.runs import Question, Verdict
from router.trust import Stop, told

MAX_PREVIEW: Final = 4000
"""Characters of arguments that a person is shown."""


class Consent(StrEnum):
    """What runs without being asked about."""

    ASK = "ask"
    """Nothing."""
    READS = "reads"
    """Read-only tools."""
    ALL = "all"
    """Every step of the plan as it was shown. What a rule of trust stops is asked about all the same,
    and so is a write that a replanner adds: neither was there to be approved."""


Asked: TypeAlias = Callable[[str, Step, Question], Awaitable[Verdict | None]]
"""Asks a person: run, step, question. None where nobody can be asked, or nobody answered."""


def digest(tool: Facts, arguments: Mapping[str, Any]) -> str:
    """What an approval is bound to: the tool at its version, with exactly these arguments."""
    definition = tool.definition
    body = [definition.server, definition.name, definition.hash, arguments]
    return hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest()


def preview(arguments: Mapping[str, Any]) -> str:
    """Arguments as a person is shown them."""
    text = msgspec.json.format(msgspec.json.encode(arguments), indent=2).decode()
    return text if len(text) <= MAX_PREVIEW else f"{text[:MAX_PREVIEW]} … ({len(text):,} characters)"


def question(
    tool: Facts,
    arguments: Mapping[str, Any],
    stopped: Sequence[Stop],
    mode: Consent,
    *,
    added: bool = False,
) -> Question | None:
    """What has to be asked before a step is called; None where it may be called at once.

    :param added: whether a replanner added it, so that no approval of the whole plan covers it.
    """
    rules = [stop.rule.name for stop in stopped]
    reasons = [stop.rule.why for stop in stopped]
    if not tool.read_only and (mode is not Consent.ALL or added):
        rules.insert(0, "consent")
        reasons.insert(0, f"{tool.name} is not known to be read-only.")
    elif mode is Consent.ASK:
        rules.insert(0, "consent")
        reasons.insert(0, f"{tool.name} is read-only; every step was to be asked about.")
    if not rules:
        return None
    flows = dict.fromkeys(told(flow, tool) for stop in stopped for flow in stop.flows)
    return Question(
        tuple(rules),
        f"Call {tool.name} of {tool.server or 'this machine'}? {' '.join(reasons)}",
        tuple(flows),
        preview(arguments),
        digest(tool, arguments),
    )
