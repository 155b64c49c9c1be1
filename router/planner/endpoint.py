"""A model behind an OpenAI-compatible endpoint: one chat answer at a time, and what the endpoint can hold it to.

    with Endpoint("http://127.0.0.1:8000").connect(deadline=time.monotonic() + 30) as connection:
        text = connection.answer(messages, schema=schema)

The standard library alone: nothing to install, and cheap to import. Proxies of the environment are not
used, redirects are not followed.
"""

from __future__ import annotations

import http.client
import io
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

from router.errors import BadRequest, ModelFailed, ModelUnavailable, RequestRefused
from router.planner.prompt import Message

MAX_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of one HTTP answer."""
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_CHUNK: Final = 65_536


class Ability(Enum):
    """How an endpoint can be told which output is allowed."""

    STRUCTURED = "structured_outputs"
    """vLLM's field, which our engine takes too."""
    RESPONSE_FORMAT = "response_format"
    """OpenAI's ``response_format`` with a ``json_schema``."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote.

    :param whole: False where it was cut off at the limit of tokens.
    :param cached: prompt tokens the server had computed before; None where it does not say.
    """

    text: str
    whole: bool
    cached: int | None = None


class Endpoint:
    """Where a model is. Safe to use from any thread.

    :param url: with or without the ``/v1`` that its routes start with.
    :param model: the name it has there; None for the only or first one.
    :param token: sent as a bearer token; never part of an error message.
    :param temperature: 0 for the likeliest tokens; more where variety is wanted, as in tests.
    :raises BadRequest: the address is none.
    """

    def __init__(
        self, url: str, model: str | None = None, token: str | None = None, *, temperature: float = 0.0
    ) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise BadRequest(
                f"{url!r} is no address of a model: {error}.", "Give http://HOST:PORT."
            ) from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise BadRequest(
                f"{url!r} is no address of a model.", "Give http://HOST:PORT, without a password."
            )
        if token is not None and not (token.isascii() and token.isprintable()):
            raise BadRequest("The model's token holds characters that no header can.", "Give it as issued.")
        self.url = url
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, port
        self._base = parts.path.rstrip("/") or "/v1"
        self._model, self._token = model, token
        self.temperature = temperature
        self._ability: Ability | None = None
        self._lock = threading.Lock()

    @property
    def known(self) -> Ability | None:
        """What it can hold a model to, where that was found out already."""
        return self._ability

    @contextmanager
    def connect(self, deadline: float) -> Iterator[Connection]:
        """A connection, closed at the end.

        :param deadline: when every wait on it ends, in `time.monotonic` seconds.
        """
        connection = Connection(self, deadline)
        try:
            yield connection
        finally:
            connection.close()

    def ability(self, connection: Connection) -> Ability:
        """What the endpoint can hold a model to; found out once.

        It is asked for a greeting under a schema that allows one random word alone. Only an endpoint
        that holds the model to the schema can answer with that word.

        :raises ModelFailed: it cannot be found out now.
        """
        with self._lock:
            if self._ability is None:
                self._ability = next(
                    (
                        one
                        for one in (Ability.STRUCTURED, Ability.RESPONSE_FORMAT)
                        if self._holds(connection, one)
                    ),
                    Ability.NONE,
                )
            return self._ability

    def _holds(self, connection: Connection, ability: Ability) -> bool:
        word = f"w{secrets.token_hex(4)}"
        schema = {
            "type": "object",
            "properties": {"word": {"const": word}},
            "required": ["word"],
            "additionalProperties": False,
        }
        try:
            answer = connection.answer(
                [{"role": "user", "content": "Say hello."}], schema, ability, max_tokens=64
            )
            return bool(json.loads(answer.text) == {"word": word})
        except RequestRefused as error:
            if error.status in (400, 422, 501):
                return False
            raise
        except (ValueError, RecursionError):
            return False

    def model(self, connection: Connection) -> str:
        """The model's name; the first that the endpoint lists where none was given.

        :raises ModelFailed: none is listed.
        """
        if self._model is None:
            listed = connection.request("GET", "/models", None)
            try:
                name = listed["data"][0]["id"]
            except (KeyError, IndexError, TypeError):
                name = None
            if not isinstance(name, str):
                raise ModelFailed(f"{self.url} lists no model.", "Name one with --model.")
            self._model = name
        return self._model


