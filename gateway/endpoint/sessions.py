"""Handshake-era sessions. Their identity is sealed into the id, so that a restart loses none."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec

from gateway import jsonrpc, protocol
from gateway.errors import RpcError
from gateway.jsonrpc import Shallow
from gateway.upstream.call import CallSite, Report, Respond

LIFETIME: Final = 30 * 24 * 3600.0
"""Seconds a session id is good for."""
MAX_LIVE: Final = 10_000
"""Sessions kept in memory; the longest unused is dropped first, its id stays good."""
OUTBOX: Final = 1024
"""Notices that may wait for one stream of a client that reads slowly."""
MAX_SUBSCRIPTIONS: Final = 1000
"""Resources one session or listener may watch: fewer than notices may wait, so none is ever dropped."""
LIST_CHANGES: Final = tuple(
    f"notifications/{kind}/list_changed" for kind in ("prompts", "resources", "tools")
)
UNSET_LEVEL: Final = -1
"""The log level of a session whose client never set one: every message a server sends is passed on."""
MAX_CALLS: Final = 1024
"""Requests one session may have in flight."""


class SessionFacts(msgspec.Struct, array_like=True, frozen=True):
    """What a session id carries: all that must outlive this process."""

    ident: str
    version: str
    issued: int
    client: str
    features: tuple[str, ...] = ()


class Outbox:
    """Notices on their way to one stream of a client.

    Notices say "look again", so one waits for each thing to look at. Should others fill the box, the
    oldest goes and the client is told that everything has changed: nothing is lost silently.
    """

    __slots__ = ("_arrived", "_waiting", "closed", "everything")

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, bytes] = OrderedDict()
        self._arrived = asyncio.Event()
        self.closed = False
        self.everything: tuple[bytes, ...] = tuple(map(jsonrpc.notification, LIST_CHANGES))

    def put(self, message: bytes, about: bytes | None = None) -> None:
        """Queue a message. Never blocks.

        :param about: what it says has changed; the last word on that is all that waits.
        """
        if len(self._waiting) >= OUTBOX and (about or message) not in self._waiting:
            self._waiting.popitem(last=False)
            for notice in self.everything:
                self._waiting.pop(notice, None)
                self._waiting[notice] = notice
        self._waiting[about or message] = message
        self._arrived.set()

    def close(self) -> None:
        """No more messages; ``take`` returns an empty list once the box is drained."""
        self.closed = True
        self._arrived.set()

    async def take(self, timeout: float) -> list[bytes]:
        """What has arrived, waiting up to ``timeout`` seconds for something."""
        if not self._waiting and not self.closed:
            try:
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        messages = list(self._waiting.values())
        self._waiting.clear()
        if not self.closed:
            self._arrived.clear()
        return messages


class Session:
    """One handshake-era client, over HTTP or over a stream.

    :param facts: what its id says; ``features`` are what the client can be asked for.
    """

    __slots__ = (
        "_asks",
        "_next_ask",
        "_reports",
        "calls",
        "client",
        "features",
        "ident",
        "issued",
        "log_level",
        "outboxes",
        "subscriptions",
        "token",
        "version",
    )

    def __init__(self, facts: SessionFacts, token: str) -> None:
        self.ident = facts.ident
        self.token = token
        self.issued = facts.issued
        self.version = facts.version
        self.client = facts.client
        self.features = facts.features
        self._asks: dict[bytes, Respond] = {}
        self._reports: dict[bytes, Report] = {}
        self._next_ask = 0
        self.log_level = UNSET_LEVEL
        self.calls: dict[bytes, CallSite] = {}
        self.outboxes: list[Outbox] = []
        self.subscriptions: set[str] = set()

    def begin(self, ident: bytes, site: CallSite) -> None:
        """A request is being served. Raises RpcError where its id is in use already."""
        if ident in self.calls:
            raise RpcError(
                protocol.INVALID_REQUEST,
                f"A request with id {ident.decode()} is still being served.",
                "Give every request of a session an id of its own.",
            )
        if len(self.calls) >= MAX_CALLS:
            raise RpcError(
                protocol.INTERNAL_ERROR,
                f"{MAX_CALLS} requests of this session are in flight.",
                "Wait for some.",
            )
        self.calls[ident] = site

    def end(self, ident: bytes) -> None:
        """A request has been served."""
        self.calls.pop(ident, None)

    def cancel(self, ident: bytes, reason: str) -> None:
        """Give up a request; one that is not in flight is ignored (2025-11-25, Cancellation)."""
        site = self.calls.get(ident)
        if site is not None:
            site.cancel(reason)

    def ask(self, respond: Respond, report: Report | None = None) -> bytes:
        """The id for a request to this client, whose response goes to ``respond``.

        It is its progress token too: what the client reports under it goes to ``report``.
        """
        self._next_ask += 1
        key = b'"ty-%d"' % self._next_ask
        self._asks[key] = respond
        if report is not None:
            self._reports[key] = report
        return key

    def withdraw(self, key: bytes) -> None:
        """Nobody waits for the response to this request any more."""
        self._asks.pop(key, None)
        self._reports.pop(key, None)

    def responded(self, message: Shallow) -> None:
        """A response of the client's; one that nobody waits for is ignored."""
        key = bytes(message["id"]) if "id" in message else b""
        respond = self._asks.pop(key, None)
        self._reports.pop(key, None)
        if respond is not None:
            respond(message)

    def reported(self, params: Shallow) -> None:
        """Progress the client makes with a request it was sent; of any other it is ignored."""
        token = params.get("progressToken")
        report = self._reports.get(bytes(token)) if token is not None else None
        if report is not None:
            report(params)

    def tell(self, message: bytes, about: bytes | None = None) -> None:
        """Send a notice over one of the client's streams, if it has any open."""
        if self.outboxes:
            self.outboxes[-1].put(message, about)

    def close(self) -> None:
        """End every stream and give up every call."""
        for outbox in self.outboxes:
            outbox.close()
        for site in list(self.calls.values()):
            site.cancel("the session was ended")


