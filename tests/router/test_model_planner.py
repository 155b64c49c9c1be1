"""Planning with a model: our own engine under its grammars, and endpoints that can or will do less."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from router import batch
from router.check import check
from router.errors import BadRequest, ModelFailed
from router.plan import Definition, from_json, to_json
from router.planner.endpoint import Ability, Endpoint
from router.planner.model import ModelPlanner
from router.planner.prompt import messages
from router.planner.rules.planner import RulesPlanner
from router.planner.rules.weights import weights
from router.planner.sampling import SamplingPlanner
from tests.benchmarks.planning.model import NoFallback, run

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "object", "properties": {"degrees": {"type": "number"}, "sky": {"type": "string"}}}
TOOLS = [
    Definition("get_weather", "Get the weather forecast of a city", CITY, WEATHER, hash="-"),
    Definition(
        "send_message",
        "Send a message",
        {
            "type": "object",
            "properties": {
                "to": {"type": "string", "pattern": "^[a-z]+$"},
                "text": {"type": "string"},
                "loud": {"type": "boolean"},
            },
            "required": ["to", "text"],
        },
        hash="-",
    ),
]
KNOWN = {tool.name: tool for tool in TOOLS}
REQUEST = "The weather in Oslo, and send it to Ann"
PLAIN = "Get the weather forecast for the city of Oslo"
GOOD = {"plan": [{"id": "1", "tool": "get_weather", "arguments": {"city": "Oslo"}, "depends_on": []}]}


# ---------------------------------------------------------------------- our own engine
@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of ``toolyard infer serve`` with a checkpoint of random weights."""
    pytest.importorskip("torch", reason="torch is missing: install toolyard[inference]")
    pytest.importorskip("llguidance", reason="llguidance is missing: install toolyard[inference]")
    from engine_process import engine_process
    from tiny_checkpoints import make_checkpoint

    folder = tmp_path_factory.mktemp("noise")
    make_checkpoint(folder, "qwen3", max_position_embeddings=16_384)
    with engine_process(folder, "--token", "key") as (_, url):
        yield url


@pytest.mark.parametrize("strings", ["free", "copied"])
def test_plans_of_a_model_that_writes_noise_parse_pass_and_run(engine: str, strings: Any) -> None:
    endpoint = Endpoint(engine, token="key", temperature=1.0)
    planner = ModelPlanner(endpoint, NoFallback(), strings=strings, most_steps=3, least_steps=2)
    assert planner.ability() is Ability.STRUCTURED
    for number in range(6):
        plan = planner.plan(f"{REQUEST} {number}", TOOLS)
        check(plan, KNOWN)
        assert from_json(to_json(plan)) == plan
        assert run(plan, KNOWN) == len(plan.steps) >= 1
        if strings == "copied":
            texts = [v for s in plan.steps for v in s.arguments.values() if isinstance(v, str)]
            assert all(text in plan.request for text in texts)


def test_the_prompt_of_the_next_request_shares_what_was_computed(engine: str) -> None:
    endpoint = Endpoint(engine, token="key")
    with endpoint.connect(time.monotonic() + 60) as connection:
        cached = [
            connection.answer(messages(tools, request, None), max_tokens=1).cached
            for tools, request in ((TOOLS, "One thing"), (TOOLS[::-1], "Quite another"))
        ]
    assert cached[1] is not None
    assert cached[1] > 100


def test_a_wrong_token_falls_back_and_the_token_is_not_repeated(engine: str) -> None:
    heard: list[str] = []
    planner = ModelPlanner(Endpoint(engine, token="not-it"), rules(), say=heard.append)
    plan = planner.plan(PLAIN, TOOLS)
    assert [step.tool for step in plan.steps] == ["get_weather"]
    assert heard
    assert "401" in plan.note
    assert "not-it" not in plan.note


