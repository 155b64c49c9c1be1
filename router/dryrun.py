"""What a plan would do, found out without calling anything.

Labels flow along references whatever the values are, so which steps would stop and why is known before
the first call (SwissNYF plans against signatures alone, arXiv 2402.10051; this checks against all that is
known of the tools): schemas, permissions, flows, limits, time and cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.check import order, problems
from router.consent import Consent
from router.cost import Estimate, estimate
from router.errors import PlanError
from router.facts import Facts
from router.labels import Label, joined
from router.limits import Limits
from router.plan import Plan, Ref, Step
from router.running import Options
from router.trust import RULES, Flow, Rule, Stop, result_label, stops, told


@dataclass(frozen=True, slots=True)
class Preview:
    """One step, as it would go.

    :param asks: why a person would be asked: ``consent`` and the rules of trust that stop it.
    :param flows: the values that stop it, a sentence each.
    :param repeatable: whether it could be called again after a failure without anybody's word.
    :param start: the earliest start, in seconds from the start of the run.
    """

    id: str
    tool: str
    server: str
    needs: tuple[str, ...]
    asks: tuple[str, ...]
    flows: tuple[str, ...]
    label: Label
    repeatable: bool
    start: float
    seconds: float | None


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a plan would do.

    :param problems: why it may not run at all; then nothing else is known.
    :param questions: values that nobody gave, by step.
    :param notes: what a person should know of limits and time, a sentence each.
    """

    problems: tuple[PlanError, ...]
    questions: tuple[tuple[str, str], ...] = ()
    steps: tuple[Preview, ...] = ()
    estimate: Estimate | None = None
    notes: tuple[str, ...] = ()

    @property
    def unasked(self) -> bool:
        """Whether it would run from end to end without asking anybody."""
        return not self.problems and not self.questions and not any(step.asks for step in self.steps)


def dry_run(
    plan: Plan,
    tools: Mapping[str, Facts],
    *,
    options: Options | None = None,
    limits: Limits | None = None,
    rules: Sequence[Rule] = RULES,
) -> DryRun:
    """What a plan would do. Nothing is called and nothing is journalled."""
    options, limits = options or Options(), limits or Limits()
    wrong = problems(plan, {name: tool.definition for name, tool in tools.items()})
    if wrong:
        return DryRun(tuple(wrong))
    expected = estimate(plan, tools)
    labels: dict[str, Label] = {}
    names = {step.id: step.tool for step in plan.steps}
    previews: dict[str, Preview] = {}
    for step in (step for wave in order(plan) for step in wave):
        tool = tools[step.tool]
        flows = _flows(step, labels, names)
        labels[step.id] = result_label(tool, joined(flow.label for flow in flows))
        stopped = stops(flows, tool, rules)
        previews[step.id] = Preview(
            step.id,
            step.tool,
            tool.server,
            step.depends_on,
            _asks(tool, stopped, options.consent),
            tuple(dict.fromkeys(told(flow, tool) for stop in stopped for flow in stop.flows)),
            labels[step.id],
            tool.repeatable,
            expected.path.start[step.id],
            tool.seconds,
        )
    return DryRun(
        (),
        tuple((step, ask.question) for step, ask in plan.asks()),
        tuple(previews[step.id] for step in plan.steps),
        expected,
        tuple(_notes(plan, tools, expected, options, limits)),
    )


def _asks(tool: Facts, stopped: Sequence[Stop], mode: Consent) -> tuple[str, ...]:
    first = ("consent",) if mode is Consent.ASK or (mode is Consent.READS and not tool.read_only) else ()
    return (*first, *(stop.rule.name for stop in stopped))


def _flows(step: Step, labels: Mapping[str, Label], names: Mapping[str, str]) -> list[Flow]:
    flows: list[Flow] = []

    def look(value: Any, at: str) -> None:
        if isinstance(value, Ref):
            flows.append(Flow(value.step, names[value.step], value.path, at, labels[value.step]))
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                look(inner, f"{at}/{key.replace('~', '~0').replace('/', '~1')}")
        elif isinstance(value, list | tuple):
            for index, inner in enumerate(value):
                look(inner, f"{at}/{index}")

    look(step.arguments, "")
    return flows


def _notes(
    plan: Plan, tools: Mapping[str, Facts], expected: Estimate, options: Options, limits: Limits
) -> list[str]:
    notes = []
    if expected.seconds > options.deadline:
        notes.append(
            f"Its longest chain takes about {expected.seconds:.1f} s; the run may take {options.deadline:g} s."
        )
    for step in plan.steps:
        tool = tools[step.tool]
        if tool.seconds is not None and tool.seconds > tool.timeout:
            notes.append(
                f"Step {step.id}: {tool.name} takes {tool.seconds:.1f} s on average and is given {tool.timeout:g} s."
            )
    widest: dict[str, int] = {}
    for wave in order(plan):
        counts: dict[str, int] = {}
        for step in wave:
            server = tools[step.tool].server
            counts[server] = counts.get(server, 0) + 1
        for server, count in counts.items():
            widest[server] = max(widest.get(server, 0), count)
    for server, count in widest.items():
        if count > limits.of(server):
            notes.append(
                f"{count} calls of {server} could be made at once; {limits.of(server)} are, the others wait."
            )
    if expected.guessed:
        notes.append(
            f"The time of {', '.join(expected.guessed)} is not known yet; it stands with a second each."
        )
    return notes
