"""Which values may flow into which tools: small named rules over labels.

A plan is fixed before any tool has said anything, so what a tool says cannot choose the next call; it
can still choose what the next call carries. Each rule names one way in which that does harm (CaMeL,
arXiv 2503.18813, security policies; SAFEFLOW, arXiv 2506.07564). A rule never forbids: it stops the step
until a person, who is shown the flow, has said yes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from router.facts import Facts
from router.labels import Label


@dataclass(frozen=True, slots=True)
class Flow:
    """A value of an earlier step on its way into an argument.

    :param step: the step whose result it is, or is part of; ``tool`` is what that step called.
    :param path: which part of the result; empty for the whole.
    :param into: the argument it goes to, as a JSON pointer.
    """

    step: str
    tool: str
    path: str
    into: str
    label: Label


@dataclass(frozen=True, slots=True)
class Rule:
    """One way for a value to do harm.

    :param why: what may happen, one sentence for the person who is asked.
    """

    name: str
    why: str
    stops: Callable[[Label, Facts], bool]


RULES: Final[Sequence[Rule]] = (
    Rule(
        "untrusted_to_write",
        "Somebody else's text would decide what is changed.",
        lambda label, tool: not label.trusted and not tool.read_only,
    ),
    Rule(
        "untrusted_to_network",
        "Somebody else's text would decide what is asked of, or told to, the outside world.",
        lambda label, tool: not label.trusted and tool.open_world,
    ),
    Rule(
        "untrusted_to_code",
        "Somebody else's text would be run.",
        lambda label, tool: not label.trusted and tool.code,
    ),
    Rule(
        "confidential_to_open_world",
        "Something confidential would leave for the outside world.",
        lambda label, tool: label.confidential and tool.open_world,
    ),
)


@dataclass(frozen=True, slots=True)
class Stop:
    """A rule that stops a step, and the flows it stops it for."""

    rule: Rule
    flows: tuple[Flow, ...]


def stops(flows: Iterable[Flow], tool: Facts, rules: Sequence[Rule] = RULES) -> list[Stop]:
    """The rules that stop a call; empty where it may be made."""
    known = tuple(flows)
    found = []
    for rule in rules:
        caught = tuple(flow for flow in known if rule.stops(flow.label, tool))
        if caught:
            found.append(Stop(rule, caught))
    return found


def result_label(tool: Facts, inputs: Label) -> Label:
    """The label of what a tool returns when it was given values with this label.

    What a trusted tool makes of untrusted values is untrusted: it may hand them on.
    """
    own = Label(frozenset((tool.server or tool.name,)), tool.trusted, tool.confidential)
    return own.join(inputs)


def told(flow: Flow, tool: Facts) -> str:
    """A flow as a sentence for a person."""
    part = f" at {flow.path}" if flow.path else ""
    marks = [
        name
        for name, on in (("untrusted", not flow.label.trusted), ("confidential", flow.label.confidential))
        if on
    ]
    kind = f"{' and '.join(marks)}, " if marks else ""
    sources = ", ".join(sorted(flow.label.sources)) or "the request"
    return f"{flow.into} of {tool.name} is what step {flow.step} ({flow.tool}) returned{part}: {kind}from {sources}."
