"""Use an installed ``toolyard`` as a person would: serve, one call, stdio, an orderly end.

    python smoke.py PATH_OF_TOOLYARD EMPTY_DIRECTORY

Standard library only; run it from a directory that is not the repository.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
WAIT = 60.0
VERSION = "2025-11-25"


def until(what: str, check: Callable[[], T | None]) -> T:
    """Ask again until there is an answer. Raises TimeoutError."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if (found := check()) is not None:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{what}: not within {WAIT:g} s")


def family(pid: int) -> set[int]:
    """A process and everything it has started, as far as it is still its descendant."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    parents = {int(a): int(b) for a, b in (line.split() for line in listing.stdout.splitlines())}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that run; a zombie does not."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,stat="], capture_output=True, text=True, check=True)
    states = dict(line.split(None, 1) for line in listing.stdout.splitlines())
    return {pid for pid in pids if not states.get(str(pid), "Z").startswith("Z")}


def running(state: Path) -> dict[str, Any] | None:
    """What a gateway that listens says of itself."""
    try:
        facts: dict[str, Any] = json.loads((state / "gateway.json").read_text())
    except FileNotFoundError:
        return None
    return facts


def end(pid: int) -> None:
    """SIGTERM, and nothing is left."""
    ours = family(pid)
    assert len(ours) > 1, "the gateway has no server running"
    os.kill(pid, signal.SIGTERM)
    started = time.monotonic()
    until(f"the end of {sorted(ours)}", lambda: None if alive(ours) else True)
    assert time.monotonic() - started < 6, "SIGTERM took longer than 5 s"


@contextlib.contextmanager
def killed(state: Path) -> Iterator[None]:
    """Leave no gateway of this state directory behind, whatever happened."""
    try:
        yield
    finally:
        if (facts := running(state)) is not None:
            for pid in alive(family(facts["pid"])):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Http:
    """The least of an MCP client over HTTP."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }

    def send(self, message: dict[str, Any]) -> Any:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        request = urllib.request.Request(self._url, body, self._headers)
        with urllib.request.urlopen(request, timeout=WAIT) as response:
            if session := response.headers.get("mcp-session-id"):
                self._headers["Mcp-Session-Id"] = session
            data = response.read()
        return json.loads(data) if data else None


INITIALIZE = {
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": VERSION,
        "capabilities": {},
        "clientInfo": {"name": "smoke", "version": "0"},
    },
}
INITIALIZED = {"method": "notifications/initialized"}
CALL = {
    "id": 3,
    "method": "tools/call",
    "params": {"name": "time__get_current_time", "arguments": {"timezone": "Europe/Berlin"}},
}


def serve(toolyard: str, state: Path) -> None:
    """``toolyard serve`` with nothing configured answers a call of the starter server."""
    flags = ["--port", "0", "--state-dir", str(state)]
    with killed(state):
        process = subprocess.Popen([toolyard, "serve", *flags], stdin=subprocess.DEVNULL)
        try:

            def listening() -> dict[str, Any] | None:
                assert process.poll() is None, f"serve ended with {process.returncode}"
                return running(state)

            facts = until("the gateway", listening)
            client = Http(facts["url"], (state / "token").read_text().strip())
            assert client.send(INITIALIZE)["result"]["serverInfo"]["name"] == "toolyard"
            client.send(INITIALIZED)
            result = client.send(CALL)["result"]
            assert not result.get("isError"), result
            assert "Europe/Berlin" in result["content"][0]["text"], result
            end(process.pid)
            assert process.wait(WAIT) == 0
        finally:
            process.kill()
            process.wait()


def stdio(toolyard: str, state: Path) -> None:
    """``toolyard stdio`` starts a gateway in the background and lists its tools."""
    with killed(state):
        lines = [INITIALIZE, INITIALIZED, {"id": 2, "method": "tools/list"}, CALL]
        process = subprocess.Popen(
            [toolyard, "stdio", "--port", "0", "--state-dir", str(state)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdin
            assert process.stdout
            for message in lines:
                process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            process.stdin.flush()
            answers: dict[int, Any] = {}
            while len(answers) < 3:
                message = json.loads(process.stdout.readline())
                if "id" in message:
                    answers[message["id"]] = message["result"]
            names = [tool["name"] for tool in answers[2]["tools"]]
            assert "time__get_current_time" in names, names
            assert "humanize__naturalsize" in names, "the shipped manifests are not in the wheel"
            assert "Europe/Berlin" in answers[3]["content"][0]["text"], answers[3]
            process.stdin.close()
            assert process.wait(WAIT) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        end(until("the gateway in the background", lambda: running(state))["pid"])


def main() -> None:
    toolyard, root = sys.argv[1], Path(sys.argv[2])
    os.environ["TOOLYARD_CONFIG_DIR"] = str(root / "config")
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("the smoke test hangs")))
    signal.alarm(240)
    version = subprocess.run([toolyard, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("toolyard "), version
    serve(toolyard, root / "serve")
    stdio(toolyard, root / "stdio")
    print(f"{version.strip()}: serve and stdio work from the wheel")


if __name__ == "__main__":
    main()
