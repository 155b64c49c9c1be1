"""Running a gateway: lock, store, sockets, servers, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc
from filelock import FileLock, Timeout

from gateway import jsonrpc, paths
from gateway.app import Gateway
from gateway.config import servers as servers_file
from gateway.config.options import ServeOptions
from gateway.config.settings import Settings
from gateway.config.watch import changes
from gateway.endpoint.http import HttpEndpoint
from gateway.endpoint.relay import MAX_LINE, StreamClient
from gateway.endpoint.subregistry import Subregistry
from gateway.errors import ConfigError, GatewayError, StateError
from gateway.following import identity
from gateway.front import Front, Relays
from gateway.paths import StateDir
from gateway.planning.runs import default_where
from gateway.policy.guard import LOOPBACK, Guard
from gateway.policy.token import load_token
from gateway.version import __version__
from registry.errors import RegistryError
from registry.model import ServerSpec, Transport
from registry.store import Store

log = logging.getLogger("toolyard")

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 6
EXIT_LOCKED: Final = 7
STOP_WITHIN: Final = 4.5
"""Seconds after a signal in which everything ends, of our own accord."""
_MOMENT: Final = 0.02
"""Seconds at a time in which the last resort waits: as much as one that the process was stopped in may count."""
IDLE_CHECK: Final = 1.0


class AlreadyRunning(StateError):
    """Another gateway holds the state directory."""

    kind = "already_running"


def run(options: ServeOptions) -> int:
    """``toolyard serve``: run until SIGTERM or SIGINT. Returns the exit code."""
    return _guarded(lambda: _with_loop(_serve(options)), options)


def run_standalone(options: ServeOptions) -> int:
    """``toolyard stdio --standalone``: a gateway of its own for the client on stdin and stdout.

    It keeps its state in a private directory that goes with it.
    """

    def work() -> None:
        with tempfile.TemporaryDirectory(prefix="toolyard-") as directory:
            _with_loop(_standalone(replace(options, state_dir=Path(directory))))

    return _guarded(work, options)


def _guarded(work: Callable[[], None], options: ServeOptions) -> int:
    logging.basicConfig(
        level=(options.log_level or "info").upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        work()
    except AlreadyRunning as error:
        return _say(error, EXIT_LOCKED)
    except ConfigError as error:
        return _say(error, EXIT_CONFIG)
    except (GatewayError, RegistryError) as error:
        return _say(error, EXIT_FAILED)
    except OSError as error:
        return _say(StateError(f"The gateway could not start: {error}."), EXIT_FAILED)
    return 0


def _say(error: GatewayError | RegistryError, code: int) -> int:
    print(f"toolyard: {error.message} {error.hint or ''}".rstrip(), file=sys.stderr)
    return code


def _with_loop(main: Any) -> None:
    factory = None
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:
        log.info("uvloop is not installed; the standard event loop is slower")
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


@contextlib.contextmanager
def hold(state: StateDir) -> Any:
    """Hold the lock of a state directory. Raises AlreadyRunning, StateError."""
    try:
        state.create()
    except OSError as error:
        raise StateError(
            f"Cannot use the state directory {state.root}: {error.strerror or error}.",
            "Choose another --state-dir.",
        ) from None
    lock = FileLock(state.lock, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise AlreadyRunning(
            f"A gateway is running on {state.root} already{_who(state)}.",
            "Use it, stop it, or choose another --state-dir.",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _who(state: StateDir) -> str:
    try:
        facts = jsonrpc.value(state.running.read_bytes())
        return f" (pid {facts['pid']}, {facts['url']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def starters(settings: Settings) -> list[ServerSpec]:
    """The servers of an empty configuration: the reference time server, and a few converted services."""
    from gateway.hosted.entry import from_manifest
    from servers.manifest import shipped

    made = []
    for name in settings.starters if settings.starters is not None else ("time", *shipped.STARTERS):
        if name == "time":
            made.append(ServerSpec("time", Transport.STDIO, sys.executable, ("-m", "mcp_server_time")))
        else:
            made.append(from_manifest(name, name))
    return made


class Configuration:
    """The servers file of a gateway, read at start and again whenever it changes."""

    def __init__(self, options: ServeOptions) -> None:
        self.named = options.config is not None
        self.path = options.config.absolute() if options.config else paths.config_dir() / "mcp.json"
        self._changes = changes(self.path)  # before the first read: no change in between is missed

    def read(self) -> tuple[ServerSpec, ...]:
        """The entries. Raises ConfigError; single bad entries are logged and left out."""
        if not self.named and not self.path.exists():
            return ()
        file = servers_file.read(self.path)
        for problem in file.problems:
            log.error("%s", problem)
        return file.specs

    async def watch(self, gateway: Gateway) -> None:
        """Apply every change; a file that cannot be used changes nothing but what ``status`` says."""
        async with contextlib.aclosing(self._changes):
            async for _ in self._changes:
                await self._apply(gateway)

    async def _apply(self, gateway: Gateway) -> None:
        try:
            specs = self.read()
        except ConfigError as error:
            gateway.config_error = error.message
            log.error("%s The last good configuration stays in force.", error.message)
            return
        gateway.config_error = None
        log.info("the servers file %s has changed", self.path)
        try:
            await gateway.roster.configure(specs)
        except (GatewayError, RegistryError) as error:
            log.error("applying %s: %s", self.path, error)


async def _serve(options: ServeOptions) -> None:
    settings = Settings.load(options)
    logging.getLogger().setLevel(settings.log_level.upper())
    loopback = settings.host in LOOPBACK or settings.host.startswith("127.")
    if options.no_auth and not loopback:
        raise ConfigError(
            f"--no-auth would let anybody who reaches {settings.host} call every tool.",
            "Drop one of the two.",
        )
    state = StateDir.at(options.state_dir)
    configuration = Configuration(options)
    with hold(state):
        specs = configuration.read()
        token = None if options.no_auth else options.token or load_token(state.token)
        with Store.open(settings.store_at(state)) as store:
            sock = listen_tcp_for(settings, options)
            with contextlib.closing(sock):
                await _run(options, settings, state, configuration, specs, token, store, sock)


def listen_tcp_for(settings: Settings, options: ServeOptions) -> socket.socket:
    """The HTTP socket; a gateway started in the background takes any port where its own is in use."""
    from gateway.httpd import listen_tcp

    return listen_tcp(settings.host, settings.port, fall_back=options.detached and options.port is None)


async def _run(
    options: ServeOptions,
    settings: Settings,
    state: StateDir,
    configuration: Configuration,
    specs: tuple[ServerSpec, ...],
    token: str | None,
    store: Store,
    sock: socket.socket,
) -> None:
    from gateway.admin.control import ControlApi
    from gateway.httpd import HttpServer, listen_unix, raise_descriptor_limit

    raise_descriptor_limit()
    stop = asyncio.Event()
    host, port = sock.getsockname()[:2]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/mcp"
    async with anyio.create_task_group() as tasks, _signals(stop):
        gateway = Gateway(
            settings,
            store,
            tasks,
            cache_writer=lambda data: write_private(state.cache, data),
            trust_config=configuration.named,
            log_dir=state.logs,
            journal=default_where(state.root),
            search_dir=state.search,
            toolset_cache=lambda name, data: write_private(state.toolset_cache(name), data),
            identity=identity(state.identity),
        )
        gateway.roster.config_file = str(configuration.path) if specs or configuration.named else None
        endpoint = HttpEndpoint(gateway.dispatcher, gateway.notices, gateway.events, settings.max_body)
        relays = Relays(gateway)
        hosts = (
            settings.allowed_hosts if host in ("0.0.0.0", "::") else (*settings.allowed_hosts, settings.host)
        )
        front = Front(endpoint, gateway.toolsets, Subregistry(gateway.published))
        servers = [HttpServer.of(Guard(front, token, hosts, settings.allowed_origins))]
        sockets = [sock]
        if hasattr(socket, "AF_UNIX"):
            control = ControlApi(
                gateway,
                url=url,
                auth=token is not None,
                state_dir=state.root,
                relays=lambda: len(relays),
                stop=stop.set,
            )
            servers.append(HttpServer.of(control.app(front)))
            sockets.append(listen_unix(state.control_socket))
        await gateway.start(specs, () if specs else starters(settings))
        for server, listener in zip(servers, sockets, strict=True):
            tasks.start_soon(server.serve, [listener])
        async with relays.listening(state):
            tasks.start_soon(configuration.watch, gateway)
            facts = {"pid": os.getpid(), "url": url, "version": __version__, "started_at": gateway.started_at}
            write_private(state.running, jsonrpc.encode(facts))
            announce(options, state, url, token, gateway)
            if options.idle_exit is not None:
                tasks.start_soon(_end_when_idle, options.idle_exit, stop, relays, endpoint)
            await stop.wait()
            log.info("ending")
            threading.Thread(target=_last_resort, daemon=True).start()
            state.running.unlink(missing_ok=True)
            for server in servers:
                server.should_exit = True
            await asyncio.gather(gateway.close(), relays.close())
        tasks.cancel_scope.cancel()
    for path in (state.control_socket, state.relay_socket):
        path.unlink(missing_ok=True)


def _last_resort() -> None:
    """End the process although something would not end.

    Time in which the process was stopped, or had to wait for the processor, does not count.
    """
    for _ in range(round(STOP_WITHIN / _MOMENT)):
        time.sleep(_MOMENT)
    os.write(2, b"toolyard: something did not end in time; leaving it behind\n")
    os._exit(EXIT_FAILED)


@contextlib.asynccontextmanager
async def _signals(stop: asyncio.Event) -> AsyncIterator[None]:
    """SIGTERM and SIGINT set the event; a second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def received() -> None:
        if stop.is_set():
            os._exit(128 + signal.SIGINT)
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT) if sys.platform != "win32" else ()
    for number in numbers:
        loop.add_signal_handler(number, received)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _end_when_idle(seconds: float, stop: asyncio.Event, relays: Relays, endpoint: HttpEndpoint) -> None:
    loop = asyncio.get_running_loop()
    last, served = loop.time(), endpoint.served
    while not stop.is_set():
        await asyncio.sleep(min(IDLE_CHECK, seconds))
        if len(relays) or endpoint.active or endpoint.served != served:
            last, served = loop.time(), endpoint.served
        elif loop.time() - last >= seconds:
            log.info("no client for %g s", seconds)
            stop.set()


