"""Engine outputs to OpenAI's answers: one choice at a time, whole or in chunks."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from starlette.responses import JSONResponse

from inference.engine import Output
from inference.errors import BadRequestError, EngineStoppedError, InferenceError, QueueFullError
from inference.sampling import TokenLogprob
from inference.sequence import Finish
from inference.server.protocol import Call
from inference.server.toolcalls import ToolCallSplitter
from inference.text import TextStream
from inference.tokenizer import Tokenizer


class Choice:
    """One choice of an answer, fed with the outputs of one engine request."""

    def __init__(self, index: int, call: Call, tokenizer: Tokenizer, ends: frozenset[int]) -> None:
        self.index, self.call, self.tokenizer, self.ends = index, call, tokenizer, ends
        choice = call.tool_choice
        self.splitter = None
        if choice.mode != "none" and choice.tools:
            self.splitter = ToolCallSplitter(whole=choice.mode == "required")
        # Tool call markers are special tokens in some tokenizers, so calls are looked for with those shown.
        self.stream = TextStream(tokenizer, call.stops, skip_special=self.splitter is None)
        self.content = ""
        self.tool_calls: list[dict[str, Any]] = []
        self.logprobs: list[TokenLogprob] = []
        self.unsent: list[TokenLogprob] = []  # of those, what no chunk has shown yet
        self.tokens = self.cached = 0
        self.finish: str | None = None
        self.error: Output | None = None

    def push(self, output: Output) -> str:
        """Take an output; returns the content that is new. Sets `finish` or `error` at the end."""
        tokens = output.tokens
        self.tokens += len(tokens)
        self.cached = output.cached
        logprobs = output.logprobs
        if output.finish is Finish.STOP and tokens and tokens[-1] in self.ends:
            tokens = tokens[:-1]  # the end token has done its work; it is no text
            logprobs = logprobs[: len(tokens)]
        news = self.stream.push(tokens)
        if output.finish is not None:
            news += self.stream.finish()
        self.logprobs += logprobs
        self.unsent += logprobs
        if self.splitter is not None:
            news = self.splitter.push(news)
        if output.finish is not None or self.stream.stopped:
            news += self._end(output)
        self.content += news
        return news

    def _end(self, output: Output) -> str:
        rest = ""
        if output.finish in (Finish.ERROR, Finish.DEADLINE) and not self.stream.stopped:
            self.error = output
        if self.splitter is not None:
            rest, self.tool_calls = self.splitter.finish()
        length = output.finish is Finish.LENGTH and not self.stream.stopped
        self.finish = "tool_calls" if self.tool_calls else "length" if length else "stop"
        return rest


def error_body(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def output_error(output: Output) -> tuple[int, dict[str, Any]]:
    """HTTP status and body for an output that is a failure."""
    if output.finish is Finish.DEADLINE:
        return 504, error_body("The request's deadline has passed.", "timeout", "deadline_exceeded")
    return 500, error_body(output.error or "The engine failed.", "server_error", "engine_error")


def failure(problem: Exception) -> JSONResponse:
    """An error as HTTP says it; one that is not ours is a fault of the server's."""
    headers, param = {}, None
    if isinstance(problem, QueueFullError):
        status, kind, code = 429, "rate_limit_error", "queue_full"
        headers["Retry-After"] = str(max(1, round(problem.retry_after)))
    elif isinstance(problem, BadRequestError):
        kind, code, param = "invalid_request_error", problem.code, problem.param
        status = {"model_not_found": 404, "body_too_large": 413}.get(code, 400)
    elif isinstance(problem, EngineStoppedError):
        status, kind, code = 503, "server_error", "unavailable"
    else:
        status, kind, code = 500, "server_error", "engine_error"
    text = str(problem) if isinstance(problem, InferenceError) else "The server has failed; its log says how."
    return JSONResponse(error_body(text, kind, code, param), status, headers=headers)


