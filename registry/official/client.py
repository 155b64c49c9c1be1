"""A client of any registry that speaks the MCP registry's API (`/v0.1/servers`, OpenAPI 2025-12-01).

The other side is not trusted: every answer has a limit in bytes and in seconds, redirects are refused
instead of followed, and a list that does not end is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlsplit

import msgspec

from registry.errors import (
    BadServerJson,
    NotPublished,
    OfficialAnswerBad,
    OfficialError,
    OfficialRefused,
    OfficialUnreachable,
)
from registry.official.model import Listed, read_listed

if TYPE_CHECKING:
    import httpx2

OFFICIAL: Final = "https://registry.modelcontextprotocol.io"
ANSWER_SECONDS: Final = 20.0
"""For one answer, from the first byte of the connection to the last of the body."""
LIST_SECONDS: Final = 600.0
"""For all pages of a list together."""
MAX_BODY: Final = 8 << 20
MAX_PAGES: Final = 1000
MAX_CURSOR: Final = 4096
PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list.

    :param servers: the entries that can be read.
    :param faults: why each of the others cannot.
    :param cursor: asks for the next page; None at the end.
    """

    servers: tuple[Listed, ...]
    faults: tuple[str, ...]
    cursor: str | None


class _Metadata(msgspec.Struct, frozen=True):
    cursor: str | None = msgspec.field(default=None, name="nextCursor")


class _List(msgspec.Struct, frozen=True):
    servers: list[msgspec.Raw] | None
    metadata: _Metadata | None = None


class OfficialClient:
    """One registry. An async context manager; every method raises OfficialError.

    :param url: the registry, with or without ``/v0.1`` at its end.
    :param token: a bearer token, for a registry that wants one.
    :param seconds: for one answer.
    """

    def __init__(
        self, url: str = OFFICIAL, *, token: str | None = None, seconds: float = ANSWER_SECONDS
    ) -> None:
        self.url = base_of(url)
        self._seconds = seconds
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._http: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        import httpx2  # 0.1 s of CPU, for the verbs that read a registry alone

        self._http = httpx2.AsyncClient(headers=self._headers, follow_redirects=False, timeout=self._seconds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def page(
        self,
        *,
        cursor: str | None = None,
        search: str | None = None,
        updated_since: str | None = None,
        limit: int = PAGE,
    ) -> Page:
        """One page of the latest versions.

        :param search: a part of the name.
        :param updated_since: an RFC 3339 moment; deleted servers are listed too, then.
        """
        query = {"limit": str(limit), "version": "latest"}
        query |= {"search": search} if search else {}
        query |= {"updated_since": updated_since} if updated_since else {}
        query |= {"cursor": cursor} if cursor else {}
        body = await self._get("/v0.1/servers", query)
        try:
            answer = msgspec.json.decode(body, type=_List)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise self._bad(f"its list of servers cannot be read: {error}") from None
        servers: list[Listed] = []
        faults: list[str] = []
        for item in answer.servers or ():
            try:
                listed = read_listed(item)
            except BadServerJson as error:
                faults.append(error.message)
            else:
                # A registry that does not know the filter lists every version.
                if listed.latest is not False:
                    servers.append(listed)
        following = answer.metadata.cursor if answer.metadata is not None else None
        if following and len(following) > MAX_CURSOR:
            raise self._bad(f"its cursor has more than {MAX_CURSOR:,} characters.")
        return Page(tuple(servers), tuple(faults), following or None)

    async def pages(
        self, *, search: str | None = None, updated_since: str | None = None
    ) -> AsyncIterator[Page]:
        """Every page of the latest versions. Raises OfficialAnswerBad where the list does not end."""
        seen: set[str] = set()
        cursor: str | None = None
        end = asyncio.get_running_loop().time() + LIST_SECONDS
        for _ in range(MAX_PAGES):
            page = await self.page(cursor=cursor, search=search, updated_since=updated_since)
            yield page
            cursor = page.cursor
            if cursor is None:
                return
            if cursor in seen:
                raise self._bad("its list of servers goes in a circle: it gave the same cursor twice.")
            if asyncio.get_running_loop().time() > end:
                raise self._bad(f"its list of servers took more than {LIST_SECONDS:g} s.")
            seen.add(cursor)
        raise self._bad(f"its list of servers has more than {MAX_PAGES} pages.")

    async def server(self, name: str, version: str = "latest") -> Listed:
        """One version of one server. Raises NotPublished, BadServerJson."""
        path = f"/v0.1/servers/{quote(name, safe='')}/versions/{quote(version, safe='')}"
        try:
            listed = read_listed(await self._get(path, {}))
        except NotPublished:
            raise NotPublished(
                f"The registry {self.url} has no server {name!r}"
                + ("." if version == "latest" else f" of version {version!r}."),
                "Look for its name: toolyard registry search-official TEXT.",
            ) from None
        if listed.server.name != name:
            raise self._bad(f"it was asked for {name} and answered with {listed.server.name}.")
        return listed

    async def _get(self, path: str, query: dict[str, str]) -> bytes:
        import httpx2

        assert self._http is not None, "use it as a context manager"
        try:
            # httpx limits each read by itself; a body that drips is stopped by this.
            async with (
                asyncio.timeout(self._seconds),
                self._http.stream("GET", self.url + path, params=query) as response,
            ):
                self._check(response)
                return await self._body(response)
        except TimeoutError:
            raise self._unreachable(f"did not answer within {self._seconds:g} s") from None
        except httpx2.TimeoutException:
            raise self._unreachable(f"did not answer within {self._seconds:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(f"cannot be reached: {error or type(error).__name__}") from None

    def _check(self, response: Any) -> None:
        status = response.status_code
        if status == 200:
            return
        if 300 <= status < 400:
            raise OfficialRefused(
                f"The registry {self.url} sends us elsewhere: {response.headers.get('location', '')[:300]!a}.",
                "Redirects are not followed. If you trust that address, give it with --url.",
            )
        if status == 404:
            raise NotPublished(
                f"{self.url} has no list of servers at /v0.1/servers.", "Is this a registry of MCP servers?"
            )
        if status in (401, 403):
            raise OfficialRefused(
                f"The registry {self.url} refuses us ({status}).",
                "Name the token's variable: --token-env VAR.",
            )
        if status == 429 or status >= 500:
            raise self._unreachable(f"answered with status {status}")
        raise OfficialRefused(f"The registry {self.url} answered with status {status}.")

    async def _body(self, response: Any) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self._bad("it sent a compressed body, which was not asked for.")
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_raw():
            parts.append(part)
            size += len(part)
            if size > MAX_BODY:
                raise self._bad(f"its answer has more than {MAX_BODY:,} bytes.")
        return b"".join(parts)

    def _bad(self, what: str) -> OfficialAnswerBad:
        return OfficialAnswerBad(f"The registry {self.url} cannot be used: {what}", "Tell its owner.")

    def _unreachable(self, what: str) -> OfficialUnreachable:
        return OfficialUnreachable(
            f"The registry {self.url} {what}.", "Try again later, or name another with --url."
        )


def base_of(url: str) -> str:
    """The address that ``/v0.1/servers`` is put behind. Raises OfficialError for what is no address."""
    base = url.strip().rstrip("/").removesuffix("/servers").removesuffix("/v0.1")
    try:
        parts = urlsplit(base)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query
        _ = parts.port
    except ValueError:
        usable = False
    if not usable or parts.username is not None or parts.password is not None or parts.fragment:
        raise OfficialError("This is no address of a registry.", "Give http(s)://HOST, without a password.")
    return base
