"""What becomes of tasks when the gateway, the server or the store does not last as long as they do."""

from __future__ import annotations

import json
import signal
import tempfile
import time
from pathlib import Path

import pytest
from task_parts import Client, Refused, accept, entry_of, fixture_http, text
from yard import TOKEN, WAIT, Yard, raw_client, serving, until

FLAGS = ("--names", "on-collision", "--no-auth")


def gone(yard: Yard, how: signal.Signals) -> None:
    """End a gateway: orderly, or as a crash does."""
    yard.process.send_signal(how)
    yard.process.wait(WAIT)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_tasks_outlive_the_gateway(tmp_path: Path, how: signal.Signals) -> None:
    with fixture_http("stateless") as (url, _), fixture_http("handshake") as (old_url, _):
        both = {"new": {"type": "http", "url": url}, "old": {"type": "http", "url": old_url}}
        with serving(tmp_path, both, "--names", "prefix", "--no-auth") as yard:
            client = Client(yard.url)
            client.ready(of=2)
            done = client.start("new__slow_compute", label="done")
            client.when(done, "completed")
            lost = client.start("old__wait", label="lost")
            waiting = client.start("new__confirm_delete", filename="e.txt")
            parked = client.start("old__confirm_delete", filename="f.txt")
            for task in (waiting, parked):
                client.when(task, "input_required")
            gone(yard, how)
        with serving(tmp_path, both, "--names", "prefix", "--no-auth") as yard:
            client = Client(yard.url)
            assert text(client.result(done)) == "computed done"
            for task in (lost, parked):
                failed = client.get(task)
                assert failed["status"] == "failed"
                assert "while the call was under way" in failed["statusMessage"]
                assert failed["error"]["data"] == {"type": "task_lost", "retriable": False}
            [key] = client.get(waiting)["inputRequests"]
            client.update(waiting, **{key: accept(confirm=True)})
            assert text(client.result(waiting)) == "deleted e.txt"


def test_a_task_whose_server_died_fails_and_says_so(tmp_path: Path) -> None:
    with (
        fixture_http("handshake") as (url, process),
        serving(tmp_path, {"peer": {"type": "http", "url": url}}, *FLAGS) as yard,
    ):
        client = Client(yard.url)
        client.ready()
        task = client.start("wait", label="x")
        process.kill()
        failed = client.when(task, "failed", "completed")
        assert failed["error"]["data"]["retriable"] is True
        assert failed["statusMessage"]


def test_a_task_may_take_longer_than_a_call(tmp_path: Path) -> None:
    entry = {**entry_of("stateless"), "timeout": 6}
    with serving(tmp_path, {"peer": entry}, *FLAGS) as yard:
        client = Client(yard.url)
        client.ready()
        with tempfile.NamedTemporaryFile() as held:
            task = client.call("slow_compute", held=held.name, label="patient")["taskId"]
            time.sleep(7)
        assert text(client.result(task)) == "computed patient"


def test_a_task_belongs_to_whoever_made_the_call(tmp_path: Path) -> None:
    servers = {"peer": entry_of("stateless")}
    with serving(tmp_path, servers, "--names", "on-collision") as yard:
        owner = Client(yard.url, credential=TOKEN)
        owner.ready()
        task = owner.start("slow_compute", label="mine")
        assert text(owner.result(task)) == "computed mine"
    with serving(tmp_path, servers, *FLAGS) as yard:
        for stranger in (Client(yard.url), Client(yard.url, credential=TOKEN)):
            for act in (stranger.get, stranger.cancel, stranger.update):
                with pytest.raises(Refused) as refused:
                    act(task)
                assert refused.value.code == -32602
    with serving(tmp_path, servers, "--names", "on-collision") as yard:
        assert text(Client(yard.url, credential=TOKEN).result(task)) == "computed mine"


def test_a_servers_own_tasks_are_passed_on_under_sealed_ids(tmp_path: Path) -> None:
    """The server that has tasks of its own is a second gateway."""
    with serving(tmp_path / "inner", {"peer": entry_of("handshake")}, *FLAGS) as inner:
        Client(inner.url).ready()
        outer_entry = {"peer": {"type": "http", "url": inner.url}}
        with serving(tmp_path / "outer", outer_entry, *FLAGS) as outer:
            client = Client(outer.url)
            client.ready()
            task = client.start("confirm_delete", filename="g.txt")
            with pytest.raises(Refused):
                Client(inner.url).get(task)
            waiting = client.when(task, "input_required")
            assert waiting["taskId"] == task
            [key] = waiting["inputRequests"]
            client.update(task, **{key: accept(confirm=True)})
            assert text(client.result(task)) == "deleted g.txt"
            second = client.start("wait", label="y")
            assert client.cancel(second) == {"resultType": "complete"}
            assert client.when(second, "cancelled", "failed")["status"] == "cancelled"


def test_a_handshake_client_gets_no_tasks_and_its_task_parameter_is_ignored(tmp_path: Path) -> None:
    with (
        serving(tmp_path, {"peer": entry_of("handshake")}, "--names", "on-collision") as yard,
        raw_client(yard) as client,
    ):
        until("tools", lambda: True if client.names() else None)
        capabilities = client.initialized["result"]["capabilities"]
        assert not {"tasks", "extensions"} & capabilities.keys()
        params = {"name": "slow_compute", "arguments": {"seconds": 0.7}, "task": {"ttl": 1000}}
        answer = json.loads(client.request("tools/call", json.dumps(params).encode()))
        assert text(answer["result"]) == "computed "
        for method in ("tasks/get", "tasks/result", "tasks/list", "tasks/cancel", "tasks/update"):
            refused = json.loads(client.request(method, b'{"taskId":"x"}'))
            assert refused["error"]["code"] == -32601
