"""Names, descriptions and examples that a language model proposes; off unless an endpoint is named.

Nothing depends on it. A proposal is used only as far as it holds: a name that is free, a description that is text,
examples that fit the schema, which are then called like any other and judged by what comes back.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from servers.convert.docstrings import Example
from servers.manifest.records import Tool

KEY: Final = "TOOLYARD_MODEL_KEY"
"""The variable with the endpoint's key, where it wants one."""
SECONDS: Final = 60.0
AT_ONCE: Final = 4
MOST_FAILURES: Final = 3
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{2,47}")
_ASK: Final = """\
Below is a tool made from the Python callable {qualname} of the package {package}, as JSON. Answer with one JSON
object and nothing else: "name", a clear snake_case name; "description", one or two plain sentences that tell what it
does and what it returns; "examples", a list of up to two objects, each the arguments of a realistic call that fit the
input schema.

{tool}"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible API.

    :ivar url: what ``/chat/completions`` is appended to.
    """

    url: str
    model: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a model says of one tool, as far as it can be used."""

    name: str = ""
    description: str = ""
    examples: tuple[dict[str, Any], ...] = field(default=())


def propose(
    tools: Sequence[Tool], package: str, endpoint: Endpoint, say: Callable[[str], None]
) -> dict[str, Proposal]:
    """Ask for each tool; by tool name. What fails is said and left out: the tools stay as they are."""
    import httpx

    failures: list[str] = []
    headers = {"Authorization": f"Bearer {os.environ[KEY]}"} if os.environ.get(KEY) else {}

    def one(tool: Tool) -> Proposal | None:
        if len(failures) >= MOST_FAILURES:
            return None
        try:
            answer = client.post("/chat/completions", json=_request(tool, package, endpoint.model))
            answer.raise_for_status()
            return read(tool, answer.json()["choices"][0]["message"]["content"])
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            failures.append(f"{type(error).__name__}: {error}"[:200])
            return None

    with (
        httpx.Client(base_url=endpoint.url.rstrip("/"), timeout=SECONDS, headers=headers) as client,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        found = dict(zip((tool.name for tool in tools), pool.map(one, tools), strict=True))
    if failures:
        say(f"the model did not help with {len(failures)} tools or more: {failures[0]}")
    return {name: proposal for name, proposal in found.items() if proposal is not None}


def _request(tool: Tool, package: str, model: str) -> dict[str, Any]:
    seen = {"name": tool.name, "description": tool.description[:2000], "inputSchema": tool.input_schema}
    text = _ASK.format(
        qualname=tool.qualname, package=package, tool=json.dumps(seen, ensure_ascii=False)[:6000]
    )
    return {"model": model, "temperature": 0, "messages": [{"role": "user", "content": text}]}


def read(tool: Tool, text: str) -> Proposal:
    """What of a model's answer holds. Raises ValueError where there is no JSON object in it."""
    from jsonschema import Draft202012Validator

    begin, end = text.find("{"), text.rfind("}")
    said = json.loads(text[begin : end + 1]) if 0 <= begin < end else None
    if not isinstance(said, dict):
        raise ValueError("the model answered without a JSON object")
    name, description, examples = said.get("name"), said.get("description"), said.get("examples")
    valid = Draft202012Validator(tool.input_schema).is_valid
    fits = (
        [each for each in examples if isinstance(each, dict) and valid(each)]
        if isinstance(examples, list)
        else []
    )
    return Proposal(
        name=name if isinstance(name, str) and _NAME.fullmatch(name) else "",
        description=" ".join(description.split())[:600] if isinstance(description, str) else "",
        examples=tuple(fits[:2]),
    )


def examples_of(tool: Tool, proposal: Proposal) -> list[Example]:
    """The calls a model proposes, as a docstring would show them."""
    made = []
    for arguments in proposal.examples:
        named = {key: value for key, value in arguments.items() if key != tool.init_property}
        init = arguments.get(tool.init_property) if tool.init_property else None
        made.append(Example(tool.name, (), named, "model", ((), init) if isinstance(init, dict) else None))
    return made


def applied(tools: Sequence[Tool], proposals: Mapping[str, Proposal]) -> list[Tool]:
    """The tools under the names and with the descriptions proposed; a name that is taken is not given twice."""
    taken = {tool.name for tool in tools}
    made = []
    for tool in tools:
        proposal = proposals.get(tool.name, Proposal())
        name = proposal.name if proposal.name and proposal.name not in taken else tool.name
        taken.add(name)
        description = proposal.description if len(proposal.description) >= 20 else tool.description
        made.append(msgspec.structs.replace(tool, name=name, description=description))
    return made
