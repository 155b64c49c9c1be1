"""The thin face: what a client launched by ``toolyard stdio`` sees, whatever its gateway does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_peer import HANDSHAKE, WAIT, Client, RelaySocket, initialize, stateless

from gateway.face import wire
from gateway.paths import StateDir

TOOL = '{"name":"time__now","inputSchema":{"type":"object","x":1e400},"future":12345678901234567890123.50}'
CACHE = (
    '{"etag":"e1","initialize":{"capabilities":{"tools":{"listChanged":true}},'
    '"serverInfo":{"name":"toolyard","version":"0"},"instructions":"Be kind."},'
    '"results":{"tools/list":{"tools":[%s],"nextCursor":"c2"},"prompts/list":{"prompts":[]},'
    '"resources/list":{"resources":[]},"resources/templates/list":{"resourceTemplates":[]}}}'.replace(
        "%s", TOOL
    )
)


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir.at(tmp_path / "state")
    made.create()
    return made


@pytest.fixture
def relay(state: StateDir) -> Iterator[RelaySocket]:
    listening = RelaySocket(state.relay_socket)
    yield listening
    listening.close()


@pytest.fixture
def no_gateway(tmp_path: Path) -> dict[str, str]:
    """An environment in which a gateway that the face starts ends with an error at once."""
    blocker = tmp_path / "blocker" / "sitecustomize.py"
    blocker.parent.mkdir()
    blocker.write_text(
        "import os, sys\nif 'serve' in sys.orig_argv:\n"
        "    os.write(2, b'no gateway today')\n    os._exit(6)\n"
    )
    return {**os.environ, "PYTHONPATH": str(blocker.parent)}


@pytest.fixture
def slow_gateway(tmp_path: Path) -> dict[str, str]:
    """An environment in which a gateway that the face starts never listens: the test does."""
    blocker = tmp_path / "blocker" / "sitecustomize.py"
    blocker.parent.mkdir()
    blocker.write_text("import os, sys\nif 'serve' in sys.orig_argv:\n    os._exit(7)\n")
    return {**os.environ, "PYTHONPATH": str(blocker.parent)}


def shake(client: Client) -> Any:
    client.request(0, "initialize", initialize())
    answer = client.message()
    client.notify("notifications/initialized")
    return answer


def test_it_imports_nothing_heavy(state: StateDir, relay: RelaySocket, tmp_path: Path) -> None:
    report = tmp_path / "modules"
    code = (
        "import sys, atexit; sys.argv = ['toolyard', 'stdio', '--state-dir', sys.argv[1]]\n"
        f"atexit.register(lambda: open({str(report)!r}, 'w').write(' '.join(sys.modules)))\n"
        "from gateway.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(state.root)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WAIT,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    loaded = set(report.read_text().split())
    assert "gateway.face.relay" in loaded
    heavy = {"typer", "click", "rich", "mcp", "mcp_types", "asyncio", "msgspec", "sqlalchemy", "pydantic"}
    assert not loaded & (heavy | {"anyio", "starlette", "uvicorn", "argparse", "ssl", "http"})


def test_with_a_gateway_running_every_message_passes_byte_for_byte(
    state: StateDir, relay: RelaySocket
) -> None:
    with Client(state.root) as client:
        link = relay.accept()
        hello = link.message()
        assert hello["toolyard"] == 1
        assert hello["served"] is None
        assert hello["pid"] == client.process.pid
        sent = b'{"jsonrpc":"2.0", "id" : 7,"method":"tools/call","params":{"n":1e400,"i":%s}}' % (
            b"9" * 5000
        )
        client.write(sent + b"\r\n")
        assert link.line() == sent
        back = b'{"jsonrpc":"2.0","id":7,"result":{"x":1.000,"big":%s}}' % (b"8" * 5000)
        link.send(back)
        assert client.line() == back
        link.send('{"jsonrpc":"2.0","method":"notifications/progress","params":{}}')
        assert client.message()["method"] == "notifications/progress"
        assert client.close() == 0
        with pytest.raises(EOFError):
            link.line()


def test_before_the_gateway_is_up_the_first_lists_come_from_the_disk(
    state: StateDir, slow_gateway: dict[str, str]
) -> None:
    state.cache.write_text(CACHE)
    with Client(state.root, env=slow_gateway) as client:
        client.request("a", "initialize", initialize("2025-06-18"))
        shaken = client.message()
        assert shaken["id"] == "a"
        assert shaken["result"] == {**HANDSHAKE, "protocolVersion": "2025-06-18", "instructions": "Be kind."}
        client.notify("notifications/initialized")
        client.request(1, "tools/list")
        assert client.line() == (
            b'{"jsonrpc":"2.0","id":1,"result":{"tools":[%s],"nextCursor":"c2"}}' % TOOL.encode()
        )
        client.request(2, "ping")
        assert client.message() == {"jsonrpc": "2.0", "id": 2, "result": {}}
        client.request(3, "prompts/list", {})
        assert client.message()["result"] == {"prompts": []}
        client.request(4, "tools/list", {"cursor": "c2"})
        client.request(5, "tools/call", {"name": "time__now", "arguments": {}})

        relay = RelaySocket(state.relay_socket)
        link = relay.accept()
        assert link.message()["served"] == "e1"
        replay = link.message()
        assert replay["method"] == "initialize"
        assert replay["params"] == initialize("2025-06-18")
        assert replay["id"] != "a"
        link.answer(replay, HANDSHAKE)
        assert link.message() == {"jsonrpc": "2.0", "method": "notifications/initialized"}
        page, call = link.message(), link.message()
        assert (page["id"], call["id"]) == (4, 5)
        link.answer(call, {"content": []})
        assert client.message()["id"] == 5
        link.answer(page, {"tools": []})
        assert client.message()["id"] == 4
        relay.close()


def test_the_stateless_era_is_answered_from_the_disk_too(
    state: StateDir, slow_gateway: dict[str, str]
) -> None:
    state.cache.write_text(CACHE)
    with Client(state.root, env=slow_gateway) as client:
        client.request(1, "server/discover", stateless())
        result = client.message()["result"]
        assert "2026-07-28" in result["supportedVersions"]
        assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "private")
        assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "toolyard"
        client.request(2, "tools/list", stateless())
        listed = client.line()
        assert TOOL.encode() in listed
        result = json.loads(listed)["result"]
        assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "private")
        client.request(3, "tools/call", stateless(name="time__now"))
        relay = RelaySocket(state.relay_socket)
        link = relay.accept()
        assert link.message()["served"] == "e1"
        assert link.message()["id"] == 3
        relay.close()


@pytest.mark.parametrize(("asked", "given"), [("2024-11-05", "2024-11-05"), ("1999-01-01", "2025-11-25")])
def test_a_version_nobody_speaks_is_answered_with_the_newest(
    state: StateDir, slow_gateway: dict[str, str], asked: str, given: str
) -> None:
    state.cache.write_text(CACHE)
    with Client(state.root, env=slow_gateway) as client:
        client.request(1, "initialize", initialize(asked))
        assert client.message()["result"]["protocolVersion"] == given


@pytest.mark.parametrize("broken", ["", "{", '{"etag":1}', "[" * 100_000, '{"etag":"x","initialize":3}'])
def test_a_broken_cache_is_as_good_as_none(
    state: StateDir, slow_gateway: dict[str, str], broken: str
) -> None:
    state.cache.write_text(broken)
    with Client(state.root, env=slow_gateway) as client:
        client.request(1, "initialize", initialize())
        relay = RelaySocket(state.relay_socket)
        link = relay.accept()
        assert link.message()["served"] is None
        link.answer(link.message(), HANDSHAKE)
        assert client.message()["result"] == HANDSHAKE
        relay.close()


def test_a_gateway_that_cannot_start_is_an_error_that_names_the_log(
    state: StateDir, no_gateway: dict[str, str]
) -> None:
    with Client(state.root, env=no_gateway) as client:
        client.request(1, "initialize", initialize())
        error = client.message()["error"]
        assert "exit code 6" in error["message"]
        assert str(state.log) in error["message"]
        assert error["data"]["retriable"] is True
        assert error["data"]["type"] == "gateway_unreachable"
        client.request(2, "ping")
        assert client.message()["id"] == 2
        assert client.close() == 0
    assert "no gateway today" in state.log.read_text()
    assert state.log.stat().st_mode & 0o777 == 0o600


def test_a_lost_gateway_costs_one_retriable_error_per_request_and_nothing_else(
    state: StateDir, relay: RelaySocket
) -> None:
    with Client(state.root) as client:
        first = relay.accept()
        client.request("i", "initialize", initialize())
        first.greet()
        assert client.message()["id"] == "i"
        client.notify("notifications/initialized")
        client.request("level", "logging/setLevel", {"level": "debug"})
        client.request("sub", "resources/subscribe", {"uri": "a:b"})
        first.message()
        for _ in range(2):
            first.answer(first.message(), {})
            client.message()
        client.request(1, "tools/call", {"name": "a"})
        client.request("1", "tools/call", {"name": "b"})
        client.request(3, "tools/call", {"name": "cancelled"})
        client.notify("notifications/cancelled", {"requestId": 3})
        first.send('{"jsonrpc":"2.0","id":50,"method":"elicitation/create","params":{}}')
        assert client.message()["id"] == 50
        for _ in range(4):
            first.message()
        first.close()

        lost = {json.dumps(client.message()) for _ in range(3)}
        errors = [json.loads(line) for line in lost if "error" in json.loads(line)]
        assert {repr(error["id"]) for error in errors} == {"1", "'1'"}
        assert all(e["error"]["data"] == errors[0]["error"]["data"] for e in errors)
        assert errors[0]["error"]["data"]["type"] == "gateway_lost"
        assert errors[0]["error"]["data"]["retriable"] is True
        (cancelled,) = (json.loads(line) for line in lost if "error" not in json.loads(line))
        assert cancelled["method"] == "notifications/cancelled"
        assert cancelled["params"]["requestId"] == 50

        second = relay.accept()
        second.greet()
        assert second.message()["method"] == "notifications/initialized"
        level, subscription = second.message(), second.message()
        assert (level["method"], level["params"]) == ("logging/setLevel", {"level": "debug"})
        assert (subscription["method"], subscription["params"]) == ("resources/subscribe", {"uri": "a:b"})
        second.answer(level, {})
        second.answer(subscription, {})
        client.send({"jsonrpc": "2.0", "id": 50, "result": {}})  # to a gateway that is gone
        client.request(4, "tools/call", {"name": "c"})
        call = second.message()
        assert call["id"] == 4
        second.answer(call, {"ok": True})
        assert client.message() == {"jsonrpc": "2.0", "id": 4, "result": {"ok": True}}


def test_an_initialize_caught_by_a_restart_is_sent_again(state: StateDir, relay: RelaySocket) -> None:
    with Client(state.root) as client:
        first = relay.accept()
        client.request("i", "initialize", initialize())
        first.message()
        assert first.message()["id"] == "i"
        first.close()
        second = relay.accept()
        second.message()
        again = second.message()
        assert (again["id"], again["method"]) == ("i", "initialize")
        second.answer(again, HANDSHAKE)
        assert client.message()["result"] == HANDSHAKE


def test_half_a_line_of_a_dying_gateway_never_reaches_the_client(state: StateDir, relay: RelaySocket) -> None:
    with Client(state.root) as client:
        first = relay.accept()
        client.request(1, "tools/call", {})
        first.message()
        first.message()
        first.connection.sendall(b'{"jsonrpc":"2.0","id":1,"result":{"text":"half')
        first.close()
        assert client.message()["error"]["data"]["type"] == "gateway_lost"
        assert client.silent()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"hello", -32700),
        (b'{"jsonrpc":"2.0","id":1,', -32700),
        (b'\xff\xfe{"id":1}', -32700),
        (b"[" * 200_000, -32700),
        (b"42", -32600),
        (b'"text"', -32600),
        (b'{"a":"' + b"x" * (16 * 2**20) + b'"}', -32700),
    ],
)
def test_garbage_from_the_client_is_refused_and_harms_nothing(
    state: StateDir, relay: RelaySocket, line: bytes, code: int
) -> None:
    with Client(state.root) as client:
        link = relay.accept()
        link.message()
        client.write(line + b"\n\n  \n")
        refusal = client.message()
        assert ("id" in refusal, refusal["error"]["code"]) == (False, code)
        client.request(1, "ping")
        link.answer(link.message(), {})
        assert client.message() == {"jsonrpc": "2.0", "id": 1, "result": {}}


def test_large_answers_wait_for_a_slow_reader_and_never_interleave(
    state: StateDir, relay: RelaySocket
) -> None:
    with Client(state.root) as client:
        link = relay.accept()
        link.message()
        count, size = 12, 2**20

        def flood() -> None:
            for number in range(count):
                request = link.message()
                link.answer(request, {"text": str(number % 10) * size})

        server = threading.Thread(target=flood)
        server.start()
        for number in range(count):
            client.request(number, "tools/call", {})
        for _ in range(count):
            client.write(b"garbage\n")  # answered by another thread of the face's
        answers = [client.message() for _ in range(2 * count)]
        server.join(WAIT)
        whole = [a for a in answers if "result" in a]
        assert [a["id"] for a in whole] == list(range(count))
        assert all(a["result"]["text"] == str(a["id"] % 10) * size for a in whole)


def test_batches_pass_and_are_accounted_for(state: StateDir, relay: RelaySocket) -> None:
    with Client(state.root) as client:
        link = relay.accept()
        link.message()
        batch = [{"jsonrpc": "2.0", "id": i, "method": "tools/list"} for i in (1, "two")]
        client.send(batch)
        assert link.message() == batch
        link.send('[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","id":"two","result":{}}]')
        assert len(client.message()) == 2
        client.send([{"jsonrpc": "2.0", "id": 3, "method": "tools/list"}])
        link.message()
        link.close()
        assert client.message()["id"] == 3
        relay.accept()


def test_a_pipe_that_closes_at_once_still_gets_its_answers(state: StateDir, relay: RelaySocket) -> None:
    with Client(state.root) as client:
        link = relay.accept()
        link.message()
        client.write(b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}')
        assert client.process.stdin
        client.process.stdin.close()
        link.answer(link.message(), {"tools": []})
        assert client.message()["id"] == 1
        assert client.process.wait(WAIT) == 0


def test_it_ends_quietly_when_nobody_reads_any_more(state: StateDir, relay: RelaySocket) -> None:
    with Client(state.root) as client:
        link = relay.accept()
        link.message()
        client._output.close()
        link.send('{"jsonrpc":"2.0","method":"notifications/message","params":{}}')
        assert client.process.wait(WAIT) == 0
        client._listener.join(WAIT)
        assert client.said == []


def test_it_ends_when_its_parent_dies_though_its_stdin_stays_open(
    state: StateDir, relay: RelaySocket
) -> None:
    reading, writing = os.pipe()
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'gateway', 'stdio', "
        "'--state-dir', sys.argv[1]]); print(p.pid, flush=True); sys.stdin.readline()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(state.root)], stdin=reading, stdout=subprocess.PIPE, text=True
    )
    os.close(reading)
    assert parent.stdout
    parent.stdout.readline()
    link = relay.accept()
    link.message()
    parent.kill()
    parent.wait()
    with pytest.raises(EOFError):
        link.line()
    parent.stdout.close()
    os.close(writing)


def test_an_interrupt_leaves_no_trace(state: StateDir, relay: RelaySocket) -> None:
    with Client(state.root) as client:
        relay.accept().message()
        client.process.send_signal(signal.SIGINT)
        assert client.process.wait(WAIT) == -signal.SIGINT
        client._listener.join(WAIT)
        assert client.said == []


@pytest.mark.parametrize(
    ("flags", "word"),
    [(["--nope"], "--nope"), (["--config"], "value"), (["x"], "Unexpected"), (["--port", "a"], "--port")],
)
def test_a_wrong_flag_is_a_usage_error(flags: list[str], word: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "stdio", *flags],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values), st.sampled_from([None, 1]), st.booleans())
def test_slices_are_the_members_as_written(value: dict[str, Any], indent: int | None, ascii_: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_)
    found = wire.slices(text)
    assert {key: json.loads(part) for key, part in found.items()} == value
    assert all("\n" not in part for part in found.values())


@given(st.integers() | st.text(), st.booleans(), st.booleans())
def test_ids_are_read_off_the_head_of_a_line(ident: int | str, asks: bool, ascii_: bool) -> None:
    body = '"method":"m"' if asks else '"result":{}'
    line = f'{{"jsonrpc":"2.0","id":{json.dumps(ident, ensure_ascii=ascii_)},{body}}}'.encode(
        errors="replace"
    )
    kind = wire.classify(line)
    if line.decode().encode() != line or (isinstance(ident, str) and ident.startswith(wire.OWN_ID)):
        return
    assert kind == (wire.FromGateway(asks=ident) if asks else wire.FromGateway(answers=(ident,)))


@given(st.binary(max_size=200), st.integers(1, 7), st.integers(1, 20))
def test_lines_are_the_same_however_they_arrive(data: bytes, step: int, limit: int) -> None:
    def cut(size: int) -> list[bytes | None]:
        chunks = iter([data[i : i + size] for i in range(0, len(data), size)])
        return list(wire.lines(lambda _: next(chunks, b""), limit, tail=True))

    assert cut(step) == cut(len(data) + 1)
    expected = [None if len(line) > limit else line.strip() for line in data.split(b"\n")]
    assert cut(step) == [line for line in expected if line is None or line]
