"""A stdio MCP client of one converted service, with nothing of ours in it but the command that starts it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


class Client:
    """A service that was started, and the session with it; `close` ends both."""

    def __init__(self, directory: Path) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "servers", "host", str(directory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, bufsize=0,
        )  # fmt: skip
        self.ids = 0
        self.request(
            "initialize",
            {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "c", "version": "0"},
            },
        )

    def request(self, method: str, params: dict[str, Any], timeout: float = 60.0) -> dict[str, Any]:
        self.ids += 1
        assert self.child.stdin
        assert self.child.stdout
        line = json.dumps({"jsonrpc": "2.0", "id": self.ids, "method": method, "params": params})
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if not select.select([self.child.stdout], [], [], end - time.monotonic())[0]:
                break
            answer = json.loads(self.child.stdout.readline() or b"{}")
            if answer.get("id") == self.ids:
                return answer
            if not answer:
                break
        return {"error": {"code": 0, "message": "no answer"}}

    def close(self) -> None:
        assert self.child.stdin
        assert self.child.stdout
        assert self.child.stderr
        self.child.stdin.close()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()
        self.child.stderr.close()
