"""Scoring predicted plans against gold plans.

A reference counts as right where it names the step that corresponds to the gold one; its path is not
compared. ``*_micro`` pool counts over requests, everything else is a mean over requests. Records whose
``labels`` lack ``args`` have no part in the measures of arguments and of whole plans.
"""

# ruff: noqa: SIM905  (word lists, and the quotes and signs that people type)
from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Step = Mapping[str, Any]
Table = dict[str, dict[str, float]]

COLUMNS: Final = (
    "n tool_f1 tool_exact edge_f1_micro edge_exact arg_name_f1_micro arg_value_exact "
    "arg_value_soft plan_exact plan_soft refused schema_valid graph_valid"
).split()
_STRING_REF: Final = re.compile(r"^\$\{?(\d+)\}?((?:\.|\[).*)?$")
_TYPES: Final[Mapping[str, Any]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def reference(value: Any, ids: set[str]) -> str | None:
    """The id of the step that a value refers to, or None. A string may say ``$1``."""
    if isinstance(value, Mapping) and "$ref" in value:
        return str(value["$ref"]).lstrip("$").split(".")[0]
    match = _STRING_REF.match(value.strip()) if isinstance(value, str) else None
    return match.group(1) if match and match.group(1) in ids else None


def _references(value: Any, ids: set[str]) -> set[str]:
    named = reference(value, ids)
    if named is not None:
        return {named}
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return set().union(*(_references(part, ids) for part in parts))


def edges(plan: Sequence[Step]) -> set[tuple[str, str]]:
    """(needed step, step) for every dependency and every reference."""
    ids = {str(step["id"]) for step in plan}
    return {
        (need, str(step["id"]))
        for step in plan
        for need in {*map(str, step.get("depends_on") or ()), *_references(step.get("arguments") or {}, ids)}
    }


def align(gold: Sequence[Step], plan: Sequence[Step]) -> dict[str, str]:
    """Predicted id to gold id: steps of one tool, those with the most arguments in common first."""
    pairs = []
    for i, wanted in enumerate(gold):
        for j, step in enumerate(plan):
            if wanted["tool"] == step["tool"]:
                a, b = wanted.get("arguments") or {}, step.get("arguments") or {}
                pairs.append((-sum(1 for key in a if key in b and alike(a[key], b[key])), abs(i - j), i, j))
    found: dict[str, str] = {}
    left, right = set[int](), set[int]()
    for _, _, i, j in sorted(pairs):
        if i not in left and j not in right:
            left.add(i)
            right.add(j)
            found[str(plan[j]["id"])] = str(gold[i]["id"])
    return found


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(
            value.strip().replace(",", "").lstrip("$").rstrip("%") if isinstance(value, str) else value
        )
    except ValueError:
        return None


def alike(a: Any, b: Any) -> bool:
    """Whether two values are equal but for case, signs and number formats, or share 0.8 of their words."""
    if isinstance(a, bool) or isinstance(b, bool):
        return str(a).lower() == str(b).lower()
    x, y = _number(a), _number(b)
    if x is not None and y is not None:
        return abs(x - y) <= 1e-6 * max(1, abs(x), abs(y))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(any(alike(p, q) for q in b) for p in a)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return set(a) == set(b) and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list) and len(a) == 1:
        return alike(a[0], b)
    if isinstance(b, list) and len(b) == 1:
        return alike(a, b[0])
    p, q = re.findall(r"\w+", str(a).lower()), re.findall(r"\w+", str(b).lower())
    if not p or not q or p == q:
        return p == q
    return 2 * sum((Counter(p) & Counter(q)).values()) / (len(p) + len(q)) >= 0.8


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return {key: _plain(part) for key, part in value.items()} if isinstance(value, Mapping) else value


