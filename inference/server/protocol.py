"""OpenAI's request bodies, checked by hand: what comes in, in our own records.

Fields beyond OpenAI's (top level of the body, where SDKs put `extra_body`): min_tokens, ignore_eos, top_k,
min_p, stop_token_ids, priority, deadline_ms, cache_salt, program_id, client_id, tool (the tool expected to
run next), turn, last_turn, and `structured_outputs` with one of json, regex, choice, grammar.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from inference.errors import BadRequestError
from inference.grammar.base import GrammarSpec
from inference.sequence import Hints, SamplingParams

T = TypeVar("T")
MAX_CHOICES = 16
MAX_LOGPROBS = 20
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "suffix": (None, ""),
    "echo": (None, False),
    "best_of": (None, 1),
    "logit_bias": (None, {}),
    "functions": (None, []),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "modalities": (None, [], ["text"]),
}
"""Fields of OpenAI's that this server does not have, with the values that ask for nothing: what would change
the answer is refused, not ignored."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`mode`: none, auto, required. `tools`: those that may be called, as the client sent them."""

    mode: str
    tools: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One request body, in the engine's terms. `max_tokens` None: as much as the context leaves."""

    chat: bool
    model: str | None
    messages: list[dict[str, Any]] | None
    prompts: list[str | list[int]]
    max_tokens: int | None
    params: SamplingParams
    n: int
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool
    grammar: GrammarSpec | None
    tool_choice: ToolChoice
    template_arguments: dict[str, Any]
    namespace: str
    priority: int
    deadline_ms: float | None
    hints: Hints


class _Body:
    """A JSON object whose fields are taken with a type; what is wrong is said with the field's name."""

    def __init__(self, raw: Any, path: str = "") -> None:
        if not isinstance(raw, dict):
            raise BadRequestError("The request body should be a JSON object.")
        self.raw, self.path = raw, path

    def get(self, name: str, kind: type[T] | tuple[type[T], ...], default: T) -> T:
        value = self.raw.get(name)
        if value is None:
            return default
        wrong_bool = isinstance(value, bool) and kind is not bool
        if not isinstance(value, kind) or wrong_bool:
            wanted = kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind)
            raise BadRequestError(
                f"'{self.path}{name}' should be {wanted}, not {value!r:.80}", param=self.path + name
            )
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = float(self.get(name, (int, float), default))
        if not low <= value <= high:
            raise BadRequestError(
                f"{name!r} should be between {low:g} and {high:g}, not {value:g}", param=name
            )
        return value

    def whole(self, name: str, default: int, low: int, high: int = 2**62) -> int:
        value = self.get(name, int, default)
        if not low <= value <= high:
            raise BadRequestError(f"{name!r} should be between {low} and {high}, not {value}", param=name)
        return value


def parse(raw: Any, headers: Mapping[str, str], *, chat: bool) -> Call:
    """Check a body of /v1/chat/completions (`chat`) or /v1/completions.

    :raises BadRequestError: names the field that is wrong.
    """
    body = _Body(raw)
    for name, harmless in UNSUPPORTED.items():
        if body.raw.get(name) not in harmless:
            raise BadRequestError(f"{name!r} is not supported by this server", param=name, code="unsupported")
    stream_options = _Body(body.get("stream_options", dict, {}), "stream_options.")
    max_tokens = body.raw.get("max_completion_tokens") if chat else None
    field = "max_tokens" if max_tokens is None else "max_completion_tokens"
    wanted = body.whole(field, 0, 1) if body.raw.get(field) is not None else None
    if wanted is None and not chat:
        wanted = 16  # OpenAI's default for completions
    n = body.whole("n", 1, 1, MAX_CHOICES)
    tool_choice = _tool_choice(body) if chat else ToolChoice("none", ())
    min_tokens = body.whole("min_tokens", 0, 0)
    if wanted is not None and min_tokens > wanted:
        raise BadRequestError(f"'min_tokens' is {min_tokens}, more than {field!r}", param="min_tokens")
    params = SamplingParams(
        max_tokens=wanted or 1,
        min_tokens=min_tokens,
        temperature=body.number("temperature", 1.0, 0.0, 100.0),
        top_k=max(0, body.whole("top_k", 0, -1)),
        top_p=body.number("top_p", 1.0, 1e-9, 1.0),
        min_p=body.number("min_p", 0.0, 0.0, 1.0),
        seed=body.whole("seed", 0, -(2**63)) if body.raw.get("seed") is not None else None,
        logprobs=_logprobs(body, chat),
        ignore_eos=body.get("ignore_eos", bool, False),
        stop_token_ids=frozenset(_ints(body.get("stop_token_ids", list, []), "stop_token_ids")),
    )
    salt = body.get("cache_salt", str, "")
    return Call(
        chat=chat,
        model=body.get("model", str, "") or None,
        messages=_messages(body) if chat else None,
        prompts=[] if chat else _prompts(body.raw.get("prompt")),
        max_tokens=wanted,
        params=params,
        n=n,
        stops=_stops(body.raw.get("stop")),
        stream=body.get("stream", bool, False),
        include_usage=stream_options.get("include_usage", bool, False),
        grammar=_grammar(body, tool_choice),
        tool_choice=tool_choice,
        template_arguments=body.get("chat_template_kwargs", dict, {}),
        namespace=salt,
        priority=int(_hint(body, headers, "priority", "x-priority", int) or 0),
        deadline_ms=body.number("deadline_ms", 0, 0, 1e9) or None,
        hints=Hints(
            program=_hint(body, headers, "program_id", "x-program-id", str),
            client=_hint(body, headers, "client_id", "x-client-id", str),
            expected_tool=_hint(body, headers, "tool", "x-expected-tool", str),
            turn=body.whole("turn", 0, 0) if body.raw.get("turn") is not None else None,
            last_turn=body.get("last_turn", bool, False),
        ),
    )


