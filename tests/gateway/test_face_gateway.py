"""The thin face with the real gateway behind it: started, shared, killed and found again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from relay_peer import WAIT, Client, initialize

from gateway.paths import StateDir


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateDir]:
    (tmp_path / "config").mkdir()
    # Long enough for the one server to start, however busy the machine is.
    (tmp_path / "config" / "config.toml").write_text(
        '[gateway]\nstarters = ["time"]\nfirst_list_grace = 60.0\n'
    )
    monkeypatch.setenv("TOOLYARD_CONFIG_DIR", str(tmp_path / "config"))
    made = StateDir.at(tmp_path / "state")
    yield made
    try:
        pid = running(made)
    except FileNotFoundError:
        return
    os.kill(pid, signal.SIGTERM)
    ended(pid)


def running(state: StateDir) -> int:
    return int(json.loads(state.running.read_text())["pid"])


def ended(pid: int) -> None:
    """Wait for a process that is nobody's child any more, or not ours."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise TimeoutError(f"process {pid} did not end")


def answer(client: Client, ident: Any) -> Any:
    """The answer under this id; notifications before it are passed over."""
    while (message := client.message()).get("id") != ident:
        assert "id" not in message
    return message


def shake(client: Client) -> None:
    client.request(0, "initialize", initialize())
    assert "result" in answer(client, 0)
    client.notify("notifications/initialized")


def names(client: Client, ident: Any) -> list[str]:
    client.request(ident, "tools/list")
    return [tool["name"] for tool in answer(client, ident)["result"]["tools"]]


def now(client: Client, ident: Any) -> Any:
    arguments = {"name": "time__get_current_time", "arguments": {"timezone": "UTC"}}
    client.request(ident, "tools/call", arguments)
    return answer(client, ident)


def test_a_face_starts_the_gateway_and_the_next_one_shares_it(state: StateDir) -> None:
    with Client(state.root, "--port", "0") as first, Client(state.root, "--port", "0") as second:
        for client in (first, second):
            shake(client)
            assert "time__get_current_time" in names(client, 1)
            assert "content" in now(client, 2)["result"]
        pid = running(state)
        assert pid not in (first.process.pid, second.process.pid)
        assert first.close() == 0
        assert second.close() == 0
    with Client(state.root) as third:
        shake(third)
        assert "content" in now(third, 1)["result"]
        assert running(state) == pid  # it outlives its faces


def test_a_killed_gateway_is_replaced_and_the_client_goes_on(state: StateDir) -> None:
    with Client(state.root, "--port", "0") as client:
        shake(client)
        assert "content" in now(client, 1)["result"]
        pid = running(state)
        os.kill(pid, signal.SIGKILL)
        ended(pid)
        lost = now(client, 2)
        if "error" in lost:  # it was on its way when the line broke
            assert lost["error"]["data"] | {"hint": ""} == {
                "type": "gateway_lost",
                "retriable": True,
                "hint": "",
            }
        assert "content" in now(client, 3)["result"]
        assert "time__get_current_time" in names(client, 4)
        assert running(state) != pid


def test_what_the_cache_answers_is_what_the_gateway_answers(state: StateDir) -> None:
    with Client(state.root, "--port", "0") as client:
        client.request(0, "initialize", initialize())
        answer(client, 0)
        client.notify("notifications/initialized")
        while "time__get_current_time" not in names(client, "wait"):
            pass
    with Client(state.root, "--port", "0") as client:
        client.request(0, "initialize", initialize())
        live = [answer(client, 0)]
        client.notify("notifications/initialized")
        for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list"):
            client.request(method, method)
            live.append(answer(client, method))
    pid = running(state)
    os.kill(pid, signal.SIGTERM)
    ended(pid)
    with Client(state.root, "--port", "0") as client:
        client.request(0, "initialize", initialize())
        cached = [answer(client, 0)]
        client.notify("notifications/initialized")
        for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list"):
            client.request(method, method)
            cached.append(answer(client, method))
        assert cached == live
        assert "content" in now(client, 9)["result"]
