"""JSON Schema of tools, from the types of their parameters (``servers/worker/hints.py``).

The types live in the service's own environment and never enter our process, so schemas are made from their
description. Where a type says nothing, the schema admits anything and the worker finds out at call time.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from servers.manifest.records import Option, Parameter, Tool
from servers.worker.hints import Type

Schema = dict[str, Any]

_SIMPLE: Final[dict[str, Schema]] = {
    "none": {"type": "null"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "str": {"type": "string"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "decimal": {"type": ["string", "number"], "description": "a decimal number, as text to keep it exact"},
    "fraction": {"type": ["string", "number"], "description": "a fraction such as '3/4'"},
    "complex": {"type": ["string", "number"], "description": "a complex number such as '1+2j'"},
    "datetime": {"type": ["string", "number"], "description": "date and time, ISO 8601, or seconds since 1970"},
    "date": {"type": "string", "description": "a date, ISO 8601"},
    "time": {"type": "string", "description": "a time of day, ISO 8601"},
    "timedelta": {"type": ["number", "string"], "description": "seconds, or an ISO 8601 duration such as 'PT1H30M'"},
    "tzinfo": {"type": "string", "description": "a time zone such as 'Europe/Berlin'"},
    "path": {"type": "string", "description": "a path in the call's working directory"},
    "uuid": {"type": "string"},
    "pattern": {"type": "string", "description": "a regular expression"},
    "ndarray": {"description": "nested lists of numbers, or a number"},
    "class": {"type": "string", "description": "a class, as 'module:name'"},
    "callable": {"type": "string", "description": "a function, as 'module:name', of this package or of builtins, operator or math"},
    "file": {"type": "string", "description": "the text of a file"},
}  # fmt: skip
_SCALAR_KEYS: Final = {"none", "bool", "int", "float", "str"}


def of_type(kind: Type) -> Schema:
    """The schema of one type."""
    k = kind["k"]
    if k in _SIMPLE:
        return dict(_SIMPLE[k])
    if k in ("list", "set", "tuple"):
        return _array(kind)
    if k == "dict":
        inner = of_type(kind.get("of", {"k": "any"}))
        return {"type": "object", **({"additionalProperties": inner} if inner else {})}
    if k == "literal":
        return {"enum": kind["values"]}
    if k == "enum":
        return _enum(kind)
    if k == "union":
        return _union([of_type(each) for each in kind["of"]])
    if k == "record":
        return _record(kind)
    if k == "object":
        name = kind["ref"].rpartition(":")[2]
        return {"description": f"a {name}: its handle, or what makes one"}
    return {}


def of_option(option: Option) -> Schema:
    """The schema of one option of a command. Required ones are not required here: argv may hold them."""
    made: Schema = {"type": "boolean"} if option.switch else of_type(option.type)
    if option.many:
        made = {"type": "array", "items": made}
    text = option.description or made.get("description", "")
    needed = " (needed, here or in argv)" if option.required else ""
    where = option.flag or "argument"
    made["description"] = f"{where}: {text}{needed}" if text else f"{where}{needed}"
    if option.default is not None and not option.many:
        made["default"] = option.default
    return made


def _array(kind: Type) -> Schema:
    if "items" in kind:
        items = [of_type(each) for each in kind["items"]]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    inner = of_type(kind.get("of", {"k": "any"}))
    made: Schema = {"type": "array", **({"items": inner} if inner else {})}
    return {**made, "type": ["array", "string"]} if kind.get("text") else made


def _enum(kind: Type) -> Schema:
    names = list(dict.fromkeys([*kind["members"], *kind["values"]]))
    if kind.get("flag"):
        options: list[Schema] = [
            {"type": "integer"},
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}},
        ]
        return {"anyOf": options, "description": "names joined with '|': " + ", ".join(kind["members"][:40])}
    return {"enum": names}


def _record(kind: Type) -> Schema:
    fields = kind["fields"]
    as_object: Schema = {
        "type": "object",
        "properties": {field["name"]: of_type(field["type"]) for field in fields},
        "additionalProperties": False,
    }
    required = [field["name"] for field in fields if field["required"]]
    if required:
        as_object["required"] = required
    as_list: Schema = {"type": "array", "maxItems": len(fields), "minItems": len(required)}
    handle: Schema = {"type": "string", "pattern": "^handle:"}
    call: Schema = {"type": "object", "required": ["$call"]}
    return {"anyOf": [as_object, as_list, handle, call]}


def _union(options: list[Schema]) -> Schema:
    if any(not option or set(option) == {"description"} for option in options):
        notes = [option["description"] for option in options if "description" in option]
        return {"description": "; or ".join(notes)} if notes else {}
    if any(option.get("contentEncoding") for option in options) and {"type": "string"} in options:
        # text and bytes cannot be told apart in JSON: text it is, and bytes are its UTF-8
        options = [option for option in options if not option.get("contentEncoding")]
    plain = [option for option in options if set(option) == {"type"} and isinstance(option["type"], str)]
    if len(plain) == len(options):
        types = list(dict.fromkeys(option["type"] for option in options))
        types = [each for each in types if not (each == "integer" and "number" in types)]
        return {"type": types[0] if len(types) == 1 else types}
    unique: list[Schema] = []
    for option in options:
        if option not in unique:
            unique.append(option)
    return unique[0] if len(unique) == 1 else {"anyOf": unique}


def of_parameters(parameters: Sequence[Parameter]) -> Schema:
    """The object schema of a callable's parameters."""
    properties: dict[str, Schema] = {}
    required: list[str] = []
    extra: bool | Schema = False
    for parameter in parameters:
        if parameter.kind == "varkw":
            extra = of_type(parameter.type or {"k": "any"}) or True
            continue
        schema = _described(parameter)
        properties[parameter.name] = schema
        if parameter.required:
            required.append(parameter.name)
    made: Schema = {"type": "object", "properties": properties, "additionalProperties": extra}
    if required:
        made["required"] = required
    return made


