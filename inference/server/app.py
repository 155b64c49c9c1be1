"""The ASGI application: /v1/chat/completions, /v1/completions, /v1/models, /health, /metrics."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from inference.engine import Engine
from inference.errors import BadRequestError
from inference.grammar.adaptive import make_compiler
from inference.server.answer import error_body, failure
from inference.server.completions import Completions
from inference.server.frontend import Frontend
from inference.server.requests import RequestBuilder
from inference.server.security import Guard
from inference.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ServerConfig:
    name: str
    token: str | None = None
    hosts: frozenset[str] = frozenset()
    drain_seconds: float = 30.0


class Service:
    """What the routes share, and the small routes themselves."""

    def __init__(self, folder: Path, engine: Engine, config: ServerConfig) -> None:
        self.engine, self.config = engine, config
        self.tokenizer = Tokenizer(folder)
        vocabulary = engine.runner.model_config.vocabulary
        self.grammars = make_compiler(folder, self.tokenizer, vocabulary, sorted(engine.eos))
        self.frontend = Frontend(engine)
        self.builder = RequestBuilder(config.name, engine.runner, self.tokenizer, self.grammars)
        self.started = int(time.time())

    def _model(self) -> dict[str, Any]:
        return {
            "id": self.config.name,
            "object": "model",
            "created": self.started,
            "owned_by": "toolyard",
            "max_model_len": self.builder.limit,
        }

    async def models(self, request: HTTPRequest) -> Response:
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: HTTPRequest) -> Response:
        name = request.path_params["name"]
        if name not in (self.config.name, "default"):
            return failure(
                BadRequestError(
                    f"The model {name!r} is not served here; {self.config.name!r} is.",
                    param="model",
                    code="model_not_found",
                )
            )
        return JSONResponse(self._model())

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


async def _refused(request: HTTPRequest, problem: Exception) -> Response:
    """A path or method that is not served, in the form of the API's other errors."""
    assert isinstance(problem, HTTPException)
    message = (
        f"{request.method} {request.url.path}: {problem.detail}. This server has POST /v1/chat/completions, "
        "POST /v1/completions and GET /v1/models."
    )
    body = error_body(message, "invalid_request_error", "not_found")
    return JSONResponse(body, problem.status_code, headers=problem.headers)


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

    def completions(chat: bool) -> Completions:
        return Completions(service.builder, service.frontend, chat=chat)

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", completions(chat=True), methods=["POST"]),
            Route("/v1/completions", completions(chat=False), methods=["POST"]),
            Route("/v1/models", service.models),
            Route("/v1/models/{name:path}", service.model),
            Route("/health", service.health),
            Route("/metrics", service.metrics),
        ],
        middleware=[Middleware(Guard, token=config.token, hosts=config.hosts)],
        exception_handlers={HTTPException: _refused},
        lifespan=lifespan,
    )
    app.state.service = service
    return app
