"""Reference servers of PyPI and npm, and the Inspector's CLI as a client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from npm_packages import Npm
from yard import ERAS, TOKEN, WAIT, Yard, names_of, over_http, over_stdio, raw_client, serving, text_of, until

INSPECTOR_WAIT = 60.0


@pytest.fixture(scope="module")
def pypi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """The time and git servers of PyPI."""
    root = tmp_path_factory.mktemp("pypi")
    subprocess.run(["git", "init", "-q", str(root / "work")], check=True, timeout=WAIT)
    (root / "work" / "new.txt").write_text("new")
    servers = {
        "time": {"command": sys.executable, "args": ["-m", "mcp_server_time"]},
        "git": {
            "command": sys.executable,
            "args": ["-m", "mcp_server_git", "--repository", str(root / "work")],
        },
    }
    with serving(root, servers) as yard:
        with raw_client(yard) as client:
            until("the tools", lambda: True if len({n[:4] for n in client.names()}) == 2 else None)
        yield yard


@pytest.fixture(scope="module")
def modules(npm: Npm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """The everything, filesystem and memory servers of npm."""
    root = tmp_path_factory.mktemp("npm")
    (root / "files").mkdir()
    (root / "files" / "hello.txt").write_text("hello from a file")

    def entry(name: str, *arguments: str, **env: str) -> dict[str, Any]:
        command, *rest = npm.server(name)
        return {"command": command, "args": [*rest, *arguments], "env": env}

    servers = {
        "everything": entry("everything", "stdio"),
        "files": entry("filesystem", str(root / "files")),
        "memory": entry("memory", MEMORY_FILE_PATH=str(root / "memory.jsonl")),
    }
    with serving(root, servers) as yard:
        with raw_client(yard) as client:
            until("the tools", lambda: True if len({n[:4] for n in client.names()}) == 3 else None)
        yield yard


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_the_servers_of_pypi_answer(pypi: Yard, era: str) -> None:
    async with over_http(pypi, era) as client:
        now = await client.call_tool("time__get_current_time", {"timezone": "Asia/Tokyo"})
        assert json.loads(text_of(now))["timezone"] == "Asia/Tokyo"
        status = await client.call_tool("git__git_status", {"repo_path": str(pypi.root / "work")})
        assert "new.txt" in text_of(status)


@pytest.mark.node
@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_the_servers_of_npm_answer(modules: Yard, era: str) -> None:
    async with over_stdio(modules, era) as client:
        path = str(modules.root / "files" / "hello.txt")
        assert text_of(await client.call_tool("files__read_text_file", {"path": path})) == "hello from a file"
        person = {"name": f"Ada {era}", "entityType": "person", "observations": ["counts"]}
        await client.call_tool("memory__create_entities", {"entities": [person]})
        graph = await client.call_tool("memory__read_graph")
        assert person["name"] in text_of(graph)
        echoed = await client.call_tool("everything__echo", {"message": "hello"})
        assert text_of(echoed) == "Echo: hello"
        assert "everything__simple-prompt" in names_of((await client.list_prompts()).prompts)
        assert (await client.list_resource_templates()).resource_templates


def inspect(npm: Npm, *arguments: str) -> Any:
    """What the Inspector prints for a method."""
    done = subprocess.run(
        [*npm.inspector, "--cli", *arguments],
        env=npm.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSPECTOR_WAIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout[done.stdout.index("{") :])


@pytest.mark.node
@pytest.mark.parametrize("face", ["http", "stdio"])
def test_the_inspector_lists_and_calls(npm: Npm, house: Yard, face: str) -> None:
    if face == "http":
        target = [house.url, "--transport", "http", "--header", f"Authorization: Bearer {TOKEN}"]
    else:
        target = [*house.stdio]
    tools = inspect(npm, *target, "--method", "tools/list")["tools"]
    assert "http__echo" in [tool["name"] for tool in tools]
    call = ["--method", "tools/call", "--tool-name", "http__add", "--tool-arg", "a=2", "b=3"]
    assert inspect(npm, *target, *call)["structuredContent"] == {"sum": 5}


@pytest.mark.node
def test_the_inspector_is_turned_away_without_the_token(npm: Npm, house: Yard, tmp_path: Path) -> None:
    done = subprocess.run(
        [*npm.inspector, "--cli", house.url, "--transport", "http", "--method", "tools/list"],
        env={**npm.environment, "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSPECTOR_WAIT,
        check=False,
    )
    assert done.returncode != 0
    assert "tools" not in done.stdout
