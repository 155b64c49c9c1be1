"""The environments of converted services: each built once, in a process of its own, whoever asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from typing import Final

import anyio.to_thread

from gateway.errors import UpstreamUnavailable
from gateway.hosted.entry import manifest_of, place_of
from gateway.upstream.lifeline import MARKER, Lifeline
from registry.model import ServerSpec

TIMEOUT: Final = 900.0
"""Seconds that building one environment may take."""
AT_ONCE: Final = 2
"""Environments built at the same time: they are downloads and byte compilation."""
_SAID: Final = 4000
_ERROR: Final = re.compile(r"^error: (.*(?:\n {7}.*)*)", re.M)


class NotBuilt(UpstreamUnavailable):
    """The environment of a converted service could not be built."""

    kind = "environment_not_built"
    pause = 30.0


class Environments:
    """Builds environments. Callers at the same time share one attempt; it ends with them all, or with `close`."""

    def __init__(self, lifeline: Lifeline) -> None:
        self._lifeline = lifeline
        self._building: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def missing(self, spec: ServerSpec) -> bool:
        """Whether the service's environment has still to be built. Raises ManifestUnusable."""

        def look() -> bool:
            from servers.convert import environment

            return environment.find(manifest_of(spec).environment) is None

        return await anyio.to_thread.run_sync(look)

    async def ready(self, spec: ServerSpec) -> None:
        """Have the service's environment built.

        :raises NotBuilt: with what stood in the way, and what to do.
        """
        place = place_of(spec)
        task = self._building.get(place)
        if task is None:
            task = self._building[place] = asyncio.create_task(
                self._build(spec.name, place), name=f"build {spec.name}"
            )
            task.add_done_callback(lambda done: self._built(place, done))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise  # whoever waits here gives up; the build goes on
            raise NotBuilt(f"Building the environment of '{spec.name}' was given up.") from None

    def _built(self, place: str, task: asyncio.Task[None]) -> None:
        if self._building.get(place) is task:
            del self._building[place]
        if not task.cancelled():
            task.exception()  # whoever still waits has it; nobody need

    async def _build(self, name: str, place: str) -> None:
        async with self._turns:
            marker = self._lifeline.marker()
            try:
                child = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", "servers", "warm", place,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    env={**os.environ, MARKER: marker},
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise NotBuilt(f"Cannot start the build of '{name}': {error.strerror or error}.") from None
            self._lifeline.add(child.pid, marker)
            try:
                async with asyncio.timeout(TIMEOUT):
                    said = await _tail(child)
                    code = await child.wait()
            except TimeoutError:
                raise NotBuilt(
                    f"Building the environment of '{name}' took more than {TIMEOUT:g} s.",
                    f"See what it waits for: toolyard warm {place}.",
                ) from None
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
                await child.wait()
                self._lifeline.discard(child.pid)
        if code != 0:
            found = _ERROR.findall(said)
            text = " ".join(found[-1].split()) if found else f"the build ended with code {code}."
            raise NotBuilt(
                f"The environment of '{name}' is not there yet: {text}",
                f"It is tried again every {NotBuilt.pause:g} s for a while, and at once by: toolyard restart {name}.",
            )

    async def close(self) -> None:
        """Give up what is being built."""
        tasks = list(self._building.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tail(child: asyncio.subprocess.Process) -> str:
    """The end of what a child says on stderr."""
    assert child.stderr is not None
    kept = b""
    while data := await child.stderr.read(1 << 14):
        kept = (kept + data)[-_SAID:]
    return kept.decode("utf-8", "replace")