def matches(gold: Any, value: Any, aligned: Mapping[str, str], ids: set[str]) -> tuple[bool, bool]:
    """Whether a value is the gold one, exactly and but for how it is written."""
    wanted = reference(gold, set()) if isinstance(gold, Mapping) else None
    named = reference(value, ids)
    if wanted is not None or named is not None:
        right = wanted is not None and named is not None and aligned.get(named) == wanted
        return right, right
    if (
        isinstance(gold, list)
        and isinstance(value, list)
        and len(gold) == len(value)
        and _references(gold, set())
    ):
        each = [matches(a, b, aligned, ids) for a, b in zip(gold, value, strict=True)]
        return all(exact for exact, _ in each), all(soft for _, soft in each)
    return _plain(gold) == _plain(value), alike(gold, value)


def _valid(value: Any, schema: Any, ids: set[str]) -> bool:
    if not isinstance(schema, Mapping) or not schema or reference(value, ids) is not None:
        return True
    types = schema.get("type")
    wanted = types if isinstance(types, list) else [types] if types else []
    if wanted and not any(_is(value, kind) for kind in wanted):
        return False
    if schema.get("enum") and isinstance(value, str | int | float) and value not in schema["enum"]:
        return False
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        return all(_valid(part, schema["items"], ids) for part in value)
    if isinstance(value, Mapping) and isinstance(schema.get("properties"), Mapping):
        known = schema["properties"]
        if any(key not in value for key in schema.get("required", ())):
            return False
        if (
            known
            and any(key not in known for key in value)
            and schema.get("additionalProperties") is not True
        ):
            return False
        return all(_valid(part, known.get(key, {}), ids) for key, part in value.items())
    return True


def _is(value: Any, kind: str) -> bool:
    if kind == "null":
        return value is None
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return kind in _TYPES and isinstance(value, _TYPES[kind])


def step_valid(step: Step, tools: Mapping[str, Mapping[str, Any]], ids: set[str]) -> bool:
    """Whether a step's tool is there and its arguments keep to the schema; references pass any type."""
    tool, arguments = tools.get(step["tool"]), step.get("arguments")
    if tool is None or not isinstance(arguments, Mapping):
        return False
    schema = tool.get("inputSchema") or {}
    known = schema.get("properties") or {}
    if any(key not in arguments for key in schema.get("required", ())):
        return False
    if known and any(key not in known for key in arguments):
        return False
    return all(_valid(value, known.get(key, {}), ids) for key, value in arguments.items())


def graph_valid(plan: Sequence[Step]) -> bool:
    """Whether ids are unique and known, and no step waits for itself by any way."""
    ids = [str(step["id"]) for step in plan]
    found = edges(plan)
    if len(set(ids)) != len(ids) or any(need not in ids for need, _ in found):
        return False
    waits = {id_: {need for need, step in found if step == id_} for id_ in ids}
    while waits:
        free = {id_ for id_, needs in waits.items() if not needs}
        if not free:
            return False
        waits = {id_: needs - free for id_, needs in waits.items() if id_ not in free}
    return True


def score(record: Mapping[str, Any], plan: Sequence[Step]) -> dict[str, Any]:
    """The measures of one plan; those with an underscore are counts to be pooled."""
    gold = record["plan"]
    plan = [{**step, "id": str(step.get("id", i))} for i, step in enumerate(plan, 1)]
    wanted, got = Counter(step["tool"] for step in gold), Counter(step["tool"] for step in plan)
    ids = {step["id"] for step in plan}
    aligned = align(gold, plan)
    gold_edges = edges(gold)
    found_edges = {(aligned.get(a, f"p{a}"), aligned.get(b, f"p{b}")) for a, b in edges(plan)}
    out: dict[str, Any] = {
        "tool_f1": _f1(sum((wanted & got).values()), sum(wanted.values()), sum(got.values())),
        "tool_exact": float(wanted == got),
        "_edges": (len(gold_edges & found_edges), len(gold_edges), len(found_edges)),
    }
    if wanted == got:
        out["edge_exact"] = float(gold_edges == found_edges)
    if not gold:
        out["refused"] = float(not plan)
    if plan:
        tools = {tool["name"]: tool for tool in record["tools"]}
        out["schema_valid"] = sum(step_valid(step, tools, ids) for step in plan) / len(plan)
        out["graph_valid"] = float(graph_valid(plan))
    if "args" in record.get("labels", ["args"]):
        out |= _arguments(gold, plan, aligned, ids, wanted == got and gold_edges == found_edges)
    return out


