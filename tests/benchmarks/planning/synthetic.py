"""Requests whose steps feed each other, composed of tools with input and output schemas.

A field that one tool returns and another requires makes an edge: same type, and a word in common that
says what it is ("patient", not "id"). The request says the first tool's description with values, then
the second's, with the fed value said as people say it: "the order number you get", "its result", "that
address". Nothing here is used in training.
"""

# ruff: noqa: SIM905  (word lists, and the quotes and signs that people type)
from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

Tool = Mapping[str, Any]

_JOINTS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.\s]+")
_GENERIC: Final = frozenset(
    (
        "id ids name code number data info information result results value status type details "
        "list message success date time report description"
    ).split()
)
_EXAMPLES: Final = re.compile(r"\(e\.g\.,?\s*([^()]*)\)")
_NAMES: Final = ("Ann Lee", "Marco Rossi", "Priya Patel", "John Smith", "Yuki Tanaka", "Olga Petrova")
_PHRASES: Final = (
    "the {field} returned by the first step",
    "the {field} you get from that",
    "the resulting {field}",
    "that {field}",
    "the {field} from the previous step",
    "the {field} it returns",
    "the {field} that you found",
    "the result of that",
    "its {field}",
    "the obtained {field}",
)
_JOINED: Final = (
    ". Then ",
    ". After that, ",
    ", then ",
    ". Next, ",
    " and then ",
    ". Once that is done, ",
    ". Finally, ",
)


def words(name: str) -> list[str]:
    """The lower-case words of an identifier."""
    return [word.lower() for word in _JOINTS.split(name) if word]


def edges_of(tools: Sequence[Tool]) -> Iterator[tuple[int, str, int, str]]:
    """(tool, output field, tool, required parameter) wherever the one can feed the other."""
    takes: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for index, tool in enumerate(tools):
        for name in tool["inputSchema"].get("required", ()):
            for word in sorted(set(words(name)) - _GENERIC):
                takes[word].append((index, name))
    for index, tool in enumerate(tools):
        for field, schema in (tool.get("outputSchema") or {}).get("properties", {}).items():
            if field in tool["inputSchema"].get("properties", {}):
                continue
            for word in sorted(set(words(field)) - _GENERIC):
                for other, name in takes.get(word, ()):
                    wanted = tools[other]["inputSchema"]["properties"].get(name, {})
                    overlap = set(words(field)) & set(words(name))
                    union = set(words(field)) | set(words(name))
                    same = wanted.get("type") == schema.get("type")
                    takes_too = name in tool["inputSchema"].get("properties", {})
                    if other != index and same and not takes_too and len(overlap) / len(union) >= 0.5:
                        yield index, field, other, name


def _value(name: str, schema: Mapping[str, Any], chance: random.Random) -> Any:
    if schema.get("enum"):
        return chance.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "integer":
        return chance.randint(2, 90)
    if kind == "number":
        return round(chance.uniform(1, 90), 1)
    if kind == "boolean":
        return True
    if kind != "string":
        return None
    match = _EXAMPLES.search(schema.get("description", ""))
    examples = [e.strip() for e in match.group(1).split(",")] if match else []
    plain = [e for e in examples if 0 < len(e.split()) <= 3 and "etc" not in e]
    if plain:
        return chance.choice(plain)
    parts = words(name)
    if "id" in parts:
        return "".join(chance.choices("ABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=7))
    return (
        chance.choice(_NAMES)
        if "name" in parts
        else f"{chance.choice(['Alpha', 'Delta', 'Orion'])} {parts[-1]}"
    )


def _said(tool: Tool, arguments: Mapping[str, Any], phrases: Mapping[str, str], chance: random.Random) -> str:
    described = tool["description"].strip().rstrip(".")
    text = described[:1].lower() + described[1:]
    parts = []
    for name, value in arguments.items():
        spoken = " ".join(words(name))
        if name in phrases:
            parts.append(
                chance.choice((f"using {phrases[name]}", f"for {phrases[name]}", f"with {phrases[name]}"))
            )
        else:
            shown = f"'{value}'" if isinstance(value, str) and chance.random() < 0.5 else str(value)
            parts.append(f"with {spoken} {shown}")
    return f"{text} {', '.join(parts)}" if parts else text


def _step(
    number: int, tool: Tool, fed: Mapping[str, tuple[str, str]], chance: random.Random
) -> dict[str, Any] | None:
    arguments: dict[str, Any] = {}
    schemas = tool["inputSchema"].get("properties", {})
    for name in tool["inputSchema"].get("required", ()):
        if name in fed:
            step, field = fed[name]
            arguments[name] = {"$ref": step, "path": field}
            continue
        value = _value(name, schemas.get(name, {}), chance)
        if value is None:
            return None
        arguments[name] = value
    needs = sorted({step for step, _ in fed.values()})
    return {"id": str(number), "tool": tool["name"], "arguments": arguments, "depends_on": needs}


def requests(tools: Sequence[Tool], count: int, seed: int = 7) -> list[dict[str, Any]]:
    """Composed requests: chains of two and three, some beside a step of its own, among other tools."""
    chance = random.Random(seed)
    unique = list({tool["name"]: tool for tool in tools if tool.get("description")}.values())
    links = list(edges_of(unique))
    onward: dict[int, list[tuple[int, str, int, str]]] = defaultdict(list)
    for link in links:
        onward[link[0]].append(link)
    out: list[dict[str, Any]] = []
    while len(out) < count:
        chain = [chance.choice(links)]
        if chance.random() < 0.35 and onward[chain[0][2]]:
            more = chance.choice(onward[chain[0][2]])
            if more[2] != chain[0][0]:
                chain.append(more)
        order = [chain[0][0], *(link[2] for link in chain)]
        alone = chance.randrange(len(unique)) if chance.random() < 0.3 else None
        if alone is not None and alone not in order:
            order.insert(chance.choice((0, len(order))), alone)
        record = _composed(f"synthetic:{len(out)}", unique, order, chain, chance)
        if record is not None:
            out.append(record)
    return out


def _composed(
    id_: str,
    tools: Sequence[Tool],
    order: Sequence[int],
    chain: Sequence[tuple[int, str, int, str]],
    chance: random.Random,
) -> dict[str, Any] | None:
    ids = {tool: str(number) for number, tool in enumerate(order, 1)}
    steps, texts = [], []
    for number, tool in enumerate(order, 1):
        fed = {name: (ids[source], field) for source, field, target, name in chain if target == tool}
        step = _step(number, tools[tool], fed, chance)
        if step is None:
            return None
        phrases = {
            name: chance.choice(_PHRASES).format(field=" ".join(words(field)))
            for name, (_, field) in fed.items()
        }
        steps.append(step)
        texts.append(_said(tools[tool], step["arguments"], phrases, chance))
    text = texts[0][:1].upper() + texts[0][1:]
    for part in texts[1:]:
        joint = chance.choice(_JOINED)
        text += joint + part
    given = [tools[tool] for tool in order]
    names = {tool["name"] for tool in given}
    given += [tool for tool in chance.sample(list(tools), 6) if tool["name"] not in names][: 10 - len(given)]
    chance.shuffle(given)
    return {
        "id": id_,
        "source": "synthetic",
        "request": text + ".",
        "tools": given,
        "plan": steps,
        "labels": ["tools", "args", "edges"],
    }
