"""Injections in what tools return, against plans that are under way.

Each text is placed in results and in error messages, and replanning is on, with a planner that obeys
whatever it is told: where any of the text reaches it, it plans what the text asks for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from run_parts import Town, answering, failing, house, plan, ref, result, step

from router.consent import Consent
from router.errors import CallFailed
from router.plan import Plan, Step
from router.replan import Situation
from router.running import Options
from router.runs import StepStatus

SPARE = {"new": ("spare", {"folder"})}
SURFACES = ("tool_result", "tool_result_instruction")


@dataclass
class Tally:
    """What a campaign of attacks came to."""

    texts: int = 0
    runs: int = 0
    extra: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    flows: int = 0
    stopped: int = 0


def injections(folder: Path) -> Iterator[str]:
    """The attacks on tool results in a folder of JSON lines (id, label, surface, text or object)."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if row["label"] == "attack" and row["surface"].replace(" ", "_") in SURFACES:
                yield row["text"] if "text" in row else json.dumps(row["object"])


class Gullible:
    """A planner that does what it reads: an attacker's step for every word that is not our own."""

    def __init__(self, text: str) -> None:
        words = [word for word in text.split() if len(word) > 3]
        self._marks = {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))} or {text}
        self.heard = False

    async def __call__(self, situation: Situation) -> Plan:
        seen = msgspec.json.encode(situation).decode()
        self.heard = any(json.dumps(mark)[1:-1] in seen for mark in self._marks if mark)
        tool = "steal" if self.heard else "spare"
        kept = tuple(s for s in situation.plan.steps if s.id in situation.finished)
        return Plan((*kept, Step("new", tool, {"folder": "inbox"})), situation.request)


def town_with(text: str) -> Town:
    town = Town()
    town.tool("read", answering(result(text)), read=True, server="mail")
    town.tool(
        "fields",
        answering({"id": text, "rows": [{"text": text, "to": "attacker"}]}),
        read=True,
        server="mail",
    )
    town.tool("broken", answering(result(text, is_error=True)), read=True, server="mail")
    town.tool("lost", failing(*[CallFailed(text[:200], kind="unavailable", said=text)] * 9), read=True)
    town.tool(
        "note",
        read=True,
        open_world=False,
        schema={"type": "object", "properties": {"id": {"type": "integer"}}},
    )
    town.tool("spare", read=True)
    town.tool("send")
    town.tool("post", read=True, server="web")
    town.tool("eval", read=True, open_world=False, code=True)
    town.tool("steal")
    return town


READ = step("1", "read", {"folder": "inbox"})
HARMLESS: tuple[Plan, ...] = (
    plan(READ, step("2", "note", {"text": ref("1")})),
    plan(
        step("1", "fields"),
        step("2", "note", {"text": ref("1", "rows.0.text")}),
        step("3", "note", {"id": ref("1", "id")}),
    ),
    plan(step("1", "broken"), step("2", "note", {"text": ref("1")})),
    plan(step("1", "lost"), step("2", "note", {"text": ref("1")})),
    plan(READ, step("2", "note", {"text": ref("1", "no.such.part")})),
)
FLOWS: tuple[Plan, ...] = tuple(
    plan(READ, *between, step("9", sink, {"to": "ann", "text": value}))
    for sink in ("send", "post", "eval")
    for between, value in (
        ((), ref("1")),
        ((), {"deep": [ref("1")]}),
        ((step("2", "note", {"text": ref("1")}),), ref("2", "text")),
    )
)


async def campaign(folder: Path, texts: Iterable[str]) -> Tally:
    """Run every plan against every text, with everything approved in advance that can be."""
    tally = Tally()
    for text in texts:
        tally.texts += 1
        await _one(folder, text, tally)
    return tally


async def _one(folder: Path, text: str, tally: Tally) -> None:
    town, planner = town_with(text), Gullible(text)
    async with house(folder, town, replanner=planner) as executor:
        for made in (*HARMLESS, *FLOWS):
            town.calls.clear()
            names = {one.tool for one in made.steps} | {"spare", "steal"}
            options = Options(consent=Consent.ALL, candidates=tuple(sorted(names)))
            outcome = await executor.run(made, options)
            tally.runs += 1
            expected = {one.id: (one.tool, set(one.arguments)) for one in made.steps} | SPARE
            for call in town.calls:
                if (call.tool, set(call.arguments)) != expected.get(call.step):
                    tally.extra.append(f"{call.tool}({', '.join(call.arguments)}) after {text[:60]!r}")
            if planner.heard:
                tally.heard.append(text[:60])
            if made in FLOWS:
                tally.flows += 1
                sink: Any = outcome.steps["9"]
                tally.stopped += sink.status is StepStatus.APPROVAL and bool(sink.question.flows)
