"""The routes: /v1/chat/completions, /v1/completions, /v1/models, /health, /metrics."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from inference.engine import Engine
from inference.errors import (
    BadRequestError,
    ContextTooLongError,
    EngineStoppedError,
    InferenceError,
    QueueFullError,
)
from inference.grammar.adaptive import AdaptiveCompiler, make_compiler
from inference.sequence import Request
from inference.server.answer import Answer, Choice, error_body, output_error
from inference.server.frontend import Frontend, Inbox
from inference.server.protocol import Call, parse
from inference.server.security import Guard
from inference.tokenizer import Tokenizer

MAX_BODY = 32 * 2**20
LONG_TEXT = 20_000  # characters from which tokenising leaves the event loop


@dataclass(frozen=True, slots=True)
class ServerConfig:
    name: str
    token: str | None = None
    hosts: frozenset[str] = frozenset()
    drain_seconds: float = 30.0


class Service:
    """What the routes share: engine, tokenizer, grammars, and the way from a body to an answer."""

    def __init__(self, folder: Path, engine: Engine, config: ServerConfig) -> None:
        self.engine, self.config = engine, config
        self.tokenizer = Tokenizer(folder)
        vocabulary = engine.runner.model_config.vocabulary
        self.grammars: AdaptiveCompiler = make_compiler(
            folder, self.tokenizer, vocabulary, sorted(engine.eos)
        )
        self.frontend = Frontend(engine)
        self.started = int(time.time())

    # ------------------------------------------------------------------ from a body to engine requests
    async def requests(self, call: Call) -> tuple[list[Request], int]:
        """Engine requests of a call, n for each prompt, and the prompt tokens in all."""
        if call.model not in (None, self.config.name, "default"):
            raise BadRequestError(
                f"The model {call.model!r} is not served here; {self.config.name!r} is.",
                param="model",
                code="model_not_found",
            )
        prompts = (
            [await self._tokens(call, p) for p in call.prompts] if not call.chat else [await self._chat(call)]
        )
        requests = []
        for prompt in prompts:
            params = replace(call.params, max_tokens=call.max_tokens or self._room(prompt))
            for k in range(call.n):
                own = params if params.seed is None or not k else replace(params, seed=params.seed + k)
                matcher = None
                if call.grammar is not None:
                    matcher = await asyncio.to_thread(self.grammars.matcher, call.grammar)
                deadline = None if call.deadline_ms is None else time.monotonic() + call.deadline_ms / 1000
                requests.append(
                    Request(
                        uuid.uuid4().hex,
                        tuple(prompt),
                        own,
                        namespace=call.namespace,
                        priority=call.priority,
                        deadline=deadline,
                        matcher=matcher,
                        hints=call.hints,
                    )
                )
        return requests, sum(len(p) for p in prompts)

    async def _chat(self, call: Call) -> list[int]:
        tools = list(call.tool_choice.tools) if call.tool_choice.mode != "none" else None
        assert call.messages is not None
        text = self.tokenizer.chat(call.messages, tools, **call.template_arguments)
        return await self._tokens(call, text)

    async def _tokens(self, call: Call, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, list):
            vocabulary = self.engine.runner.model_config.vocabulary
            if max(prompt) >= vocabulary:
                raise BadRequestError(
                    f"token id {max(prompt)} is outside of the vocabulary of {vocabulary}", param="prompt"
                )
            return prompt
        special = not (call.chat and self.tokenizer.has_template)
        if len(prompt) < LONG_TEXT:
            tokens = self.tokenizer.encode(prompt, special=special)
        else:
            tokens = await asyncio.to_thread(self.tokenizer.encode, prompt, special=special)
        if not tokens:
            raise BadRequestError("The prompt is empty: send at least one token.", param="prompt")
        return tokens

    def _room(self, prompt: list[int]) -> int:
        """max_tokens where the client names none: what context and cache leave."""
        runner = self.engine.runner
        room = min(runner.context, runner.pages * runner.page_size) - len(prompt)
        if room < 1:
            raise ContextTooLongError(
                f"The prompt of {len(prompt)} tokens leaves no room in the context of {runner.context} "
                f"tokens and the KV cache of {runner.pages * runner.page_size}. Shorten it."
            )
        return room

    # ------------------------------------------------------------------ the two completion routes
    async def complete(self, request: HTTPRequest, *, chat: bool) -> Response | None:
        body = await _read(request)
        call = parse(body, request.headers, chat=chat)
        requests, prompt_tokens = await self.requests(call)
        ends = self.engine.eos | call.params.stop_token_ids
        choices = [Choice(i, call, self.tokenizer, ends) for i in range(len(requests))]
        answer = Answer(call, self.config.name, prompt_tokens, choices)
        async with self.frontend.submit(requests) as inbox:
            if call.stream:
                await self._stream(request, answer, inbox)
                return None
            return await self._whole(request, answer, inbox)

    async def _whole(self, request: HTTPRequest, answer: Answer, inbox: Inbox) -> Response:
        """Wait for all choices, unless the client leaves."""
        result: Response = Response(status_code=499)
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_on_disconnect, request.receive, group.cancel_scope)
            while any(c.finish is None for c in answer.choices):
                index, output = await inbox.queue.get()
                choice = answer.choices[index]
                if choice.finish is None:
                    choice.push(output)
                    self._stop_early(choice, output.request_id)
            failed = next((c.error for c in answer.choices if c.error is not None), None)
            if failed is not None:
                status, body = output_error(failed)
                result = JSONResponse(body, status)
            else:
                result = JSONResponse(answer.whole())
            group.cancel_scope.cancel()
        return result

    async def _stream(self, request: HTTPRequest, answer: Answer, inbox: Inbox) -> None:
        send: Send = request._send
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_on_disconnect, request.receive, group.cancel_scope)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            self._count(200)
            if answer.call.chat:
                opening = b"".join(answer.opening(c) for c in answer.choices)
                await send({"type": "http.response.body", "body": opening, "more_body": True})
            while any(c.finish is None for c in answer.choices):
                index, output = await inbox.queue.get()
                choice = answer.choices[index]
                if choice.finish is not None:
                    continue
                news = choice.push(output)
                self._stop_early(choice, output.request_id)
                parts = b""
                if news or not choice.finish:
                    parts = answer.piece(choice, news, output.logprobs)
                if choice.error is not None:
                    parts += f"data: {json.dumps(output_error(choice.error)[1])}\n\n".encode()
                elif choice.finish:
                    parts += answer.closing(choice)
                await send({"type": "http.response.body", "body": parts, "more_body": True})
            await send({"type": "http.response.body", "body": answer.last(), "more_body": False})
            group.cancel_scope.cancel()

    def _stop_early(self, choice: Choice, request_id: str) -> None:
        """A stop string is found in text, which the engine does not see: tell it to stop."""
        if choice.stream.stopped:
            self.frontend.cancel(request_id)

    # ------------------------------------------------------------------ the rest
    async def models(self, request: HTTPRequest) -> Response:
        limit = min(self.engine.runner.context, self.engine.runner.pages * self.engine.runner.page_size)
        entry = {
            "id": self.config.name,
            "object": "model",
            "created": self.started,
            "owned_by": "toolyard",
            "max_model_len": limit,
        }
        return JSONResponse({"object": "list", "data": [entry]})

    async def health(self, request: HTTPRequest) -> Response:
        healthy = self.frontend.service.healthy
        runner = self.engine.runner
        body = {
            "status": "ok" if healthy else "unavailable",
            "model": self.config.name,
            "backend": runner.kernels.name,
            "pending": self.frontend.service.pending,
        }
        return JSONResponse(body, 200 if healthy else 503)

    async def metrics(self, request: HTTPRequest) -> Response:
        text = self.frontend.metrics.render(self.engine, self.frontend.service.pending)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    def _count(self, status: int) -> None:
        table = self.frontend.metrics.responses
        table[status] = table.get(status, 0) + 1

    def failure(self, problem: InferenceError) -> Response:
        """An error of ours as HTTP says it."""
        headers = {}
        if isinstance(problem, QueueFullError):
            status, kind, code = 429, "rate_limit_error", "queue_full"
            headers["Retry-After"] = str(max(1, round(problem.retry_after)))
        elif isinstance(problem, BadRequestError):
            kind, code = "invalid_request_error", problem.code
            status = {"model_not_found": 404, "body_too_large": 413}.get(code, 400)
        elif isinstance(problem, EngineStoppedError):
            status, kind, code = 503, "server_error", "unavailable"
        else:
            status, kind, code = 500, "server_error", "engine_error"
        param = getattr(problem, "param", None)
        return JSONResponse(error_body(str(problem), kind, code, param), status, headers=headers)


class _Completion:
    """An ASGI endpoint: streams by itself, or sends the response that it is given."""

    def __init__(self, service: Service, *, chat: bool) -> None:
        self.service, self.chat = service, chat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HTTPRequest(scope, receive, send)
        try:
            response = await self.service.complete(request, chat=self.chat)
        except InferenceError as problem:
            response = self.service.failure(problem)
        except ClientDisconnect:
            return  # left before the body was whole: nobody to answer
        if response is not None:
            self.service._count(response.status_code)
            await response(scope, receive, send)


async def _read(request: HTTPRequest) -> Any:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY:
            raise BadRequestError(f"The request body is larger than {MAX_BODY} bytes.", code="body_too_large")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise BadRequestError(f"The request body is not valid JSON: {problem}") from None


async def _cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def make_app(folder: Path, engine: Engine, config: ServerConfig) -> Starlette:
    """The ASGI application; its lifespan owns the engine's thread."""
    service = Service(folder, engine, config)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.frontend.start()
        try:
            yield
        finally:
            await service.frontend.stop(config.drain_seconds)
            service.grammars.close()

    routes = [
        Route("/v1/chat/completions", _Completion(service, chat=True), methods=["POST"]),
        Route("/v1/completions", _Completion(service, chat=False), methods=["POST"]),
        Route("/v1/models", service.models),
        Route("/health", service.health),
        Route("/metrics", service.metrics),
    ]
    guard = Middleware(Guard, token=config.token, hosts=config.hosts)
    app = Starlette(routes=routes, middleware=[guard], lifespan=lifespan)
    app.state.service = service
    return app