def announce(options: ServeOptions, state: StateDir, url: str, token: str | None, gateway: Gateway) -> None:
    """Tell a person where the gateway is and how to point a client at it; the token on a terminal only."""
    if options.detached:
        log.info("listening on %s", url)
        return
    shown = token if token is not None and sys.stdout.isatty() else "TOKEN"
    entry: dict[str, Any] = {"type": "http", "url": url}
    if token is not None:
        entry["headers"] = {"Authorization": f"Bearer {shown}"}
    lines = [f"Toolyard {__version__} serves {url}", ""]
    lines += [f"  {u.name:<20} {u.server.spec.transport}" for u in gateway.upstreams.values()]
    lines += ["", "Client entry:", "", '  "toolyard": ' + jsonrpc.encode(entry).decode(), ""]
    if token is None:
        lines.append("Authentication is off: any program on this machine may call every tool.")
    elif shown == "TOKEN":
        given = "the one given with --token" if options.token else f"in {state.token}"
        lines.append(f"The bearer token is {given}.")
    lines.append("A desktop assistant may launch 'toolyard stdio' instead. Ctrl-C ends.")
    print("\n".join(lines), flush=True)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file as a whole; it is readable by its owner alone. Raises OSError."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


async def _standalone(options: ServeOptions) -> None:
    settings = Settings.load(options)
    logging.getLogger().setLevel(settings.log_level.upper())
    state = StateDir.at(options.state_dir)
    state.create()
    configuration = Configuration(options)
    specs = configuration.read()
    stop = asyncio.Event()
    with Store.open(settings.store_at(state)) as store:
        async with anyio.create_task_group() as tasks, _signals(stop):
            gateway = Gateway(settings, store, tasks, trust_config=configuration.named)
            await gateway.start(specs, () if specs else starters(settings))
            dispatcher, notices = gateway.dispatcher, gateway.notices
            if options.toolset is not None:
                view = await gateway.toolsets.view(options.toolset)
                dispatcher, notices = view.dispatcher, view.notices
            reader, writer = await _standard_streams()
            client = StreamClient(dispatcher, notices, reader, writer)
            serving = asyncio.create_task(client.serve())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            threading.Thread(target=_last_resort, daemon=True).start()
            for task in (serving, stopping):
                task.cancel()
            await asyncio.gather(serving, stopping, return_exceptions=True)
            await gateway.close()
            tasks.cancel_scope.cancel()


async def _standard_streams() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop=loop), sys.stdout
    )
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)
