"""What the MCP registry's OpenAPI (2025-12-01) and server.json's schema (2025-12-11) ask of a list, as facts.

Of the fields we write; anything else is refused here, so that a new field is checked against the schema first.
"""

from __future__ import annotations

from typing import Any


def fields(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


TEXT = {"type": "string"}
SHORT = {"type": "string", "minLength": 1, "maxLength": 100}
WHEN = {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)$"}
URL = {"type": "string", "pattern": r"^(https?://[^\s]+|\{[a-zA-Z_][a-zA-Z0-9_]*\}[^\s]*)$"}
INPUT: dict[str, Any] = {
    "description": TEXT,
    "isRequired": {"type": "boolean"},
    "isSecret": {"type": "boolean"},
    "format": {"enum": ["string", "number", "boolean", "filepath"]},
    "value": TEXT,
    "default": TEXT,
    "placeholder": TEXT,
    "choices": {"type": "array", "items": TEXT},
}
VARIABLES = {"type": "object", "additionalProperties": fields([], **INPUT)}
NAMED = fields(["name"], name=TEXT, variables=VARIABLES, **INPUT)
ARGUMENT = {
    **fields(
        ["type"],
        type={"enum": ["named", "positional"]},
        name=TEXT,
        valueHint=TEXT,
        isRepeated={"type": "boolean"},
        variables=VARIABLES,
        **INPUT,
    ),
    "if": {"properties": {"type": {"const": "named"}}},
    "then": {"required": ["name"]},
    "else": {"anyOf": [{"required": ["value"]}, {"required": ["valueHint"]}]},
}
HEADERS = {"type": "array", "items": NAMED}
REMOTE = fields(
    ["type", "url"], type={"enum": ["streamable-http", "sse"]}, url=URL, headers=HEADERS, variables=VARIABLES
)
LOCAL = {"anyOf": [fields(["type"], type={"const": "stdio"}), REMOTE]}
ARGUMENTS = {"type": "array", "items": ARGUMENT}
PACKAGE = fields(
    ["registryType", "identifier", "transport"],
    registryType=TEXT,
    registryBaseUrl={"type": "string", "format": "uri"},
    identifier=TEXT,
    version={"type": "string", "minLength": 1, "maxLength": 255, "not": {"const": "latest"}},
    fileSha256={"type": "string", "pattern": "^[a-f0-9]{64}$"},
    runtimeHint=TEXT,
    transport=LOCAL,
    runtimeArguments=ARGUMENTS,
    packageArguments=ARGUMENTS,
    environmentVariables=HEADERS,
)
SERVER = fields(
    ["name", "description", "version"],
    **{"$schema": {"const": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"}},
    name={"type": "string", "minLength": 3, "maxLength": 200, "pattern": "^[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+$"},
    description=SHORT,
    title=SHORT,
    version={"type": "string", "maxLength": 255, "not": {"pattern": r"^[\^~<>=]|(^|\.)[x*](\.|$)"}},
    websiteUrl={"type": "string", "format": "uri"},
    repository=fields(
        ["url", "source"], url={"type": "string", "format": "uri"}, source=TEXT, id=TEXT, subfolder=TEXT
    ),
    packages={"type": "array", "items": PACKAGE},
    remotes={"type": "array", "items": REMOTE},
)
OFFICIAL = fields(
    [],
    status={"enum": ["active", "deprecated", "deleted"]},
    statusMessage={"type": "string", "maxLength": 500},
    statusChangedAt=WHEN,
    publishedAt=WHEN,
    updatedAt=WHEN,
    isLatest={"type": "boolean"},
)
META = {"type": "object", "properties": {"io.modelcontextprotocol.registry/official": OFFICIAL}}
RESPONSE = {"type": "object", "required": ["server"], "properties": {"server": SERVER, "_meta": META}}
LIST = {
    "type": "object",
    "required": ["servers"],
    "properties": {
        "servers": {"type": "array", "items": RESPONSE},
        "metadata": fields([], nextCursor=TEXT, count={"type": "integer"}),
    },
}
