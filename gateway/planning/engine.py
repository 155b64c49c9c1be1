"""The life of our own engine: a child process that is started when a plan first wants it, and ended when none does.

It listens on a loopback port that the system chooses, bound here and inherited, so that its address is
known before it runs; its token is made for each start and passed in its environment. It hangs on the same
life-line as the servers do: however the gateway ends, the engine ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.abc

from gateway.config.planner import PlannerSettings
from gateway.upstream.lifeline import MARKER, Lifeline
from gateway.upstream.recovery import STABLE, Recovery
from gateway.upstream.serverlog import ServerLog

if TYPE_CHECKING:
    from router.planner.endpoint import Endpoint

log = logging.getLogger("toolyard.planning")

LOOK_EVERY: Final = 0.5
"""Seconds between two looks at an engine that runs, for idleness."""
ASK_EVERY: Final = 10.0
"""Seconds between two questions whether it is well."""
ANSWER_WITHIN: Final = 5.0
UNANSWERED: Final = 3
"""Questions in a row without an answer that make it count as hung."""
LEAST_PAUSE: Final = 1.0
"""Seconds before an engine that failed is tried again, at least: loading a model costs much."""
TERM_GRACE: Final = 1.5
_PARTS: Final = ("torch", "safetensors", "tokenizers", "jinja2")


class EngineState(StrEnum):
    """Where the engine stands."""

    OFF = "off"
    """Nobody has wanted a plan yet, or not for long."""
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    """It ended, or could not be started; it is tried again after a pause, unless that was given up."""


class Engine:
    """Starts, watches and ends the engine. Its methods belong to the event loop.

    :param folder: of the model.
    :param tasks: the task group it lives in.
    """

    def __init__(
        self,
        settings: PlannerSettings,
        folder: Path,
        lifeline: Lifeline,
        tasks: anyio.abc.TaskGroup,
        server_log: ServerLog,
    ) -> None:
        self.state = EngineState.OFF
        self.folder = folder
        self.error = ""
        self.starts = 0
        self.pid: int | None = None
        self._settings, self._lifeline, self._tasks, self._log = settings, lifeline, tasks, server_log
        self._recovery = Recovery(patient=False)
        self._endpoint: Endpoint | None = None
        self._since = 0.0
        self._used_at = 0.0
        self._users = 0
        self._answered = False
        self._closed = False
        self._scope = anyio.CancelScope()
        self._over = asyncio.Event()
        self._over.set()
        self._said = ""

    # for who plans

    def endpoint(self) -> Endpoint:
        """Where the engine listens. Never waits.

        :raises ModelUnavailable: it is not there yet, in which case it is being started, or cannot be.
        """
        from router.errors import ModelUnavailable

        if self._endpoint is not None:
            return self._endpoint
        if self._may_start():
            self._start()
        raise ModelUnavailable(f"{self.standing()}.", self.mend() or "Ask again in a moment.")

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """While a plan is made with it, it is not idle."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._used_at = time.monotonic()

    def answered(self) -> None:
        """A plan came of it: its earlier failures are forgotten should it ever fail again."""
        self._answered = True

    # for people

    def standing(self) -> str:
        """How it stands, in a few words that a sentence can hold."""
        seconds = time.monotonic() - self._since
        if self.state is EngineState.READY:
            return f"the engine is ready (pid {self.pid})"
        if self.state is EngineState.STARTING:
            return f"the engine is being started, {seconds:.0f} s so far"
        if self.state is EngineState.OFF:
            return "the engine is started with the first plan"
        left = self._recovery.pause(asyncio.get_running_loop().time())
        again = "it is not tried again" if self._recovery.given_up else f"tried again in {left:.0f} s"
        return f"the engine is not there: {self.error} ({again})"

    def mend(self) -> str:
        """What a person can do about it; empty where there is nothing."""
        if self.state is not EngineState.FAILED:
            return ""
        where = f"See {self._log.path}; then" if self._log.path is not None else "See the gateway's log; then"
        return f"{where} run: toolyard planner --restart."

    def shown(self) -> dict[str, Any]:
        """All of it, for `doctor` and `status`."""
        return {
            "state": self.state.value,
            "says": self.standing(),
            "mend": self.mend(),
            "pid": self.pid,
            "starts": self.starts,
            "failures": self._recovery.failures,
            "model": str(self.folder),
            "log": str(self._log.path) if self._log.path is not None else None,
        }

    # its life

    def _may_start(self) -> bool:
        if self._closed or not self._over.is_set():
            return False
        if self.state is EngineState.FAILED:
            now = asyncio.get_running_loop().time()
            return not self._recovery.given_up and not self._recovery.pause(now)
        return True

    def _start(self) -> None:
        self.state, self.error, self._said = EngineState.STARTING, "", ""
        self._since = self._used_at = time.monotonic()
        self._answered = False
        self._over, self._scope = asyncio.Event(), anyio.CancelScope()
        self.starts += 1
        self._tasks.start_soon(self._live, self._over, self._scope, name="the engine")

    async def _live(self, over: asyncio.Event, scope: anyio.CancelScope) -> None:
        """One life of the engine, from its start to its end."""
        failure = ""
        try:
            with scope:
                failure = await self._life()
        except OSError as error:
            failure = f"it cannot be started: {error.strerror or error}"
        finally:
            self._endpoint, self.pid = None, None
            over.set()
        if failure and not self._closed:
            lived = STABLE if self._answered else 0.0
            self._recovery.failed(asyncio.get_running_loop().time(), lived, LEAST_PAUSE)
            self.state, self.error = EngineState.FAILED, failure
            log.error("the engine is not there: %s", failure)
            self._log.write(f"[toolyard] {failure}")
        else:
            self.state = EngineState.OFF

    async def _life(self) -> str:
        """Start it, and stay with it. Returns why it failed; nothing where it was wanted no more."""
        token = secrets.token_urlsafe(32)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
            self._log.write(f"[toolyard] starting the engine with {self.folder}")
            with anyio.CancelScope(shield=True):  # a child that nobody knows of would stay behind
                child = await self._child(listener.fileno(), token)
        async with self._watched(child) as exited:
            if not await self._loaded(exited, port):
                return self._why(child)
            from router.planner.endpoint import Endpoint

            self._endpoint = Endpoint(f"http://127.0.0.1:{port}", token=token)
            self.state, self._used_at = EngineState.READY, time.monotonic()
            seconds = time.monotonic() - self._since
            log.info("the engine is ready after %.1f s (pid %d)", seconds, child.pid)
            return await self._serves(child, exited, port)

    async def _child(self, fd: int, token: str) -> asyncio.subprocess.Process:
        """Start the process. Raises OSError."""
        wanted = self._settings
        options = {
            "model": self.folder,
            "fd": fd,
            "device": wanted.device,
            "dtype": wanted.dtype,
            "quantize": wanted.quantize,
            "threads": wanted.threads,
            "kv-tokens": wanted.kv_tokens,
            "drain-seconds": 1,
        }
        marker = self._lifeline.marker()
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "inference", "serve",
            *(word for key, value in options.items() for word in (f"--{key}", str(value))),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "TOOLYARD_INFER_TOKEN": token, MARKER: marker},
            pass_fds=(fd,),
            start_new_session=True,
        )  # fmt: skip
        self._lifeline.add(child.pid, marker)
        self.pid = child.pid
        return child

    @contextlib.asynccontextmanager
    async def _watched(self, child: asyncio.subprocess.Process) -> AsyncIterator[asyncio.Task[int]]:
        """Take down what it says, and end it in the end. Yields what is done once it has ended by itself."""
        hears = asyncio.create_task(self._hear(child), name="hear the engine")
        exited = asyncio.create_task(child.wait(), name="wait for the engine")
        try:
            yield exited
        finally:
            with anyio.CancelScope(shield=True):
                _signal(child.pid, signal.SIGTERM)
                await asyncio.wait({exited}, timeout=TERM_GRACE)
                _signal(child.pid, signal.SIGKILL)
                await asyncio.wait({exited, hears}, timeout=TERM_GRACE)
                hears.cancel()
                exited.cancel()
                self._lifeline.discard(child.pid)

    async def _hear(self, child: asyncio.subprocess.Process) -> None:
        assert child.stderr is not None
        kept = b""
        while data := await child.stderr.read(1 << 14):
            *lines, kept = (kept + data).split(b"\n")
            kept = kept[-4000:]
            for line in lines:
                self._hears(line)
        self._hears(kept)

    def _hears(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()
        if text:
            self._log.write(text)
            if not text.startswith("INFO"):
                self._said = text.removeprefix("error: ")

    async def _loaded(self, exited: asyncio.Task[int], port: int) -> bool:
        """Wait until it serves. Returns whether it does."""
        try:
            async with asyncio.timeout(self._settings.start):
                while not await _well(port):
                    await asyncio.wait({exited}, timeout=0.1)
                    if exited.done():
                        return False
        except TimeoutError:
            return False
        return True

    async def _serves(self, child: asyncio.subprocess.Process, exited: asyncio.Task[int], port: int) -> str:
        unanswered, asked_at = 0, time.monotonic()
        while True:
            await asyncio.wait({exited}, timeout=LOOK_EVERY)
            now = time.monotonic()
            if exited.done():
                self._endpoint = None  # at once: whoever gets its port next is not to be told the token
                return self._why(child)
            if self._settings.idle and not self._users and now - self._used_at >= self._settings.idle:
                log.info("the engine is ended: nobody wanted a plan for %g s", self._settings.idle)
                return ""
            if now - asked_at >= ASK_EVERY:
                asked_at = now
                unanswered = 0 if await _well(port) else unanswered + 1
                if unanswered == UNANSWERED:
                    return "it does not answer any more"

    def _why(self, child: asyncio.subprocess.Process) -> str:
        code = child.returncode
        if code is None:
            return f"it did not load the model within {self._settings.start:g} s"
        how = f"it was ended by signal {-code}" if code < 0 else f"it ended with code {code}"
        return f"{how}, saying: {self._said[:300].rstrip('.')}" if self._said else how

    async def restart(self) -> None:
        """End it, and forget its failures: the next plan starts it."""
        await self._end()
        self._recovery.forget()
        self.state, self.error = EngineState.OFF, ""

    async def close(self) -> None:
        """End it for good."""
        self._closed = True
        await self._end()

    async def _end(self) -> None:
        self._scope.cancel()
        await self._over.wait()


async def _well(port: int) -> bool:
    """Whether the engine says that it is well. It asks for no token there."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
    return line.startswith(b"HTTP/1.1 200")


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def folder_of(settings: PlannerSettings, file: Path | None) -> Path:
    """The model's folder; a relative one is meant from config.toml."""
    given = Path(os.path.expanduser(settings.model))
    return given if given.is_absolute() or file is None else Path(os.path.normpath(file.parent / given))


def lacking(folder: Path) -> tuple[str, str] | None:
    """Why an engine cannot be started with this folder, and what to do; None where it can. Imports nothing."""
    if os.name != "posix":
        return "this system cannot hand a socket to a child process", "Serve the model yourself, and set url."
    missing = [name for name in _PARTS if find_spec(name) is None]
    if missing:
        return (
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed",
            "pip install 'toolyard[inference]'",
        )
    if not (folder / "config.json").is_file():
        return f"there is no model in {folder}", "Set model in [planner] to a Hugging Face folder."
    return None