def _hint(body: _Body, headers: Mapping[str, str], name: str, header: str, kind: type[T]) -> T | None:
    """From the body, or from a header where a client cannot extend the body."""
    if body.raw.get(name) is not None:
        return body.get(name, kind, kind())
    text = headers.get(header)
    if text is None:
        return None
    try:
        return kind(text)  # type: ignore[call-arg]
    except ValueError:
        raise BadRequestError(
            f"header {header!r} should be {kind.__name__}, not {text!r}", param=header
        ) from None


def _messages(body: _Body) -> list[dict[str, Any]]:
    messages = body.get("messages", list, [])
    if not messages:
        raise BadRequestError("'messages' should hold at least one message", param="messages")
    out = []
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequestError(f"messages[{i}] should be an object with a 'role'", param="messages")
        content = message.get("content")
        if isinstance(content, list):  # content parts: this server reads text
            texts = [
                p.get("text") if isinstance(p, dict) and p.get("type") == "text" else None for p in content
            ]
            if not all(isinstance(t, str) for t in texts):
                raise BadRequestError(
                    f"messages[{i}]: only content parts of type 'text' are supported", param="messages"
                )
            content = "".join(str(t) for t in texts)
        elif content is not None and not isinstance(content, str):
            raise BadRequestError(f"messages[{i}]: 'content' should be text", param="messages")
        calls = message.get("tool_calls")
        if calls:  # templates want arguments as an object, OpenAI sends them as a string
            if not isinstance(calls, list) or not all(isinstance(c, dict) for c in calls):
                raise BadRequestError(
                    f"messages[{i}]: 'tool_calls' should be a list of calls", param="messages"
                )
            message = {**message, "tool_calls": [_parsed_arguments(c) for c in calls]}
        out.append({**message, "content": content if content is not None else ""})
    return out


def _parsed_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
    except ValueError:
        return call


def _prompts(prompt: Any) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(p, str) for p in prompt):
            return list(prompt)
        if all(isinstance(p, int) for p in prompt):
            return [_ints(prompt, "prompt")]
        if all(isinstance(p, list) and p for p in prompt):
            return [_ints(p, "prompt") for p in prompt]
    raise BadRequestError("'prompt' should be a string, token ids, or a list of either", param="prompt")


def _ints(values: list[Any], name: str) -> list[int]:
    if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values):
        raise BadRequestError(f"{name!r} should hold token ids, which are integers from 0", param=name)
    return list(values)


def _stops(stop: Any) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops) or len(stops) > 16:
        raise BadRequestError("'stop' should be a string or up to 16 strings, none empty", param="stop")
    return tuple(stops)


def _logprobs(body: _Body, chat: bool) -> int | None:
    if chat:
        top = body.whole("top_logprobs", 0, 0, MAX_LOGPROBS)
        if body.get("logprobs", bool, False):
            return top
        if top:
            raise BadRequestError("'top_logprobs' needs 'logprobs' to be true", param="top_logprobs")
        return None
    return None if body.raw.get("logprobs") is None else body.whole("logprobs", 0, 0, MAX_LOGPROBS)