def _described(parameter: Parameter) -> Schema:
    schema = of_type(parameter.type or {"k": "any"})
    if parameter.kind == "varargs":
        schema = {"type": "array", **({"items": schema} if schema else {})}
    if not parameter.required and parameter.default == "None" and schema:
        schema = _nullable(schema)
    notes = [parameter.description, schema.pop("description", "")]
    text = " ".join(note.strip().rstrip(".") + "." for note in notes if note.strip())
    made = {**schema, **({"description": text} if text else {})}
    default = _default(parameter)
    if default is not _NOTHING:
        made["default"] = default
    return made


def _nullable(schema: Schema) -> Schema:
    if "type" in schema and isinstance(schema["type"], str):
        return {**schema, "type": [schema["type"], "null"]} if schema["type"] != "null" else schema
    if isinstance(schema.get("type"), list):
        return {**schema, "type": list(dict.fromkeys([*schema["type"], "null"]))}
    if "enum" in schema:
        return {**schema, "enum": list(dict.fromkeys([*schema["enum"], None]))}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return schema


_NOTHING: Final = object()


def _default(parameter: Parameter) -> Any:
    if parameter.required or parameter.default in (None, "None"):
        return _NOTHING
    try:
        value = ast.literal_eval(parameter.default or "")
    except (ValueError, SyntaxError):
        return _NOTHING
    if isinstance(value, tuple):
        value = list(value)
    return value if isinstance(value, (bool, int, float, str, list, dict)) else _NOTHING


def of_result(kind: Type) -> Schema | None:
    """The output schema, where the return type is known well enough to promise it."""
    k = kind["k"]
    if k in ("bool", "int", "str", "float"):
        inner: Schema = {"type": {"bool": "boolean", "int": "integer", "str": "string", "float": "number"}[k]}
        if k == "float":
            inner = {"type": ["number", "string"]}  # infinities and NaN are text
        return {"type": "object", "properties": {"result": inner}, "required": ["result"]}
    if k == "list" and kind.get("of", {}).get("k") in ("str", "int"):
        item = {"str": "string", "int": "integer"}[kind["of"]["k"]]
        return {
            "type": "object",
            "properties": {"result": {"type": "array", "items": {"type": item}}},
            "required": ["result"],
        }
    return None


def with_type(tool: Tool, name: str, kind: Type) -> Tool:
    """A tool with another type for one of its parameters, in its record and in its schema."""
    parameters = tuple(
        msgspec.structs.replace(each, type=kind) if each.name == name else each for each in tool.parameters
    )
    changed = next(each for each in parameters if each.name == name)
    properties = {**tool.input_schema["properties"], name: _described(changed)}
    return msgspec.structs.replace(
        tool, parameters=parameters, input_schema={**tool.input_schema, "properties": properties}
    )
