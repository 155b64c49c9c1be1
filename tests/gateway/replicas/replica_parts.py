"""What the tests of replicas share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from task_parts import Client
from yard import Yard, serving, until


@dataclass(frozen=True)
class Pair:
    """Two gateways on one store, with the same servers."""

    one: Yard
    other: Yard
    servers: Mapping[str, Any]


def gateway(root: Path, servers: Mapping[str, Any]) -> AbstractContextManager[Yard]:
    """A gateway on the store that the environment names."""
    assert os.environ["TOOLYARD_STORE"].startswith("postgresql://")
    return serving(root, servers, "--names", "prefix", "--no-auth")


def names(yard: Yard, endpoint: str = "") -> set[str]:
    """What a gateway lists, at the plain endpoint or a toolset's."""
    tools = Client(yard.url + endpoint).request("tools/list")["tools"]
    return {tool["name"] for tool in tools}


def soon(what: str, check: Any) -> None:
    """It becomes so."""
    until(what, lambda: True if check() else None)


def do(yard: Yard, *arguments: str) -> None:
    """A CLI verb at one gateway, told where it is by the environment."""
    command = [sys.executable, "-m", "gateway", *arguments]
    subprocess.run(command, env=yard.environment, check=True, capture_output=True, timeout=180)