def _arguments(
    gold: Sequence[Step], plan: Sequence[Step], aligned: Mapping[str, str], ids: set[str], shaped: bool
) -> dict[str, Any]:
    back = {name: id_ for id_, name in aligned.items()}
    steps = {step["id"]: step for step in plan}
    named = total = right = near = 0
    all_right = all_near = True
    for wanted in gold:
        arguments, optional = wanted.get("arguments") or {}, set(wanted.get("optional", ()))
        step = steps.get(back.get(str(wanted["id"]), ""))
        given = (step or {}).get("arguments") or {}
        for name, value in arguments.items():
            exact = soft = False
            if name in given:
                named += 1
                for option in wanted.get("accept", {}).get(name, [value]):
                    same, close = matches(option, given[name], aligned, ids)
                    exact, soft = exact or same, soft or close
            elif step is not None and name in optional:
                exact = soft = True
                named += 1
            total, right, near = total + 1, right + exact, near + soft
            all_right, all_near = all_right and exact, all_near and soft
        if step is None or any(name not in arguments and name not in optional for name in given):
            all_right = all_near = False
    predicted = sum(len(step.get("arguments") or {}) for step in plan)
    return {
        "_names": (named, total, max(named, predicted)),
        "_values": (right, near, total),
        "plan_exact": float(shaped and all_right),
        "plan_soft": float(shaped and all_near),
    }


def _f1(shared: int, wanted: int, got: int) -> float:
    return 1.0 if wanted == got == 0 else 2 * shared / (wanted + got)


def _mean(scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    out: dict[str, float] = {"n": len(scores)}
    for name in (
        "tool_f1",
        "tool_exact",
        "edge_exact",
        "plan_exact",
        "plan_soft",
        "refused",
        "schema_valid",
        "graph_valid",
    ):
        values = [each[name] for each in scores if name in each]
        if values:
            out[name] = sum(values) / len(values)
    pooled = {
        key: [sum(each[key][i] for each in scores if key in each) for i in range(3)]
        for key in ("_edges", "_names", "_values")
    }
    if pooled["_edges"][1]:
        out["edge_f1_micro"] = _f1(*pooled["_edges"])
    if pooled["_names"][1]:
        out["arg_name_f1_micro"] = _f1(*pooled["_names"])
    right, near, total = pooled["_values"]
    if total:
        out["arg_value_exact"], out["arg_value_soft"] = right / total, near / total
    return out


def table(records: Iterable[Mapping[str, Any]], plans: Mapping[str, Sequence[Step]]) -> Table:
    """The measures of all requests, of each source, by number of steps, and ``macro``: the mean of the sources.

    :param plans: the predicted steps by the record's id; a missing one counts as an empty plan.
    """
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        found = score(record, plans.get(record["id"]) or [])
        size = len(record["plan"])
        for group in ("all", f"~{record['source']}", f"steps={size if size < 2 else '2+'}"):
            groups[group].append(found)
    out = {"all": _mean(groups["all"])}
    sources = {name[1:]: _mean(groups[name]) for name in sorted(groups) if name.startswith("~")}
    out |= sources | {name: _mean(groups[name]) for name in sorted(groups) if name.startswith("steps=")}
    keys = dict.fromkeys(key for row in sources.values() for key in row if key != "n")
    out["macro"] = {"n": out["all"]["n"]} | {
        key: sum(row[key] for row in sources.values() if key in row)
        / sum(key in row for row in sources.values())
        for key in keys
    }
    return out


def printed(found: Table) -> str:
    """The table as text, a row a group."""
    short = [
        name.replace("_micro", "").replace("arg_value", "val").replace("arg_name", "name") for name in COLUMNS
    ]
    lines = [f"{'group':<20}" + "".join(f"{name[:9]:>10}" for name in short)]
    for group, row in found.items():
        cells = [
            "-" if name not in row else f"{row[name]:.0f}" if name == "n" else f"{row[name]:.3f}"
            for name in COLUMNS
        ]
        lines.append(f"{group[:20]:<20}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)
