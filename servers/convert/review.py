"""Every shown tool is called, the answers are judged, and what does not answer is not shown.

Two passes in two processes: the second repeats the calls that answered, so that an answer that depends on the
process or the hour is known as such.
"""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from servers.convert import schema
from servers.convert.borrowed import Neighbours
from servers.convert.docstrings import Example
from servers.convert.repair import missing_in
from servers.convert.trials import Trial, made_up, of_kind, trials
from servers.errors import WorkerFailed
from servers.manifest.calls import worker_record
from servers.manifest.records import Evidence, Tool
from servers.process import Place, WorkerHung, WorkerProcess

_WEEKS: Final = 40 * 86400.0
CALL_SECONDS: Final = 4.0
_READINGS: Final = ("timedelta", "datetime", "date", "decimal")
SHOWN: Final = 600


@dataclass(slots=True)
class Review:
    """What review found.

    :ivar evidence: tool name -> what happened.
    :ivar repaired: tool name -> the tool with a parameter whose type was learned.
    :ivar missing: modules whose absence made a call fail.
    """

    evidence: dict[str, Evidence] = field(default_factory=dict)
    repaired: dict[str, Tool] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(self, other: Review) -> None:
        """Take over what another round found."""
        self.evidence |= other.evidence
        self.repaired |= other.repaired
        self.missing += [module for module in other.missing if module not in self.missing]


class Reviewer:
    """Calls tools in workers of one place, a new one after each crash or hang."""

    def __init__(self, place: Place, preload: Sequence[str], seconds: float) -> None:
        self._place = place
        self._preload = list(preload)
        self._deadline = time.monotonic() + seconds
        self._worker: WorkerProcess | None = None

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _ask(self, tool: Tool, arguments: dict[str, Any]) -> tuple[dict[str, Any], float]:
        if self._worker is None or not self._worker.alive:
            self.close()
            self._worker = WorkerProcess(self._place)
            self._worker.start()
            self._worker.ask("import", 60.0, modules=self._preload)
        start = time.perf_counter()
        try:
            answer = self._worker.ask(
                "call", CALL_SECONDS + 1, tool=worker_record(tool), arguments=arguments, seconds=CALL_SECONDS
            )
        except WorkerHung:
            answer = {"ok": False, "error": {"kind": "hang", "message": "no answer"}}
        except WorkerFailed as error:
            answer = {"ok": False, "error": {"kind": "crash", "message": error.message}}
        return answer, time.perf_counter() - start

    def out_of_time(self) -> bool:
        """Whether the budget is spent."""
        return time.monotonic() > self._deadline

    def review(self, tool: Tool, calls: Iterable[Trial], review: Review) -> Evidence:
        """Try one tool until it answers; then try it with other arguments."""
        last = Evidence(outcome="unreviewed", note="there was no time to review it")
        answered: Evidence | None = None
        values: list[str] = []
        tried: list[dict[str, Any]] = []
        for trial in calls:
            if self.out_of_time():
                break
            if trial.arguments in tried:  # an example may show what would be made up: that is no other input
                continue
            tried.append(trial.arguments)
            answer, seconds = self._ask(tool, trial.arguments)
            found = judge(answer, trial, seconds)
            if found.outcome == "answer":
                values.append(json.dumps(answer.get("value"), sort_keys=True))
                answered = answered or found
                if len(values) >= 2:
                    break
                continue
            module = missing_in(found.note)
            if module and module not in review.missing:
                review.missing.append(module)
            last = _worse(last, found)
            if found.outcome in ("crash", "hang"):
                break
        if answered is None:
            return last
        varies = None if len(values) < 2 or not tool.parameters else values[0] != values[1]
        if varies is False:
            learned = self._learn(tool)
            if learned is not None:
                review.repaired[tool.name], answered = learned
                varies = True
        return _changed(answered, varies=varies)

    def _learn(self, tool: Tool) -> tuple[Tool, Evidence] | None:
        """A reading of the one untyped parameter with which the answer does depend on it (ReLoop's perturbation).

        A function that is given seconds where it wants a duration may answer without complaint, and wrongly.
        """
        open_ones = [each for each in tool.parameters if each.required]
        if len(open_ones) != 1 or open_ones[0].type.get("k") != "any":
            return None
        for kind in _READINGS:
            learned = schema.with_type(
                tool, open_ones[0].name, {"k": "union", "of": [{"k": kind}, {"k": "any"}]}
            )
            answers = []
            for variant in (0, 1):
                trial = Trial(
                    {**made_up(tool, variant), open_ones[0].name: of_kind({"k": kind}, variant)}, "typed"
                )
                answer, seconds = self._ask(learned, trial.arguments)
                if answer["ok"]:
                    answers.append((answer.get("value"), judge(answer, trial, seconds)))
            if len(answers) == 2 and answers[0][0] != answers[1][0]:
                return learned, _changed(
                    answers[0][1], note=f"learned that '{open_ones[0].name}' is a {kind}"
                )
        return None

    def repeat(self, tool: Tool, evidence: Evidence) -> bool:
        """Whether the recorded call gives the recorded answer again."""
        answer, _ = self._ask(tool, evidence.arguments)
        return bool(answer.get("ok")) and shown(answer.get("value")) == evidence.result