def negotiate(requested: Any) -> str:
    """The revision to speak with a client that asks for this one (2025-11-25, Version Negotiation)."""
    return requested if requested in protocol.HANDSHAKE_VERSIONS else protocol.LATEST_HANDSHAKE


class Sessions:
    """Mints session ids and finds the sessions behind them.

    An id is the session's facts with an HMAC-SHA256 over them: whoever holds the key can tell a
    genuine one without having seen it before.

    :param key: at least 32 bytes, from the store.
    """

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._clock = clock
        self._live: OrderedDict[str, Session] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Any:
        return iter(list(self._live.values()))

    def open(self, version: str, client: str, features: tuple[str, ...] = ()) -> Session:
        """A new session; its ``token`` is the id for the client (visible ASCII, under 1 KiB)."""
        facts = SessionFacts(secrets.token_urlsafe(12), version, int(self._clock()), client[:80], features)
        body = jsonrpc.encode(facts)
        token = _b64(body) + "." + _b64(self._seal(body))
        session = Session(facts, token)
        self._keep(session)
        return session

    def find(self, token: str) -> Session | None:
        """The session of an id, or None where the id is not ours, has expired or was ended."""
        session = self._live.get(token)
        if session is not None and self._clock() - session.issued <= LIFETIME:
            self._live.move_to_end(token)
            return session
        body, _, seal = token.partition(".")
        try:
            data = _unb64(body)
            genuine = hmac.compare_digest(_unb64(seal), self._seal(data))
            facts = msgspec.json.decode(data, type=SessionFacts) if genuine else None
        except (ValueError, msgspec.MsgspecError):
            return None
        if facts is None or facts.ident in self._ended or self._clock() - facts.issued > LIFETIME:
            return None
        session = Session(facts, token)
        self._keep(session)
        return session

    def end(self, session: Session) -> None:
        """End a session for good."""
        self._live.pop(session.token, None)
        self._ended[session.ident] = None
        if len(self._ended) > MAX_LIVE:
            self._ended.popitem(last=False)
        session.close()

    def close(self) -> None:
        """End every stream; the ids stay good for the next process."""
        for session in self._live.values():
            session.close()

    def _keep(self, session: Session) -> None:
        self._live[session.token] = session
        if len(self._live) > MAX_LIVE:
            for token, other in self._live.items():
                if not other.calls and not other.outboxes:
                    del self._live[token]
                    break

    def _seal(self, body: bytes) -> bytes:
        return hmac.digest(self._key, b"session\0" + body, hashlib.sha256)[:18]


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