def test_a_file_of_requests_is_planned_by_a_model_from_the_command_line(engine: str, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    tools = [{"name": t.name, "description": t.description, "inputSchema": t.input_schema} for t in TOOLS]
    source.write_text(
        "".join(json.dumps({"id": n, "request": REQUEST, "tools": tools}) + "\n" for n in range(3))
    )
    done = toolyard(
        "plan",
        "--batch",
        str(source),
        "--out",
        str(out),
        "--words",
        "--planner",
        "model",
        "--model-url",
        engine,
    )
    assert done.returncode == 0, done.stderr
    assert "Planned by rules" not in done.stderr
    for line in map(json.loads, out.read_text("utf-8").splitlines()):
        check(from_json(line["plan"]), {t.name: t for t in batch.candidates(tools)})


def toolyard(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TOOLYARD_MODEL_TOKEN": "key"}
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)


# ---------------------------------------------------------------------- other endpoints
Answers = Callable[[dict[str, Any]], tuple[int, bytes]]


@contextmanager
def serving(answers: Answers) -> Iterator[str]:
    """An endpoint on a real socket that lists a model and answers as told."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200, json.dumps({"data": [{"id": "m"}]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._send(*answers(body))

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def said(text: str, reason: str = "stop") -> tuple[int, bytes]:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return 200, json.dumps({"choices": [choice]}).encode()


def rules() -> RulesPlanner:
    return RulesPlanner(weights(), guess=True)


def test_where_schemas_are_ignored_a_plan_is_read_checked_and_repaired_once() -> None:
    talks: list[list[dict[str, str]]] = []

    def answers(body: dict[str, Any]) -> tuple[int, bytes]:
        if "Say hello" in body["messages"][-1]["content"]:
            return said("Hello!")
        talks.append(body["messages"])
        if len(talks) == 1:
            return said(
                'Here you are:\n```json\n{"plan": [{"id": "1", "tool": "get_wether", "arguments": {}}]}\n```'
            )
        return said(json.dumps(GOOD))

    with serving(answers) as url:
        planner = ModelPlanner(Endpoint(url), NoFallback())
        assert planner.ability() is Ability.NONE
        plan = planner.plan(REQUEST, TOOLS)
    assert to_json(plan)["plan"] == GOOD["plan"]
    assert "get_wether" in talks[1][-1]["content"]


def test_a_second_bad_plan_is_followed_by_rules_which_say_so() -> None:
    heard: list[str] = []
    with serving(lambda body: said("I cannot.")) as url:
        plan = ModelPlanner(Endpoint(url), rules(), say=heard.append).plan(PLAIN, TOOLS)
    assert [step.tool for step in plan.steps] == ["get_weather"]
    assert plan.note.startswith("Planned by rules: ")
    assert len(heard) == 1


def test_an_endpoint_that_knows_response_format_alone_is_held_by_it() -> None:
    def answers(body: dict[str, Any]) -> tuple[int, bytes]:
        if "structured_outputs" in body:
            return 400, b'{"error": {"message": "unknown field"}}'
        schema = body["response_format"]["json_schema"]["schema"]
        if "word" in schema["properties"]:
            return said(json.dumps({"word": schema["properties"]["word"]["const"]}))
        done = "Steps so far" in body["messages"][-1]["content"]
        step = {"tool": "get_weather", "arguments": {"city": "Oslo"}}
        return said(json.dumps({"next": None if done else step}))

    with serving(answers) as url:
        planner = ModelPlanner(Endpoint(url), NoFallback())
        assert planner.ability() is Ability.RESPONSE_FORMAT
        assert to_json(planner.plan(REQUEST, TOOLS))["plan"] == GOOD["plan"]


def held(then: Answers) -> Answers:
    """An endpoint that holds to schemas when it is tried out, and then answers otherwise."""

    def answers(body: dict[str, Any]) -> tuple[int, bytes]:
        schema = (body.get("structured_outputs") or {}).get("json", {})
        if "word" in schema.get("properties", {}):
            return said(json.dumps({"word": schema["properties"]["word"]["const"]}))
        return then(body)

    return answers


def test_a_schema_that_is_refused_leads_to_a_whole_plan() -> None:
    def then(body: dict[str, Any]) -> tuple[int, bytes]:
        return (400, b"{}") if "structured_outputs" in body else said(json.dumps(GOOD))

    with serving(held(then)) as url:
        plan = ModelPlanner(Endpoint(url), NoFallback()).plan(REQUEST, TOOLS)
    assert to_json(plan)["plan"] == GOOD["plan"]


def test_a_model_that_repeats_itself_is_done() -> None:
    step = said(json.dumps({"next": {"tool": "get_weather", "arguments": {"city": "Oslo"}}}))
    with serving(held(lambda body: step)) as url:
        plan = ModelPlanner(Endpoint(url), NoFallback()).plan(REQUEST, TOOLS)
    assert len(plan.steps) == 1


@pytest.mark.parametrize(
    "answer",
    [
        (503, b'{"error": {"message": "busy"}}'),
        (200, b"no json"),
        (200, b'{"choices": []}'),
        (200, b'{"choices": [{"message": {"content": null}}]}'),
        (404, b"<html>"),
        (302, b""),
        (200, b" " * (5 * 2**20)),
        said('{"next": {"tool": "get_wea', "length"),
        said('{"next": {"tool": "get_weather", "arguments": {"city": {"$ref": 3.5}}}}'),
        said("[" * 100_000),
    ],
)
def test_whatever_an_endpoint_answers_there_is_a_plan(answer: tuple[int, bytes]) -> None:
    with serving(held(lambda body: answer)) as url:
        plan = ModelPlanner(Endpoint(url), rules()).plan(PLAIN, TOOLS)
    assert [step.tool for step in plan.steps] == ["get_weather"]
    assert "Planned by rules" in plan.note


def test_an_endpoint_that_never_answers_is_left_in_time_and_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.planner.model.REST", 600.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        planner = ModelPlanner(
            Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}"), rules(), seconds=0.3
        )
        first = planner.plan(PLAIN, TOOLS)
        second = planner.plan(PLAIN, TOOLS)
        listener.settimeout(60)
        listener.accept()[0].close()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()  # the second one was not tried
    assert "in time" in first.note
    assert first.steps == second.steps
    assert first.note == second.note


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n"]
)
def test_an_answer_that_drips_in_is_not_waited_for_longer(begun: bytes) -> None:
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(begun)
            while not over.wait(0.02):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        try:
            planner = ModelPlanner(
                Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}"), rules(), seconds=0.3
            )
            plan = planner.plan(PLAIN, TOOLS)
        finally:
            over.set()
            thread.join(10)
    assert "in time" in plan.note


def test_a_port_where_nothing_listens_falls_back_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    plan = ModelPlanner(Endpoint(f"http://127.0.0.1:{port}"), rules()).plan(PLAIN, TOOLS)
    assert "cannot be reached" in plan.note


@pytest.mark.parametrize("url", ["", "ftp://a", "http://", "http://u:p@host", "http://host:x", "host:80"])
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(BadRequest, match="no address"):
        Endpoint(url)


# ---------------------------------------------------------------------- the client's own model
def test_the_clients_model_plans_through_a_callable() -> None:
    planner = SamplingPlanner(lambda talk: json.dumps(GOOD), NoFallback())
    assert to_json(planner.plan(REQUEST, TOOLS))["plan"] == GOOD["plan"]


def test_a_client_that_declines_leaves_planning_to_rules() -> None:
    def ask(talk: Any) -> str:
        raise ModelFailed("The client declined to sample.")

    plan = SamplingPlanner(ask, rules()).plan(PLAIN, TOOLS)
    assert [step.tool for step in plan.steps] == ["get_weather"]
    assert "declined" in plan.note
