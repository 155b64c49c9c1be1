"""The two completion routes: read a body, run its requests, answer whole or as a stream."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from inference.errors import BadRequestError, InferenceError
from inference.server.answer import Answer, Choice, failure, output_error
from inference.server.frontend import Frontend, Inbox
from inference.server.protocol import parse
from inference.server.requests import RequestBuilder

log = logging.getLogger("inference")

MAX_BODY = 32 * 2**20


class Completions:
    """An ASGI endpoint: /v1/chat/completions (`chat`) or /v1/completions."""

    def __init__(self, builder: RequestBuilder, frontend: Frontend, *, chat: bool) -> None:
        self.builder, self.frontend, self.chat = builder, frontend, chat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            response = await self._complete(HTTPRequest(scope, receive), watched)
        except InferenceError as problem:
            response = failure(problem)
        except ClientDisconnect:
            return  # left before the body was whole: nobody to answer
        except Exception as problem:
            if begun:  # half an answer is out: only hanging up tells that it is not whole
                raise
            log.exception("A request has failed in a way that was not foreseen")
            response = failure(problem)
        if response is not None:
            self.frontend.metrics.answered(response.status_code)
            await response(scope, receive, send)

    async def _complete(self, request: HTTPRequest, send: Send) -> Response | None:
        """The answer; None where it has been streamed."""
        call = parse(await _read(request), request.headers, chat=self.chat)
        requests, prompt_tokens = await self.builder.build(call)
        tokenizer, eos = self.builder.tokenizer, self.frontend.service.engine.eos
        ends = eos | call.params.stop_token_ids
        choices = [Choice(i, call, tokenizer, ends) for i in range(len(requests))]
        answer = Answer(call, self.builder.name, prompt_tokens, choices)
        async with self.frontend.submit(requests) as inbox:
            if call.stream:
                await self._stream(request.receive, send, answer, inbox)
                return None
            return await self._whole(request.receive, answer, inbox)

    async def _whole(self, receive: Receive, answer: Answer, inbox: Inbox) -> Response:
        """Wait for all choices, unless the client leaves."""
        result: Response = Response(status_code=499)
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_on_disconnect, receive, group.cancel_scope)
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

    async def _stream(self, receive: Receive, send: Send, answer: Answer, inbox: Inbox) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_on_disconnect, receive, group.cancel_scope)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            self.frontend.metrics.answered(200)
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
                if news or choice.unsent or not choice.finish:
                    parts = answer.piece(choice, news)
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