def _tool_choice(body: _Body) -> ToolChoice:
    tools = body.get("tools", list, [])
    for i, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequestError(f"tools[{i}] should be a function with a 'name'", param="tools")
    choice = body.raw.get("tool_choice")
    if choice is None:
        choice = "auto" if tools else "none"
    if isinstance(choice, dict):
        return _chosen_tools(_Body(choice, "tool_choice."), tools)
    if choice not in ("none", "auto", "required"):
        raise BadRequestError(
            "'tool_choice' should be none, auto, required or a function", param="tool_choice"
        )
    if choice == "required" and not tools:
        raise BadRequestError("tool_choice 'required' needs 'tools'", param="tools")
    return ToolChoice(choice, tuple(tools))


def _chosen_tools(choice: _Body, tools: list[Any]) -> ToolChoice:
    """{"type": "function", "function": {"name": ...}}, or {"type": "allowed_tools", "allowed_tools": {"mode":
    "auto" | "required", "tools": [{"type": "function", "function": {"name": ...}}, ...]}}."""
    if choice.raw.get("type") == "allowed_tools":
        allowed = _Body(choice.get("allowed_tools", dict, {}), "tool_choice.allowed_tools.")
        mode, wanted = allowed.get("mode", str, "auto"), allowed.get("tools", list, [])
    else:
        mode, wanted = "required", [choice.raw]
    functions = [w.get("function") if isinstance(w, dict) else None for w in wanted]
    names = [f.get("name") if isinstance(f, dict) else None for f in functions]
    chosen = tuple(t for t in tools if t["function"]["name"] in names)
    known = [t["function"]["name"] for t in tools]
    if mode not in ("auto", "required") or not names or not all(name in known for name in names):
        raise BadRequestError(
            f"tool_choice names {', '.join(map(repr, names)) or 'no tool'}; 'tools' has {known}",
            param="tool_choice",
        )
    return ToolChoice(mode, chosen)


def _grammar(body: _Body, tool_choice: ToolChoice) -> GrammarSpec | None:
    found = [g for g in (_response_format(body), _structured(body)) if g is not None]
    if tool_choice.mode == "required":
        found.append(GrammarSpec("json_schema", json.dumps(call_schema(tool_choice.tools))))
    if len(found) > 1:
        raise BadRequestError(
            "Only one of response_format, structured_outputs and a required tool can shape the output",
            param="response_format",
        )
    return found[0] if found else None


def call_schema(tools: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """A schema for one call of one of the tools: {"name": ..., "arguments": {...}}."""
    options = [
        {
            "type": "object",
            "properties": {
                "name": {"const": t["function"]["name"]},
                "arguments": t["function"].get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for t in tools
    ]
    return options[0] if len(options) == 1 else {"anyOf": options}


def _response_format(body: _Body) -> GrammarSpec | None:
    form = body.get("response_format", dict, {})
    kind = form.get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return GrammarSpec("json_object")
    if kind == "json_schema":
        named = form.get("json_schema")
        schema = named.get("schema") if isinstance(named, dict) else None
        if not isinstance(schema, dict):
            raise BadRequestError(
                "response_format.json_schema.schema should be an object", param="response_format"
            )
        return GrammarSpec("json_schema", json.dumps(schema))
    raise BadRequestError(
        f"response_format type {kind!r} is not one of text, json_object, json_schema", param="response_format"
    )


def _structured(body: _Body) -> GrammarSpec | None:
    wanted = body.get("structured_outputs", dict, {})
    if not wanted:
        return None
    if len(wanted) != 1:
        raise BadRequestError("'structured_outputs' should have one of json, regex, choice, grammar")
    kind, value = next(iter(wanted.items()))
    if kind == "json" and isinstance(value, dict):
        return GrammarSpec("json_schema", json.dumps(value))
    if kind == "regex" and isinstance(value, str):
        return GrammarSpec("regex", value)
    if kind == "grammar" and isinstance(value, str):
        return GrammarSpec("ebnf", value)
    if (
        kind == "choice"
        and isinstance(value, list)
        and value
        and all(isinstance(v, str) and v for v in value)
    ):
        return GrammarSpec("choice", json.dumps(value))
    raise BadRequestError(f"structured_outputs.{kind} has no usable value", param="structured_outputs")
