"""Runs become tools: a plan that worked is given a name, and its values become parameters."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread

from gateway.planning.runs import Runs

if TYPE_CHECKING:
    from router.composite import Composite


async def promote(
    runs: Runs, run: str, name: str, description: str = "", fixed: tuple[str, ...] = ()
) -> Composite:
    """Give the plan of a run a name, under which it is kept as a tool.

    :param fixed: parameters whose values of this run become part of the tool.
    :raises RouterError: there is no such run, it is not done, or cannot become a tool of that name.
    """
    from router.composite import MAX_DESCRIPTION, Composite
    from router.errors import BadRequest
    from router.plan import from_json
    from router.runs import RunStatus
    from router.shapes import parted

    executor = await runs.executor()
    found = await executor.journal.read(lambda records: records.run(run))
    if found.status is not RunStatus.DONE:
        raise BadRequest(
            f"Run {run} is {found.status.value.replace('_', ' ')}; only what has worked becomes a tool.",
            "Choose one that is done: toolyard runs list.",
        )
    plan = from_json(found.plan)
    facts = {step.tool: runs.lookup(step.tool) for step in plan.steps}
    if missing := sorted(tool for tool, known in facts.items() if known is None):
        raise BadRequest(
            f"Run {run} has called {', '.join(missing)}, which is not there any more, or composed itself."
        )
    tools = {tool: known.definition for tool, known in facts.items()}
    shape, values = await anyio.to_thread.run_sync(partial(parted, plan, tools))
    if unknown := sorted(set(fixed) - values.keys()):
        raise BadRequest(
            f"The plan has no value {', '.join(unknown)}.", f"It has: {', '.join(values) or 'none'}."
        )
    if len(description) > MAX_DESCRIPTION:
        raise BadRequest(f"A description has {MAX_DESCRIPTION} characters at most.")
    calls = ", then ".join(dict.fromkeys(step.tool for step in plan.steps))
    words = f"{shape.request[:1].upper()}{shape.request[1:]}. " if shape.request else ""
    reads = all(known.read_only for known in facts.values())
    made = Composite(
        name,
        description or f"{words}Calls {calls}.",
        shape,
        {slot: values[slot] for slot in fixed},
        {
            "readOnlyHint": reads,
            "destructiveHint": not reads,
            "idempotentHint": all(known.repeatable for known in facts.values()),
            "openWorldHint": any(known.open_world for known in facts.values()),
        },
        run=run,
        made_at=found.ended_at or 0.0,
    )
    ends = made.ends()
    if len(ends) == 1:
        last = next(step["tool"] for step in shape.plan if step["id"] == ends[0])
        output = tools[last].output_schema
        made = replace(made, returns=dict(output) if output is not None else None)
    assert runs.composites is not None
    await anyio.to_thread.run_sync(runs.composites.put, made)
    return made
