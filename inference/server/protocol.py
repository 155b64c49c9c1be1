"""OpenAI's request bodies, checked by hand: what comes in, in our own records.

Fields beyond OpenAI's (top level of the body, where SDKs put `extra_body`): min_tokens, ignore_eos, top_k,
min_p, stop_token_ids, priority, deadline_ms, cache_salt, program_id, client_id, tool (the tool expected to
run next), turn, last_turn, and `structured_outputs` with one of json, regex, choice, grammar.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference.errors import BadRequestError
from inference.grammar.base import GrammarSpec
from inference.sequence import Hints, SamplingParams
from inference.server.body import Body, T
from inference.server.messages import messages
from inference.server.shape import ToolChoice, grammar, tool_choice

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


def parse(raw: Any, headers: Mapping[str, str], *, chat: bool) -> Call:
    """Check a body of /v1/chat/completions (`chat`) or /v1/completions.

    :raises BadRequestError: names the field that is wrong.
    """
    body = Body(raw)
    for name, harmless in UNSUPPORTED.items():
        if body.raw.get(name) not in harmless:
            raise BadRequestError(f"{name!r} is not supported by this server", param=name, code="unsupported")
    stream_options = Body(body.get("stream_options", dict, {}), "stream_options.")
    max_tokens = body.raw.get("max_completion_tokens") if chat else None
    field = "max_tokens" if max_tokens is None else "max_completion_tokens"
    wanted = body.whole(field, 0, 1) if body.raw.get(field) is not None else None
    if wanted is None and not chat:
        wanted = 16  # OpenAI's default for completions
    n = body.whole("n", 1, 1, MAX_CHOICES)
    choice = tool_choice(body) if chat else ToolChoice("none", ())
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
        messages=messages(body) if chat else None,
        prompts=[] if chat else _prompts(body.raw.get("prompt")),
        max_tokens=wanted,
        params=params,
        n=n,
        stops=_stops(body.raw.get("stop")),
        stream=body.get("stream", bool, False),
        include_usage=stream_options.get("include_usage", bool, False),
        grammar=grammar(body, choice),
        tool_choice=choice,
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


def _hint(body: Body, headers: Mapping[str, str], name: str, header: str, kind: type[T]) -> T | None:
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


def _logprobs(body: Body, chat: bool) -> int | None:
    if chat:
        top = body.whole("top_logprobs", 0, 0, MAX_LOGPROBS)
        if body.get("logprobs", bool, False):
            return top
        if top:
            raise BadRequestError("'top_logprobs' needs 'logprobs' to be true", param="top_logprobs")
        return None
    return None if body.raw.get("logprobs") is None else body.whole("logprobs", 0, 0, MAX_LOGPROBS)