class Answer:
    """The identity of an answer, and its JSON forms."""

    def __init__(self, call: Call, model: str, prompt_tokens: int, choices: list[Choice]) -> None:
        self.call, self.choices, self.prompt_tokens = call, choices, prompt_tokens
        self.id = ("chatcmpl-" if call.chat else "cmpl-") + uuid.uuid4().hex[:24]
        name = "chat.completion" if call.chat else "text_completion"
        self._name, self._model, self._created = name, model, int(time.time())
        chunk = "chat.completion.chunk" if call.chat else name
        # A chunk is this text and a choice: building the rest anew for each token is most of a chunk's cost.
        head = self._head(chunk)
        self._prefix = json.dumps(head)[:-1] + ', "choices": ['

    def _head(self, name: str) -> dict[str, Any]:
        return {"id": self.id, "object": name, "created": self._created, "model": self._model}

    def usage(self) -> dict[str, Any]:
        out = sum(c.tokens for c in self.choices)
        cached = sum(c.cached for c in self.choices if c.index % self.call.n == 0)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": out,
            "total_tokens": self.prompt_tokens + out,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    # ------------------------------------------------------------------ in chunks
    def opening(self, choice: Choice) -> bytes:
        """The first chunk of a chat choice names the role."""
        return self._chunk(
            f'{{"index": {choice.index}, "delta": {{"role": "assistant"}}, "finish_reason": null}}'
        )

    def piece(self, choice: Choice, text: str) -> bytes:
        content = json.dumps(text)
        field = f'"delta": {{"content": {content}}}' if self.call.chat else f'"text": {content}'
        extra = ""
        if choice.unsent:
            extra = f', "logprobs": {json.dumps(self.logprobs(choice, choice.unsent))}'
            choice.unsent = []
        return self._chunk(f'{{"index": {choice.index}, {field}, "finish_reason": null{extra}}}')

    def closing(self, choice: Choice) -> bytes:
        body: dict[str, Any] = {"index": choice.index, "finish_reason": choice.finish}
        if not self.call.chat:
            body["text"] = ""
        else:
            calls = [{"index": i, **c} for i, c in enumerate(choice.tool_calls)]
            body["delta"] = {"tool_calls": calls} if calls else {}
        return self._chunk(json.dumps(body))

    def _chunk(self, choice: str) -> bytes:
        return f"data: {self._prefix}{choice}]}}\n\n".encode()

    def last(self) -> bytes:
        text = b""
        if self.call.include_usage:
            body = json.dumps({**self._head("chat.completion.chunk"), "choices": [], "usage": self.usage()})
            text = f"data: {body}\n\n".encode()
        return text + b"data: [DONE]\n\n"

    # ------------------------------------------------------------------ whole
    def whole(self) -> dict[str, Any]:
        choices = []
        for c in self.choices:
            body: dict[str, Any] = {"index": c.index, "finish_reason": c.finish}
            body["logprobs"] = None if self.call.params.logprobs is None else self.logprobs(c, c.logprobs)
            if self.call.chat:
                message: dict[str, Any] = {"role": "assistant", "content": c.content or None}
                if c.tool_calls:
                    message["tool_calls"] = c.tool_calls
                elif message["content"] is None:
                    message["content"] = ""
                body["message"] = message
            else:
                body["text"] = c.content
            choices.append(body)
        return {**self._head(self._name), "choices": choices, "usage": self.usage()}

    def logprobs(self, choice: Choice, entries: list[TokenLogprob]) -> dict[str, Any]:
        text, data = choice.tokenizer.token_text, choice.tokenizer.token_bytes
        if self.call.chat:
            return {
                "content": [
                    {
                        **_entry(data(e.token), e.logprob),
                        "top_logprobs": [_entry(data(t), p) for t, p in e.top],
                    }
                    for e in entries
                ]
            }
        return {
            "tokens": [text(e.token) for e in entries],
            "token_logprobs": [e.logprob for e in entries],
            "top_logprobs": [{text(t): p for t, p in e.top} for e in entries],
        }


def _entry(token: bytes, logprob: float) -> dict[str, Any]:
    """A token may hold part of a character: its bytes, joined with its neighbours', are the text."""
    return {"token": token.decode(errors="replace"), "logprob": logprob, "bytes": list(token)}
