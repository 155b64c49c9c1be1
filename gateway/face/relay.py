"""One client and one gateway, and the face between them that outlives the gateway.

Three threads: the caller's reads the client, a second keeps the link and reads the gateway, a
short-lived third sends what had to wait for the link, so that nobody has to read while it writes.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from gateway import protocol
from gateway.errors import GatewayError, RpcError
from gateway.face import wire
from gateway.face.cache import ListCache
from gateway.face.link import GatewayLost, GatewayUnreachable, Starter, connect
from gateway.face.session import Session
from gateway.face.wire import Ident, Message
from gateway.paths import StateDir

_QUEUE_MESSAGES: Final = 1000
_QUEUE_BYTES: Final = 2 * wire.MAX_LINE
_HANDSHAKE_SECONDS: Final = 20.0
_RESTART_GRACE: Final = 5.0
"""How long a lost gateway may come back by itself (a person restarts it) while nobody asks for it."""
_LOOK_SECONDS: Final = 0.25
_STEADY_SECONDS: Final = 1.0
_BACKOFF: Final = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
_PATIENCE: Final = 3
"""Links lost at once, one after the other, before waiting requests are refused."""
_DRAIN_SECONDS: Final = 3.0
_PARENT_SECONDS: Final = 1.0

_OFFLINE: Final = "offline"  # no link: the cache may answer
_JOINING: Final = "joining"  # the gateway was told what the cache answered: everything waits
_ONLINE: Final = "online"

_LISTS: Final = frozenset({"tools/list", "prompts/list", "resources/list", "resources/templates/list"})


class Face:
    """Relays between one client and the gateway of a state directory.

    :param descriptors: where the client's messages come from, and where ours go.
    :param toolset: whose tools the client is shown; None for all.
    """

    def __init__(
        self,
        state: StateDir,
        starter: Starter,
        descriptors: tuple[int, int] = (0, 1),
        *,
        toolset: str | None = None,
    ) -> None:
        self._state = state
        self._toolset = toolset
        self._cache_file = state.cache if toolset is None else state.toolset_cache(toolset)
        self._starter = starter
        self._input, output = descriptors
        self._out = wire.Output(output)
        self._sending = threading.Lock()
        self._changed = threading.Condition()  # guards everything below
        self._phase = _OFFLINE
        self._link: socket.socket | None = None
        self._queue: deque[Message] = deque()
        self._queued_bytes = 0
        self._in_flight: dict[Ident, Message] = {}
        self._asked: set[Ident] = set()
        self._session = Session()
        self._cache: ListCache | None = None
        self._served: str | None = None

    def run(self) -> None:
        """Relay until the client closes its end, or the process that started us dies."""
        first: socket.socket | None = None
        try:
            first = connect(self._state.relay_socket)
        except GatewayUnreachable as problem:
            say(str(problem))
        if first is None:
            self._cache = ListCache.load(self._cache_file)
        else:
            self._phase = _JOINING
        threading.Thread(target=_watch_parent, name="parent", daemon=True).start()
        threading.Thread(target=self._keep_link, args=(first,), name="link", daemon=True).start()
        for line in wire.lines(self._read_client, wire.MAX_LINE, tail=True):
            self._from_client(line)
        with self._changed:  # `echo … | toolyard stdio`: let the answers out
            self._changed.wait_for(lambda: not self._in_flight and not self._wanted(), _DRAIN_SECONDS)

    def _read_client(self, size: int) -> bytes:
        try:
            return os.read(self._input, size)
        except OSError:
            return b""

    # The client's messages

    def _from_client(self, line: bytes | None) -> None:
        try:
            if line is None:
                raise RpcError(protocol.PARSE_ERROR, f"The message is longer than {wire.MAX_LINE} bytes.")
            message = wire.parse(line)
        except RpcError as problem:
            self._out.write(wire.error(None, problem))
            return
        with self._changed:
            if self._phase is _OFFLINE and self._answer_early(message):
                return
            while self._phase is not _ONLINE and not self._room():
                self._changed.wait()  # a client that sends more than fits waits with it
            link = self._link if self._phase is _ONLINE else None
            if link is None:
                self._queue.append(message)
                self._queued_bytes += len(message.line)
                self._changed.notify_all()
                return
            if not self._register(message):
                return
        self._send(link, message)

    def _answer_early(self, message: Message) -> bool:
        """Answer without a gateway what can be; False for what has to wait for one."""
        if message.method == "notifications/initialized" and self._session.shaken:
            self._session.initialized = True  # the next gateway will hear it from us
            return True
        if message.method is None or len(message.ids) != 1:
            return False
        payload = "{}" if message.method == "ping" else self._from_cache(message)
        if payload is None:
            return False
        self._out.write(wire.result(message.ids[0], payload))
        return True

    def _from_cache(self, message: Message) -> str | None:
        if self._cache is None:
            return None
        params = message.params or {}
        meta = params.get("_meta")
        version = meta.get(protocol.META_PROTOCOL_VERSION) if isinstance(meta, dict) else None
        stateless = version in protocol.STATELESS_VERSIONS
        if message.method == "server/discover" and stateless:
            return self._cache.discover()
        if message.method == "initialize" and version is None and not self._session.shaken:
            self._session.note(message)
            self._session.shaken = True
            return self._cache.initialize(params.get("protocolVersion"))
        known = stateless or (version is None and self._session.shaken)
        if message.method not in _LISTS or not known or params.get("cursor") is not None:
            return None
        page = self._cache.page(message.method, stateless=stateless)
        if page is not None:
            self._served = self._cache.etag
        return page

    def _room(self) -> bool:
        return len(self._queue) < _QUEUE_MESSAGES and self._queued_bytes < _QUEUE_BYTES

    def _wanted(self) -> bool:
        return any(message.ids for message in self._queue)

    def _register(self, message: Message) -> bool:
        """Note that a message goes to the gateway. False for one that is due to nobody there."""
        if message.is_response:
            if message.answers not in self._asked:
                return False  # the gateway that asked is gone
            self._asked.discard(message.answers)
        self._session.note(message)
        if message.method == "notifications/cancelled":
            ident = (message.params or {}).get("requestId")
            if isinstance(ident, int | str):
                self._in_flight.pop(ident, None)  # a cancelled request needs no answer
        for ident in message.ids:
            self._in_flight[ident] = message
        return True

    def _send(self, link: socket.socket, message: Message) -> bool:
        try:
            with self._sending:
                link.sendall(message.line + b"\n")
        except OSError:
            self._unsent(link, message)
            return False
        return True

    def _unsent(self, link: socket.socket, message: Message) -> None:
        """Keep a message for the next gateway: this one has not had the end of its line."""
        with self._changed:
            if self._link is link:
                self._link, self._phase = None, _JOINING  # what comes now must not overtake it
            ours = all(self._in_flight.get(ident) is message for ident in message.ids)
            if ours and not message.is_response:
                for ident in message.ids:
                    del self._in_flight[ident]
                self._put_back(message)
        _shut(link)

    def _put_back(self, message: Message) -> None:
        self._queue.appendleft(message)
        self._queued_bytes += len(message.line)
        self._changed.notify_all()

    # The link

    def _keep_link(self, link: socket.socket | None) -> None:
        """Hold a link to the gateway, for ever; refuse what waits where there is none to be had."""
        start_at: float | None = 0.0
        failures = 0
        while True:
            try:
                if link is None:
                    link = self._reach(start_at)
                began = time.monotonic()
                self._live(link)
                start_at = time.monotonic() + _RESTART_GRACE
                failures = 0 if start_at - began > _RESTART_GRACE + _STEADY_SECONDS else failures + 1
                if failures > _PATIENCE:
                    raise GatewayUnreachable(
                        "The gateway ends every connection at once.",
                        f"Its log is {self._state.log}; restart it.",
                        log=str(self._state.log),
                    )
            except GatewayUnreachable as problem:
                say(str(problem))
                failures += 1
                start_at = None  # from now on only for somebody who asks
                self._refuse(problem)
            link = None
            if failures:
                time.sleep(_BACKOFF[min(failures, len(_BACKOFF)) - 1])

    def _reach(self, start_at: float | None) -> socket.socket:
        """Connect. Start a gateway once a request waits, or from ``start_at`` (monotonic) on anyway."""
        while True:
            if link := connect(self._state.relay_socket):
                return link
            with self._changed:
                if not self._wanted() and (start_at is None or time.monotonic() < start_at):
                    self._changed.wait(_LOOK_SECONDS)
                    continue
            return self._starter.start_and_connect()

    def _live(self, link: socket.socket) -> None:
        """Relay over one link until it ends."""
        lines = wire.lines(lambda size: _receive(link, size), None, tail=False)
        sender = threading.Thread(target=self._send_waiting, args=(link,), name="sender", daemon=True)
        try:
            if self._join(link, lines):
                sender.start()
                for line in lines:
                    self._from_gateway(line or b"")
        except OSError as error:
            say(f"The gateway could not be greeted: {error}.")
        finally:
            _shut(link)
            if sender.ident is not None:
                sender.join()
            with self._sending:  # closed under somebody's hands its number could be another's
                link.close()
            self._lose()

    def _join(self, link: socket.socket, lines: Iterator[bytes | None]) -> bool:
        """Greet the gateway, and bring it to where the last one was. False where it does not answer."""
        with self._changed:
            self._phase = _JOINING
            chosen = {} if self._toolset is None else {"toolset": self._toolset}
            hello = json.dumps({"toolyard": 1, "served": self._served, "pid": os.getpid(), **chosen})
            initialize = self._session.initialize_again()
            rest = self._session.rest_again() if initialize else b""
        link.settimeout(_HANDSHAKE_SECONDS)
        link.sendall(hello.encode() + b"\n" + (initialize or b""))
        if initialize:
            for line in lines:
                if line and wire.classify(line).own:
                    break
                self._from_gateway(line or b"")
            else:
                return False
            if "error" in wire.slices(line.decode()):
                refusal = json.loads(line)["error"]
                raise GatewayUnreachable(f"The gateway refused the handshake: {refusal.get('message')}")
            link.sendall(rest)
        link.settimeout(None)
        return True

    def _send_waiting(self, link: socket.socket) -> None:
        while True:
            with self._changed:
                if not self._queue:
                    self._link, self._phase = link, _ONLINE
                    self._changed.notify_all()
                    return
                message = self._queue.popleft()
                self._queued_bytes -= len(message.line)
                self._changed.notify_all()
                due = self._register(message)
            if due and not self._send(link, message):
                return

    def _from_gateway(self, line: bytes) -> None:
        kind = wire.classify(line)
        if kind.own:
            return
        with self._changed:
            if kind.asks is not None:
                self._asked.add(kind.asks)
            answered = [(ident, self._in_flight.get(ident)) for ident in kind.answers]
            session = self._session
            if not session.shaken and session.initialize_id in kind.answers:
                session.shaken = "result" in wire.slices(line.decode())
        self._out.write(line + b"\n")
        if answered:
            with self._changed:
                for ident, message in answered:
                    if message is not None and self._in_flight.get(ident) is message:
                        del self._in_flight[ident]
                self._changed.notify_all()

    def _lose(self) -> None:
        """The link is gone: answer for it what it still owed, and fall back on the cache."""
        cache = ListCache.load(self._cache_file)
        with self._changed:
            self._link, self._phase = None, _OFFLINE
            owed, self._in_flight = self._in_flight, {}
            asked, self._asked = self._asked, set()
            self._cache = cache
            # The gateway wrote this file with every change it announced.
            self._served = cache.etag if cache else None
            first = None if self._session.shaken else owed.pop(self._session.initialize_id or "", None)
            if first:
                self._put_back(first)  # without an answer to this no client goes on
            self._changed.notify_all()
        problem = GatewayLost(
            "The gateway went away before it answered.", "Try again; a new gateway is being connected."
        )
        for ident in owed:
            self._out.write(wire.error(ident, problem))
        for ident in asked:
            params = json.dumps({"requestId": ident, "reason": "The gateway that asked went away."})
            self._out.write(wire.notification("notifications/cancelled", params))

    def _refuse(self, problem: GatewayError) -> None:
        """Answer every waiting request with an error. What waits for no answer keeps waiting."""
        with self._changed:
            refused = [ident for message in self._queue for ident in message.ids]
            self._queue = deque(message for message in self._queue if not message.ids)
            self._queued_bytes = sum(len(message.line) for message in self._queue)
            if not self._room():
                self._queue.clear()  # nothing but notifications, to a gateway that does not come
                self._queued_bytes = 0
        for ident in refused:
            self._out.write(wire.error(ident, problem))
        with self._changed:
            self._changed.notify_all()


def say(text: str) -> None:
    """Tell the person, on stderr; stdout belongs to the protocol."""
    try:
        os.write(2, f"toolyard: {text}\n".encode(errors="replace"))
    except OSError:
        return  # nobody listens


def _receive(link: socket.socket, size: int) -> bytes:
    try:
        return link.recv(size)
    except OSError:  # a time-out of the handshake among them: either way this link is over
        return b""


def _shut(link: socket.socket) -> None:
    try:
        link.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was gone already


def _watch_parent() -> None:
    """End the process with the one that started it, also where that left its end of the pipe open."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(0)
