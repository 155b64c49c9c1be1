"""Small packages of our own, as wheels written by hand: nothing is fetched, nothing is built."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import select
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]


def wheel(
    folder: Path,
    name: str,
    files: Mapping[str, str],
    *,
    version: str = "1.0",
    requires: Sequence[str] = (),
    extras: Sequence[str] = (),
    scripts: Mapping[str, str] | None = None,
    readme: str = "",
) -> Path:
    """Write ``name-version-py3-none-any.whl``."""
    info = f"{name}-{version}.dist-info"
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        "Summary: A trap.",
        "License: MIT",
    ]
    lines += [f"Requires-Dist: {each}" for each in requires]
    lines += [f"Provides-Extra: {each}" for each in extras]
    contents = dict(files)
    contents[f"{info}/METADATA"] = "\n".join(lines) + "\n\n" + readme
    contents[f"{info}/WHEEL"] = (
        "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    if scripts:
        points = "\n".join(f"{key} = {value}" for key, value in scripts.items())
        contents[f"{info}/entry_points.txt"] = f"[console_scripts]\n{points}\n"
    record = []
    for path, text in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(text.encode())}")
    record.append(f"{info}/RECORD,,")
    contents[f"{info}/RECORD"] = "\n".join(record) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
    return made


def convert(spec: str, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """``python -m servers convert``."""
    argv = [sys.executable, "-m", "servers", "convert", spec, "--out", str(out), *options]
    return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ), check=False)


class Client:
    """An MCP client of ``python -m servers host DIR``, which really runs."""

    def __init__(self, directory: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        argv = [sys.executable, "-m", "servers", "host", str(directory), *options]
        self.child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
        )
        self._ids = 0
        self.notices: list[dict[str, Any]] = []
        self._answers: dict[Any, dict[str, Any]] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.close()
        self.child.wait(60)
        self.child.stdout.close()

    def line(self, data: bytes) -> None:
        """Send one raw line."""
        assert self.child.stdin is not None
        self.child.stdin.write(data + b"\n")
        self.child.stdin.flush()

    def send(self, method: str, params: dict[str, Any]) -> int:
        """Send a request; returns its id."""
        self._ids += 1
        self.line(
            json.dumps({"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params}).encode()
        )
        return self._ids

    def wait(self, ident: Any, timeout: float = 60.0) -> dict[str, Any]:
        """The answer to a request, whatever comes before it."""
        assert self.child.stdout is not None
        end = time.monotonic() + timeout
        while ident not in self._answers:
            assert select.select([self.child.stdout], [], [], max(0.0, end - time.monotonic()))[0], (
                "no answer"
            )
            line = self.child.stdout.readline()
            assert line, "the service has ended"
            message = json.loads(line)
            if "method" in message:
                self.notices.append(message)
            else:
                self._answers[message["id"]] = message
        return self._answers.pop(ident)

    def request(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """A request and its answer."""
        return self.wait(self.send(method, params or {}))

    def call(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool; returns its result."""
        answer = self.request("tools/call", {"name": name, "arguments": arguments})
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def value(self, name: str, /, **arguments: Any) -> Any:
        """Call a tool that must answer; returns the value."""
        result = self.call(name, **arguments)
        assert not result["isError"], result["content"]
        return result["structuredContent"]["result"]

    def problem(self, name: str, /, **arguments: Any) -> str:
        """Call a tool that must refuse; returns what it says."""
        result = self.call(name, **arguments)
        assert result["isError"], result
        text: str = result["content"][0]["text"]
        return text