class Connection:
    """One kept-alive connection to an endpoint, for one plan. Not for several threads."""

    def __init__(self, endpoint: Endpoint, deadline: float) -> None:
        self._endpoint, self._deadline = endpoint, deadline
        kind = http.client.HTTPSConnection if endpoint._secure else http.client.HTTPConnection
        self._http = kind(endpoint._host, endpoint._port, timeout=self._left())
        self._http.response_class = self._response  # type: ignore[assignment]

    def close(self) -> None:
        """End it; an answer under way is abandoned, which a server sees as a disconnect."""
        self._http.close()

    def answer(
        self,
        messages: Sequence[Message],
        schema: dict[str, Any] | None = None,
        ability: Ability = Ability.NONE,
        *,
        max_tokens: int = 2048,
    ) -> Answer:
        """What the model writes.

        :param schema: what its output must match, said in the way of ``ability``.
        :raises ModelUnavailable: no answer in time.
        :raises RequestRefused: the endpoint does not take the request.
        :raises ModelFailed: the answer is none.
        """
        body: dict[str, Any] = {
            "model": self._endpoint.model(self),
            "messages": list(messages),
            "temperature": self._endpoint.temperature,
            "max_tokens": max_tokens,
        }
        if schema is not None and ability is Ability.STRUCTURED:
            body["structured_outputs"] = {"json": schema}
        elif schema is not None and ability is Ability.RESPONSE_FORMAT:
            named = {"name": "plan", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        value = self.request("POST", "/chat/completions", body)
        try:
            choice = value["choices"][0]
            text, ended = choice["message"]["content"], choice.get("finish_reason")
            details = (value.get("usage") or {}).get("prompt_tokens_details") or {}
        except (KeyError, IndexError, TypeError, AttributeError):
            text = None
        if not isinstance(text, str):
            raise ModelFailed(f"{self._endpoint.url} answered without a message.")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        return Answer(text, ended != "length", cached if isinstance(cached, int) else None)

    def request(self, method: str, path: str, body: Any) -> Any:
        """One exchange of JSON.

        :raises ModelUnavailable: it cannot be reached, is busy, or answers too late.
        :raises RequestRefused: any other answer than 200.
        :raises ModelFailed: its answer is too long or no JSON.
        """
        url = self._endpoint.url
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._endpoint._token is not None:
            headers["Authorization"] = f"Bearer {self._endpoint._token}"
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        try:
            self._wait_no_longer()
            self._http.request(method, self._endpoint._base + path, body=data, headers=headers)
            response = self._http.getresponse()
            content = self._read(response)
        except TimeoutError:
            raise ModelUnavailable(f"The model at {url} did not answer in time.") from None
        except (OSError, http.client.HTTPException) as error:
            said = str(error) or type(error).__name__
            raise ModelUnavailable(f"The model at {url} cannot be reached: {said}.") from None
        if response.status in _BUSY:
            raise ModelUnavailable(f"The model at {url} answered {response.status}: {_said(content)}.")
        if response.status != 200:
            raise RequestRefused(
                f"The model at {url} answered {response.status}: {_said(content)}.",
                "Check the address, the model's name and the token.",
                status=response.status,
            )
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise ModelFailed(f"{url} answered with something that is no JSON.") from None

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        content = bytearray()
        while True:
            part = response.read1(_CHUNK)
            if not part:
                response.close()  # read to its end: the connection is free for the next exchange
                return bytes(content)
            content += part
            if len(content) > MAX_ANSWER:
                self._http.close()
                raise ModelFailed(f"{self._endpoint.url} answered with more than {MAX_ANSWER} bytes.")

    def _response(self, sock: socket.socket, **options: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_InTime(sock, self._left), **options)  # type: ignore[arg-type]

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _wait_no_longer(self) -> None:
        left = self._left()
        self._http.timeout = left
        sock: socket.socket | None = self._http.sock
        if sock is not None:
            sock.settimeout(left)


class _InTime(io.RawIOBase):
    """A socket, to read from until a deadline: an answer that drips in is not waited for longer than others.

    :param left: the seconds until then.
    :raises TimeoutError: on reading, after it.
    """

    def __init__(self, sock: socket.socket, left: Callable[[], float]) -> None:
        self._sock, self._left = sock, left
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open while there is something to read

    def makefile(self, mode: str) -> io.BufferedReader:
        """What `http.client` reads from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _said(content: bytes) -> str:
    """An endpoint's own words about an error, short and on one line."""
    try:
        message = json.loads(content)["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = content[:300].decode("utf-8", "replace")
    line = " ".join("".join(c if c.isprintable() else " " for c in str(message)).split())
    return line[:200].rstrip(".") or "nothing"
