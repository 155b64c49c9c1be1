"""Tools of the fixture server, written once for both eras."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from content import PIXEL, SOUND
from rpc import Call, RpcError, pause, request

Tool = Callable[[Call, dict[str, Any]], Awaitable[Any]]

NONE: dict[str, Any] = {"type": "object", "properties": {}}
NAME = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
OK = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}

HANDLERS: dict[str, Tool] = {}
DEFINITIONS: dict[str, dict[str, Any]] = {}


def tool(description: str, schema: dict[str, Any] = NONE, **fields: Any) -> Callable[[Tool], Tool]:
    """Offer a function as a tool of its own name."""

    def register(function: Tool) -> Tool:
        name = function.__name__
        HANDLERS[name] = function
        DEFINITIONS[name] = {"name": name, "description": description, "inputSchema": schema, **fields}
        return function

    return register


def takes(**properties: str) -> dict[str, Any]:
    """The schema of an object with these required properties, each given by its JSON type."""
    return {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
    }


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def elicit(message: str, schema: dict[str, Any]) -> dict[str, Any]:
    return request("elicitation/create", message=message, requestedSchema=schema)


def sample(prompt: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text(prompt)}]
    return request("sampling/createMessage", messages=messages, maxTokens=100)


def said(answer: dict[str, Any], field: str) -> Any:
    """A field of what a person filled in."""
    return (answer.get("content") or {}).get(field)


# content


@tool("Text.")
async def test_simple_text(call: Call, arguments: dict[str, Any]) -> Any:
    return "This is a simple text response for testing."


@tool("A picture.")
async def test_image_content(call: Call, arguments: dict[str, Any]) -> Any:
    return [{"type": "image", "data": PIXEL, "mimeType": "image/png"}]


@tool("A sound.")
async def test_audio_content(call: Call, arguments: dict[str, Any]) -> Any:
    return [{"type": "audio", "data": SOUND, "mimeType": "audio/wav"}]


@tool("A resource inside the result.")
async def test_embedded_resource(call: Call, arguments: dict[str, Any]) -> Any:
    content = "This is an embedded resource content."
    resource = {"uri": "test://embedded-resource", "mimeType": "text/plain", "text": content}
    return [{"type": "resource", "resource": resource}]


@tool("Text, a picture and a resource.")
async def test_multiple_content_types(call: Call, arguments: dict[str, Any]) -> Any:
    resource = {
        "uri": "test://mixed-content-resource",
        "mimeType": "application/json",
        "text": '{"test": "data", "value": 123}',
    }
    return [
        text("Multiple content types test:"),
        {"type": "image", "data": PIXEL, "mimeType": "image/png"},
        {"type": "resource", "resource": resource},
    ]


@tool("Fails as a tool does.")
async def test_error_handling(call: Call, arguments: dict[str, Any]) -> Any:
    raise ValueError("This tool intentionally returns an error for testing")


@tool("The params of the call as they arrived.", outputSchema={"type": "object"})
async def echo_request(call: Call, arguments: dict[str, Any]) -> Any:
    return {
        "content": [text(json.dumps(call.params))],
        "structuredContent": dict(call.params),
        "_meta": {"example.test/kept": {"deep": [1, {"x": None}]}},
        "x-unknown": 1,
    }


# the call's own stream


@tool("Logs three times.")
async def test_tool_with_logging(call: Call, arguments: dict[str, Any]) -> Any:
    for message in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        call.log(message)
        await pause(0.02)
    return "Tool with logging executed successfully"


@tool("Logs at every severity.")
async def test_logging_tool(call: Call, arguments: dict[str, Any]) -> Any:
    for level in ("debug", "info", "warning", "error"):
        call.log(f"a {level} message", level)
    return "logged"


@tool("Reports progress three times.")
async def test_tool_with_progress(call: Call, arguments: dict[str, Any]) -> Any:
    for done in (0, 50, 100):
        call.progress(done, 100, f"Completed step {done} of 100")
        await pause(0.02)
    return str(call.meta.get("progressToken"))


@tool("Closes its event stream in mid-call; the client comes back for the answer.")
async def test_reconnection(call: Call, arguments: dict[str, Any]) -> Any:
    call.log("Before disconnect")
    call.break_stream()
    await pause(0.2)
    call.log("After reconnect")
    return "Reconnection test completed"


# questions to the client


@tool("Asks the client's model.", takes(prompt="string"))
async def test_sampling(call: Call, arguments: dict[str, Any]) -> Any:
    answer = (await call.ask({"sample": sample(arguments["prompt"])}))["sample"]
    return f"LLM response: {(answer.get('content') or {}).get('text', 'No response')}"


@tool("Asks the person.", takes(message="string"))
async def test_elicitation(call: Call, arguments: dict[str, Any]) -> Any:
    schema = {
        "type": "object",
        "properties": {"response": {"type": "string", "description": "User's response"}},
        "required": ["response"],
    }
    answer = (await call.ask({"answer": elicit(arguments["message"], schema)}))["answer"]
    return f"User response: action={answer['action']}, content={json.dumps(answer.get('content') or {})}"


@tool("Asks the person while progress goes on.")
async def test_streaming_elicitation(call: Call, arguments: dict[str, Any]) -> Any:
    call.progress(0, 2, "asking")
    answer = (await call.ask({"user_name": elicit("What is your name?", NAME)}))["user_name"]
    call.progress(2, 2, "asked")
    return f"Hello, {said(answer, 'name')}!"


@tool("Asks with a default for every primitive type (SEP-1034).")
async def test_elicitation_sep1034_defaults(call: Call, arguments: dict[str, Any]) -> Any:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "User name", "default": "John Doe"},
            "age": {"type": "integer", "description": "User age", "default": 30},
            "score": {"type": "number", "description": "User score", "default": 95.5},
            "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            "verified": {"type": "boolean", "description": "Verification status", "default": True},
        },
        "required": [],
    }
    answer = (await call.ask({"answer": elicit("Please provide user information", schema)}))["answer"]
    return f"Elicitation result: action={answer['action']}, content={json.dumps(answer.get('content') or {})}"


def _choice(*values: tuple[str, str]) -> list[dict[str, str]]:
    return [{"const": value, "title": title} for value, title in values]


@tool("Asks with every kind of enum (SEP-1330).")
async def test_elicitation_sep1330_enums(call: Call, arguments: dict[str, Any]) -> Any:
    levels = _choice(("low", "Low Priority"), ("medium", "Medium Priority"), ("high", "High Priority"))
    kinds = _choice(("feature", "New Feature"), ("bug", "Bug Fix"), ("docs", "Documentation"))
    schema = {
        "type": "object",
        "properties": {
            "untitledSingle": {"type": "string", "enum": ["active", "inactive", "pending"]},
            "titledSingle": {"type": "string", "oneOf": levels},
            "untitledMulti": {
                "type": "array",
                "items": {"type": "string", "enum": ["read", "write", "execute"]},
            },
            "titledMulti": {"type": "array", "items": {"anyOf": kinds}},
            "legacyEnum": {
                "type": "string",
                "enum": ["small", "medium", "large"],
                "enumNames": ["Small Size", "Medium Size", "Large Size"],
            },
        },
        "required": [],
    }
    answer = (
        await call.ask({"answer": elicit("Please select values using different enum schema types", schema)})
    )["answer"]
    return (
        f"Elicitation completed: action={answer['action']}, content={json.dumps(answer.get('content') or {})}"
    )


@tool("Sends the person to a web page.", takes(url="string"))
async def elicit_url(call: Call, arguments: dict[str, Any]) -> Any:
    wanted = request(
        "elicitation/create",
        mode="url",
        message="Please log in",
        url=arguments["url"],
        elicitationId="an-elicitation",
    )
    answer = (await call.ask({"login": wanted}))["login"]
    return f"url: {answer['action']}"


@tool("Refuses a client without sampling.")
async def test_missing_capability(call: Call, arguments: dict[str, Any]) -> Any:
    if "sampling" not in call.capabilities:
        raise RpcError(
            -32021,
            "This tool requires the client 'sampling' capability",
            400,
            requiredCapabilities={"sampling": {}},
        )
    return "Client declared sampling capability; proceeding."


@tool("Asks for a name.")
async def test_input_required_result_elicitation(call: Call, arguments: dict[str, Any]) -> Any:
    answer = (await call.ask({"user_name": elicit("What is your name?", NAME)}))["user_name"]
    return f"Hello, {said(answer, 'name')}!"


@tool("Asks the client's model for a capital.")
async def test_input_required_result_sampling(call: Call, arguments: dict[str, Any]) -> Any:
    answer = await call.ask({"capital_question": sample("What is the capital of France?")})
    return f"Model said: {(answer['capital_question'].get('content') or {}).get('text')}"


@tool("Asks for the client's roots.")
async def test_input_required_result_list_roots(call: Call, arguments: dict[str, Any]) -> Any:
    answer = (await call.ask({"client_roots": request("roots/list")}))["client_roots"]
    return f"Client exposed {len(answer.get('roots', []))} root(s)."


@tool("Goes on only where its state comes back.")
async def test_input_required_result_request_state(call: Call, arguments: dict[str, Any]) -> Any:
    await call.ask({"confirm": elicit("Please confirm", OK)}, state="request-state-nonce")
    if call.stateless and call.state != "request-state-nonce":
        raise RpcError(-32602, "requestState is missing.")
    return "state-ok: confirmation received"


@tool("Asks three things at once.")
async def test_input_required_result_multiple_inputs(call: Call, arguments: dict[str, Any]) -> Any:
    wanted = {
        "user_name": elicit("What is your name?", NAME),
        "greeting": sample("Generate a greeting"),
        "client_roots": request("roots/list"),
    }
    await call.ask(wanted, state="multiple-inputs")
    return "All inputs received."


@tool("Asks twice, the second time knowing the first answer.")
async def test_input_required_result_multi_round(call: Call, arguments: dict[str, Any]) -> Any:
    known = json.loads(call.state) if call.state else {}
    name = known.get("name")
    if name is None:
        first = {"step1": elicit("Step 1: What is your name?", NAME)}
        name = said((await call.ask(first, json.dumps({"round": 1})))["step1"], "name")
    color = {"type": "object", "properties": {"color": {"type": "string"}}, "required": ["color"]}
    second = {"step2": elicit("Step 2: What is your favorite color?", color)}
    answer = (await call.ask(second, json.dumps({"round": 2, "name": name})))["step2"]
    return f"{name} likes {said(answer, 'color')}."


@tool("Refuses a state that was changed.")
async def test_input_required_result_tampered_state(call: Call, arguments: dict[str, Any]) -> Any:
    await call.ask({"confirm": elicit("Please confirm", OK)}, state="round-1")
    return f"state-ok: {call.state}"


@tool("Asks for what the client can give.")
async def test_input_required_result_capabilities(call: Call, arguments: dict[str, Any]) -> Any:
    wanted = {}
    if "sampling" in call.capabilities:
        wanted["sample"] = sample("Say hello")
    if "elicitation" in call.capabilities:
        wanted["ask"] = elicit("What is your name?", NAME)
    await call.ask(wanted, state="capability-gated")
    return f"asked for {', '.join(wanted)}"


# schemas and headers

DIALECT: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@tool("Has every keyword of JSON Schema 2020-12 in its schema.", DIALECT)
async def json_schema_2020_12_tool(call: Call, arguments: dict[str, Any]) -> Any:
    return "json_schema_2020_12_tool"


REGION = {
    "type": "object",
    "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
}


@tool("Has an argument that a header repeats (SEP-2243).", REGION)
async def test_x_mcp_header(call: Call, arguments: dict[str, Any]) -> Any:
    return f"region={arguments.get('region', '<none>')}"


# long work, which a gateway may turn into a task


async def work(arguments: dict[str, Any], seconds: float) -> None:
    """So long, or for as long as there is the file that the caller holds."""
    if "held" not in arguments:
        await pause(seconds)
    while "held" in arguments and os.path.exists(arguments["held"]):
        await pause(0.01)


@tool("Greets at once.", takes(name="string"), execution={"taskSupport": "forbidden"})
async def greet(call: Call, arguments: dict[str, Any]) -> Any:
    return f"Hello, {arguments['name']}!"


@tool("Works for so many seconds.", {"type": "object", "properties": {"seconds": {}, "label": {}}})
async def slow_compute(call: Call, arguments: dict[str, Any]) -> Any:
    await work(arguments, float(arguments.get("seconds", 0)))
    return f"computed {arguments.get('label', '')}"


@tool("Works for a second and fails as a tool does.", execution={"taskSupport": "required"})
async def failing_job(call: Call, arguments: dict[str, Any]) -> Any:
    await work(arguments, 1.0)
    raise ValueError("This job always fails")


@tool("Works for a second and fails as a request does.")
async def protocol_error_job(call: Call, arguments: dict[str, Any]) -> Any:
    await work(arguments, 1.0)
    raise RpcError(-32603, "This job breaks the protocol")


@tool("Works for a second, then asks.", takes(filename="string"))
async def confirm_delete(call: Call, arguments: dict[str, Any]) -> Any:
    await work(arguments, 1.3)
    schema = {"type": "object", "properties": {"confirm": {"type": "boolean"}}, "required": ["confirm"]}
    wanted = {"confirm": elicit(f"Delete {arguments['filename']}?", schema)}
    answer = (await call.ask(wanted, state="asked"))["confirm"]
    if call.stateless and call.state != "asked":
        raise RpcError(-32602, "requestState is missing.")
    return f"deleted {arguments['filename']}" if said(answer, "confirm") else "kept"


@tool("Works for a second, then asks two things at once.")
async def multi_input(call: Call, arguments: dict[str, Any]) -> Any:
    await work(arguments, 1.3)
    wanted = {"first": elicit("First name?", NAME), "second": elicit("Second name?", NAME)}
    answers = await call.ask(wanted)
    return " and ".join(str(said(answers[key], "name")) for key in wanted)


@tool("Asks at once, then works for a second.")
async def test_tool_with_task(call: Call, arguments: dict[str, Any]) -> Any:
    answer = (await call.ask({"user_name": elicit("What is your name?", NAME)}, "asked"))["user_name"]
    await work(arguments, 1.0)
    return f"Hello, {said(answer, 'name')}!"


CANCELLED: list[str] = []


@tool("Waits until it is cancelled.", takes(label="string"))
async def wait(call: Call, arguments: dict[str, Any]) -> Any:
    call.progress(0, 1, "waiting")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        CANCELLED.append(arguments["label"])
        raise


@tool("The labels of the waits that were cancelled.", outputSchema={"type": "object"})
async def cancelled(call: Call, arguments: dict[str, Any]) -> Any:
    return {"content": [text(", ".join(CANCELLED))], "structuredContent": {"labels": list(CANCELLED)}}