def run(
    place: Place,
    preload: Sequence[str],
    tools: Sequence[Tool],
    examples: dict[str, list[Example]],
    seconds: float,
    enough: int,
) -> Review:
    """Review tools in order until enough have answered or the time is up; then repeat what answered elsewhere."""
    review = Review()
    answered = 0
    reviewer = Reviewer(place, preload, seconds)
    try:
        for tool in tools:
            if reviewer.out_of_time() or answered >= enough:
                break
            found = reviewer.review(tool, trials(tool, examples.get(tool.name, [])), review)
            review.evidence[tool.name] = found
            answered += found.outcome == "answer"
        _ask_neighbours(reviewer, tools, review)
    finally:
        reviewer.close()
    second = Reviewer(place, preload, max(2.0, seconds / 2))
    try:
        for tool in tools:
            evidence = review.evidence.get(tool.name)
            if evidence is None or evidence.outcome != "answer":
                continue
            if second.out_of_time():
                # an answer nobody saw twice is not called repeatable
                review.evidence[tool.name] = _changed(
                    evidence, deterministic=False, note="its answer was not repeated"
                )
                continue
            if tells_time(evidence.result) or speaks_of_now(tool):
                note = "its answer depends on the clock"
                review.evidence[tool.name] = _changed(evidence, deterministic=False, note=note)
            elif not second.repeat(review.repaired.get(tool.name, tool), evidence):
                review.evidence[tool.name] = _changed(evidence, deterministic=False)
    finally:
        second.close()
    return review


def _ask_neighbours(reviewer: Reviewer, tools: Sequence[Tool], review: Review) -> None:
    """Try what was refused with the values of tools that answered."""
    answers = [
        (tool, found)
        for tool in tools
        if (found := review.evidence.get(tool.name)) is not None and found.outcome == "answer"
    ]
    neighbours = Neighbours(answers)
    for tool in tools:
        before = review.evidence.get(tool.name)
        if before is None or before.outcome != "refusal" or tool.kind == "cli":
            continue
        found = reviewer.review(tool, neighbours.trials(tool), review)
        if found.outcome == "answer":
            review.evidence[tool.name] = found


_NOW: Final = re.compile(r"(^|_)(now|today|utcnow|yesterday|tomorrow)$")
_CURRENT: Final = re.compile(r"\bcurrent (date|time|day|timestamp|utc)\b", re.I)


def speaks_of_now(tool: Tool) -> bool:
    """Whether a tool that needs no argument says itself that it goes by the clock; a repeat may be too soon to show."""
    if any(parameter.required for parameter in tool.parameters):
        return False
    return bool(_NOW.search(tool.name) or _CURRENT.search(tool.description[:200]))


def _changed(evidence: Evidence, **fields: Any) -> Evidence:
    return msgspec.structs.replace(evidence, **fields)


def judge(answer: dict[str, Any], trial: Trial, seconds: float) -> Evidence:
    """What an answer of a worker means: an answer, a clean refusal, a crash or a hang."""
    made: dict[str, Any] = {
        "arguments": trial.arguments,
        "source": trial.source,
        "seconds": round(seconds, 4),
    }
    if answer["ok"]:
        return Evidence(outcome="answer", result=shown(answer.get("value")), **made)
    error = answer["error"]
    outcome: Any = {"crash": "crash", "memory": "crash", "hang": "hang", "timeout": "hang"}.get(
        error["kind"], "refusal"
    )
    return Evidence(outcome=outcome, note=str(error["message"])[:400], **made)


def names_the_value(found: Evidence) -> bool:
    """Whether a refusal is about what a made-up text says (``no font 'hello world'``), and not about its type."""
    if re.match(r"(Type|Attribute|Assertion|Key|Index)Error\b", found.note):
        return False
    texts = [each for each in found.arguments.values() if isinstance(each, str) and len(each) > 3]
    return any(text[:60] in found.note for text in texts)


def shown(value: Any) -> str:
    """A result as the manifest records it."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)[:SHOWN]


def tells_time(result: str) -> bool:
    """Whether an answer holds today's date, or an instant of these weeks: it will be another one tomorrow."""
    now = datetime.datetime.now()
    for days in (-1, 0, 1):
        day = now + datetime.timedelta(days=days)
        if day.strftime("%Y-%m-%d") in result or f"{day.year}, {day.month}, {day.day}" in result:
            return True
    stamps = (float(each) for each in re.findall(r"(?<![\d.])\d{10}(?![\d])", result))
    return any(abs(stamp - now.timestamp()) < _WEEKS for stamp in stamps)


def _worse(first: Evidence, second: Evidence) -> Evidence:
    order = {"unreviewed": 0, "answer": 1, "refusal": 2, "hang": 3, "crash": 4}
    return second if order[second.outcome] > order[first.outcome] else first
