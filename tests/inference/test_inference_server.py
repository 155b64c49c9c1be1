"""The server over a real socket: OpenAI's API, and what happens when clients and numbers misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is missing: install toolyard[inference]")
httpx = pytest.importorskip("httpx", reason="httpx is missing: install [test]")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is missing")

from engine_process import ROOT, engine_process  # noqa: E402
from tiny_checkpoints import Reference, make_checkpoint  # noqa: E402

from inference.engine import Engine, EngineConfig  # noqa: E402
from inference.runner import ModelRunner, RunnerConfig  # noqa: E402
from inference.server.app import ServerConfig, make_app  # noqa: E402

GREEDY = {"temperature": 0, "ignore_eos": True}


class Live:
    """A server in this process, with its engine in reach for the books."""

    def __init__(self, folder: Path, token: str | None = None, kv_tokens: int = 8192, **engine) -> None:
        runner = ModelRunner(folder, RunnerConfig(dtype="float32", kv_tokens=kv_tokens, step_tokens=64))
        config = EngineConfig(**{"step_tokens": 64, "max_running": 8, "check_cache": True, **engine})
        self.engine = Engine(runner, config)
        self.app = make_app(folder, self.engine, ServerConfig("tiny", token, drain_seconds=20))
        self.server = uvicorn.Server(uvicorn.Config(self.app, port=0, log_level="error"))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def __enter__(self) -> Live:
        self.thread.start()
        wait_for(lambda: self.server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive(), "the server hangs"

    def settled(self) -> None:
        """Nothing runs, and every page is free or evictable."""
        service = self.app.state.service.frontend.service
        wait_for(lambda: service.pending == 0 and self.engine.idle)
        cache = self.engine.scheduler.cache
        cache.check([])
        assert cache.available == cache.pool.count
        assert service.healthy

    def post(self, path: str = "/v1/completions", **body):
        return self.http.post(path, json=body)


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def events(text: str) -> list[dict]:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.fixture(scope="module")
def live(qwen3: Reference):
    with Live(qwen3.folder) as running:
        yield running
        running.settled()


# ---------------------------------------------------------------------- the API
def test_completions_from_token_ids_equal_transformers(live: Live, qwen3: Reference) -> None:
    prompt = [5, 6, 7, 8, 9] * 9
    answer = live.post(prompt=prompt, max_tokens=10, **GREEDY).json()
    wanted = live.app.state.service.tokenizer.decode(qwen3.greedy(prompt, 10))
    assert answer["choices"][0]["text"].startswith(wanted)
    assert answer["usage"]["completion_tokens"] == 10
    again = live.post(prompt=prompt, max_tokens=10, **GREEDY).json()
    assert again["choices"][0]["text"] == answer["choices"][0]["text"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 32


def test_a_stream_says_the_same_as_a_whole_answer(live: Live) -> None:
    body = {"messages": [{"role": "user", "content": "call the tool"}], "max_tokens": 30, **GREEDY}
    whole = live.post("/v1/chat/completions", **body).json()
    streamed = events(
        live.post("/v1/chat/completions", **body, stream=True, stream_options={"include_usage": True}).text
    )
    text = "".join(c["delta"].get("content", "") for e in streamed for c in e["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    assert streamed[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 30
    assert streamed[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"] == "length"


def test_n_choices_share_one_prompt_and_a_seed_repeats_them(live: Live) -> None:
    body = {
        "prompt": "plan " * 30,
        "n": 3,
        "max_tokens": 8,
        "seed": 7,
        "temperature": 1.0,
        "ignore_eos": True,
    }
    first = live.post(**body).json()
    texts = [c["text"] for c in first["choices"]]
    assert [c["index"] for c in first["choices"]] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert [c["text"] for c in live.post(**body).json()["choices"]] == texts


def test_stop_strings_cut_the_text_and_free_the_request(live: Live) -> None:
    full = live.post(prompt="abc", max_tokens=40, **GREEDY).json()["choices"][0]["text"]
    stop = full[10:13]
    for stream in (False, True):
        answer = live.post(prompt="abc", max_tokens=40, stop=[stop], stream=stream, **GREEDY)
        if stream:
            got = events(answer.text)
            text, reason = (
                "".join(c["text"] for e in got for c in e["choices"]),
                got[-1]["choices"][0]["finish_reason"],
            )
        else:
            text, reason = answer.json()["choices"][0]["text"], answer.json()["choices"][0]["finish_reason"]
        assert text == full[: full.index(stop)]
        assert reason == "stop"
    live.settled()


def test_logprobs_name_the_chosen_token_first_under_greedy(live: Live) -> None:
    answer = live.post(
        "/v1/chat/completions",
        messages=[{"role": "user", "content": "x"}],
        max_tokens=3,
        logprobs=True,
        top_logprobs=4,
        **GREEDY,
    ).json()
    content = answer["choices"][0]["logprobs"]["content"]
    assert len(content) == 3
    for entry in content:
        assert len(entry["top_logprobs"]) == 4
        assert entry["top_logprobs"][0]["token"] == entry["token"]
        assert entry["logprob"] <= 0


def test_each_token_has_its_logprob_and_its_bytes_also_under_a_grammar_and_in_a_stream(live: Live) -> None:
    pytest.importorskip("llguidance", reason="no grammar library")
    for extra in ({}, {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}):
        body = {
            "messages": [{"role": "user", "content": "go"}],
            "max_tokens": 60,
            "seed": 5,
            "logprobs": True,
            "stop_token_ids": [],
            **extra,
        }
        whole = live.post("/v1/chat/completions", **body).json()["choices"][0]
        streamed = events(live.post("/v1/chat/completions", **body, stream=True).text)
        entries = whole["logprobs"]["content"]
        assert (
            bytes(b for e in entries for b in e["bytes"]).decode(errors="replace")
            == whole["message"]["content"]
        )
        parts = [c["logprobs"]["content"] for e in streamed for c in e["choices"] if c.get("logprobs")]
        said = [entry for part in parts for entry in part]
        text = "".join(c["delta"].get("content") or "" for e in streamed for c in e["choices"])
        assert bytes(b for e in said for b in e["bytes"]).decode(errors="replace") == text
        if not extra:  # under a grammar, what it forces may be cut into other tokens the next time
            assert said == entries


SCHEMA = {
    "type": "object",
    "properties": {"tool": {"enum": ["search", "fetch"]}, "count": {"type": "integer", "maximum": 99}},
    "required": ["tool", "count"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(3))  # llguidance serves the first ones, XGrammar takes over
def test_a_json_schema_shapes_every_output(live: Live, seed: int) -> None:
    pytest.importorskip("xgrammar", reason="no grammar library")
    pytest.importorskip("llguidance", reason="no grammar library")
    answer = live.post(
        "/v1/chat/completions",
        messages=[{"role": "user", "content": "go"}],
        max_tokens=200,
        temperature=1.0,
        seed=seed,
        n=4,
        response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}},
    ).json()
    for choice in answer["choices"]:
        value = json.loads(choice["message"]["content"])
        assert value["tool"] in ("search", "fetch")
        assert isinstance(value["count"], int)
        assert choice["finish_reason"] == "stop"
    assert live.engine.stats.forced_tokens > 0, "jump-forward never happened"


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ({"regex": "[a-c]{3}-[0-9]{2}"}, r"[a-c]{3}-[0-9]{2}"),
        ({"choice": ["yes", "no", 'may"be']}, r'yes|no|may"be'),
        ({"grammar": 'root ::= "a" item "z"\nitem ::= [0-9] | "(" item ")"'}, r"a\(*[0-9]\)*z"),
        ({"json": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}}, r"\[.*\]"),
    ],
)
def test_other_grammars_shape_the_output_too(live: Live, wanted: dict, pattern: str) -> None:
    import re

    for _ in range(2):
        answer = live.post(
            prompt="x", max_tokens=100, temperature=1.0, seed=1, structured_outputs=wanted
        ).json()
        assert re.fullmatch(pattern, answer["choices"][0]["text"]), answer


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Paris", "Rome"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "stop",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        },
    },
]


ALLOWED = {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_weather"}}]}


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "function": {"name": "get_weather"}},
        {"type": "allowed_tools", "allowed_tools": ALLOWED},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_required_tool_is_called_with_valid_arguments(live: Live, choice, stream: bool) -> None:
    answer = live.post(
        "/v1/chat/completions",
        messages=[{"role": "user", "content": "weather?"}],
        tools=TOOLS,
        tool_choice=choice,
        max_tokens=200,
        seed=3,
        stream=stream,
    )
    if stream:
        chunk = next(e for e in events(answer.text) if e["choices"][0].get("finish_reason"))["choices"][0]
        calls, reason = chunk["delta"]["tool_calls"], chunk["finish_reason"]
    else:
        body = answer.json()["choices"][0]
        calls, reason = body["message"]["tool_calls"], body["finish_reason"]
    assert reason == "tool_calls"
    function = calls[0]["function"]
    assert function["name"] == "get_weather" or choice == "required"
    if function["name"] == "get_weather":
        assert json.loads(function["arguments"])["city"] in ("Paris", "Rome")


def test_models_health_and_metrics(live: Live) -> None:
    assert live.http.get("/v1/models").json()["data"][0]["id"] == "tiny"
    assert live.http.get("/health").json()["status"] == "ok"
    live.post(prompt="abc", max_tokens=4, **GREEDY)
    text = live.http.get("/metrics").text
    for name in (
        "ttft_seconds_bucket",
        "tpot_seconds_sum",
        "kv_pages_free",
        "cached_tokens_total",
        "preemptions_total",
    ):
        assert f"toolyard_inference_{name}" in text
    for line in text.splitlines():
        assert line.startswith("#") or float(line.rsplit(" ", 1)[1]) >= 0


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("completions", {"prompt": "a", "model": "gpt-9"}, 404, "tiny"),
        ("completions", {"prompt": []}, 400, "prompt"),
        ("completions", {"prompt": [10**6]}, 400, "vocabulary"),
        ("completions", {"prompt": "a", "max_tokens": 10**6}, 400, "context"),
        ("completions", {"prompt": "a " * 9000}, 400, "context"),
        ("completions", {"prompt": "a", "temperature": -1}, 400, "temperature"),
        ("completions", {"prompt": "a", "max_tokens": "many"}, 400, "max_tokens"),
        ("completions", {"prompt": "a", "echo": True}, 400, "echo"),
        ("completions", {"prompt": "a", "stop": [""]}, 400, "stop"),
        ("completions", {"prompt": "a", "structured_outputs": {"regex": "(a"}}, 400, "regex"),
        ("completions", {"prompt": "a", "presence_penalty": 0.5}, 400, "presence_penalty"),
        ("completions", {"prompt": "a", "min_tokens": 5, "max_tokens": 4}, 400, "min_tokens"),
        ("completions", {"prompt": "a", "temperature": float("nan")}, 400, "temperature"),
        ("completions", {"prompt": "\ud800"}, 400, "Unicode"),
        ("completions", {"prompt": ["a"] * 1000}, 400, "outputs in one call"),
        ("completions", {"prompt": "a", "stream_options": {"include_usage": "yes"}}, 400, "include_usage"),
        ("chat/completions", {"messages": []}, 400, "messages"),
        ("chat/completions", {"messages": [{"role": "user"}], "top_logprobs": 2}, 400, "logprobs"),
        ("chat/completions", {"messages": [{"role": "user", "tool_calls": 5}]}, 400, "tool_calls"),
        (
            "chat/completions",
            {
                "messages": [{"role": "user"}],
                "response_format": {"type": "json_schema", "json_schema": "x"},
            },
            400,
            "schema",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user"}], "tool_choice": {"type": "function", "function": "x"}},
            400,
            "tool_choice",
        ),
        ("chat/completions", {"messages": [{"role": "forbidden", "content": "x"}]}, 400, "no such role"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "text",
        ),
        (
            "chat/completions",
            {
                "messages": [{"role": "user", "content": "x"}],
                "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "objec"}}},
            },
            400,
            "objec",
        ),
        ("chat/completions", {"messages": [{"role": "user"}], "tool_choice": "required"}, 400, "tools"),
    ],
)
def test_bad_input_is_a_clear_4xx(live: Live, path: str, body: dict, status: int, word: str) -> None:
    answer = live.http.post(f"/v1/{path}", content=json.dumps(body))  # says NaN and lone surrogates too
    assert answer.status_code == status, answer.text
    assert word in answer.json()["error"]["message"]


def test_what_is_not_served_is_an_error_of_the_same_form(live: Live) -> None:
    for answer, status in (
        (live.http.post("/v1/embeddings", json={}), 404),
        (live.http.get("/v1/completions"), 405),
    ):
        assert answer.status_code == status
        assert "/v1/chat/completions" in answer.json()["error"]["message"]
    assert live.http.get("/v1/models/tiny").json()["id"] == "tiny"
    assert live.http.get("/v1/models/other").json()["error"]["code"] == "model_not_found"


def test_a_body_that_is_no_json_is_a_400(live: Live) -> None:
    assert live.http.post("/v1/completions", content=b"{").status_code == 400
    assert live.http.post("/v1/completions", content=b"[" * 100_000).status_code == 400


def test_hints_come_by_body_or_header(live: Live) -> None:
    headers = {"X-Program-Id": "p1", "X-Priority": "2", "X-Client-Id": "c", "X-Expected-Tool": "grep"}
    assert live.http.post("/v1/completions", json={"prompt": "a"}, headers=headers).status_code == 200
    body = {"prompt": "a", "program_id": "p", "turn": 1, "last_turn": True, "tool": None, "priority": 0}
    assert live.post(**body).status_code == 200
    assert (
        live.http.post("/v1/completions", json={"prompt": "a"}, headers={"X-Priority": "high"}).status_code
        == 400
    )


def test_only_the_token_and_the_servers_own_names_open_the_door(qwen3: Reference) -> None:
    with Live(qwen3.folder, token="secret") as guarded:
        good = {"Authorization": "Bearer secret"}
        assert guarded.http.get("/v1/models").status_code == 401
        assert guarded.http.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert guarded.http.get("/health").status_code == 200
        assert guarded.http.get("/v1/models", headers=good).status_code == 200
        assert guarded.http.get("/v1/models", headers={**good, "Host": "evil.example"}).status_code == 403
        assert (
            guarded.http.get("/v1/models", headers={**good, "Origin": "http://evil.example"}).status_code
            == 403
        )


# ---------------------------------------------------------------------- faults
def leave(live: Live, body: dict, after_bytes: int) -> None:
    """Send a request by hand, read a little, hang up."""
    data = json.dumps(body).encode()
    port = live.listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(data)
        )
        s.sendall(data)
        got = b""
        while len(got) < after_bytes:
            got += s.recv(100)


def test_a_client_that_leaves_at_any_phase_frees_its_pages(qwen3: Reference) -> None:
    with Live(qwen3.folder, max_running=1, step_tokens=8) as live:
        long = {"prompt": "a b c d " * 200, "max_tokens": 2000, "stream": True, **GREEDY}
        leave(live, long, 0)  # as soon as it is sent: queued or in its first chunks
        leave(live, long, 1000)  # while it streams
        with socket.create_connection(live.listener.getsockname()) as s:  # before the body is whole
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{")
        leave(live, {**long, "stream": False}, 0)
        with ThreadPoolExecutor() as pool:  # one runs, the other leaves while it waits
            first = pool.submit(live.post, prompt="x", max_tokens=600, **GREEDY)
            wait_for(lambda: live.engine.scheduler.running)
            leave(live, long, 0)
            assert first.result().status_code == 200
        live.settled()
        assert live.post(prompt="still here", max_tokens=3, **GREEDY).status_code == 200


def test_a_client_that_leaves_while_its_grammar_compiles_leaves_nothing_behind(qwen3: Reference) -> None:
    with Live(qwen3.folder) as live:
        compiling, go_on = threading.Event(), threading.Event()
        matcher = live.app.state.service.grammars.matcher

        def slow(spec, **options):
            compiling.set()
            go_on.wait(60)
            return matcher(spec)

        live.app.state.service.grammars.matcher = slow
        leave(live, {"prompt": "a", "max_tokens": 500, "structured_outputs": {"regex": "[ab]+"}}, 0)
        assert compiling.wait(60)
        go_on.set()
        wait_for(lambda: sum(live.engine.scheduler.stats.finished.values()) > 0)
        live.settled()


def test_a_request_larger_than_the_cache_is_refused_and_its_neighbour_is_served(qwen3: Reference) -> None:
    with Live(qwen3.folder, kv_tokens=128) as live:
        answer = live.post(prompt=[1, 2, 3] * 40, max_tokens=20)
        assert answer.status_code == 400
        assert "--kv-tokens" in answer.json()["error"]["message"]
        assert live.post(prompt=[1, 2, 3] * 30, max_tokens=20, **GREEDY).status_code == 200
        live.settled()


def test_a_thousand_requests_at_once_are_served_or_told_when_to_come_back(qwen3: Reference) -> None:
    with Live(qwen3.folder, max_waiting=300, check_cache=False) as live:
        full = threading.Event()
        step = live.engine.step

        def held() -> list:  # nothing is computed until the queue is full, however slow the clients are
            full.wait(60)
            return step()

        live.engine.step = held

        async def one(http, i: int):
            answer = await http.post("/v1/completions", json={"prompt": f"{i}", "max_tokens": 2, **GREEDY})
            if answer.status_code == 429:
                full.set()
            return answer

        async def flood() -> list:
            limits = httpx.Limits(max_connections=1000)
            async with httpx.AsyncClient(base_url=live.url, timeout=100, limits=limits) as http:
                return await asyncio.gather(*(one(http, i) for i in range(1000)))

        answers = asyncio.run(flood())
        assert {a.status_code for a in answers} == {200, 429}
        assert sum(a.status_code == 200 for a in answers) >= 308, "8 running and 300 waiting were promised"
        for a in answers:
            if a.status_code == 429:
                assert int(a.headers["Retry-After"]) >= 1
        live.settled()


def test_nan_logits_end_one_request_and_spare_its_neighbours(tmp_path: Path) -> None:
    make_checkpoint(
        tmp_path, "llama"
    )  # its embedding is not its head: one token's vector can be poisoned alone
    with Live(tmp_path) as live:
        poison = 407
        vector = live.engine.runner.model.embedding.table.data[poison // 16, :, poison % 16]
        kept = vector.clone()
        prompt, bad_prompt = [1, 2, 3] * 10, [4, 5, poison] * 12
        wanted = live.post(prompt=prompt, max_tokens=40, **GREEDY).json()["choices"][0]["text"]
        vector.fill_(float("nan"))
        with ThreadPoolExecutor() as pool:
            neighbour = pool.submit(live.post, prompt=prompt, max_tokens=40, **GREEDY)
            bad = live.post(prompt=bad_prompt, max_tokens=4, **GREEDY)
            streamed = live.post(prompt=bad_prompt, max_tokens=4, stream=True, **GREEDY)
            assert neighbour.result().json()["choices"][0]["text"] == wanted
        vector.copy_(kept)
        assert bad.status_code == 500
        assert "not finite" in bad.json()["error"]["message"]
        assert "not finite" in events(streamed.text)[-1]["error"]["message"]
        live.settled()
        assert live.post(prompt=prompt, max_tokens=40, **GREEDY).json()["choices"][0]["text"] == wanted
        healed = live.post(prompt=bad_prompt, max_tokens=4, **GREEDY)
        assert healed.status_code == 200, "a poisoned prefix stayed in the cache"


def test_a_deadline_ends_a_request_with_504(live: Live) -> None:
    answer = live.post(prompt="a", max_tokens=3000, deadline_ms=30, **GREEDY)
    assert answer.status_code == 504
    live.settled()


def test_an_engine_that_fails_says_so_and_does_not_hang(qwen3: Reference) -> None:
    with Live(qwen3.folder) as live:

        def broken(batch):
            raise RuntimeError("the kernels are on strike")

        live.engine.runner.forward = broken
        answer = live.post(prompt="a", max_tokens=3)
        assert answer.status_code == 500
        assert "strike" in answer.json()["error"]["message"]
        assert live.http.get("/health").status_code == 503
        assert live.post(prompt="a").status_code == 503


def test_sigterm_lets_a_stream_finish_and_then_ends_the_process(qwen3: Reference) -> None:
    with engine_process(qwen3.folder, "--drain-seconds", "600") as (child, url):
        body = {"prompt": "a", "max_tokens": 800, "stream": True, **GREEDY}
        with httpx.stream("POST", url + "/v1/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            child.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line.startswith("data: ")]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "length"
        assert child.wait(60) in (0, -signal.SIGTERM)


def test_sigterm_does_not_wait_for_a_stream_longer_than_it_promises(qwen3: Reference) -> None:
    with engine_process(qwen3.folder, "--drain-seconds", "1", "--max-context", "4096") as (child, url):
        heard: list[str] = []
        body = {"prompt": "a", "max_tokens": 4000, "stream": True, "n": 8, **GREEDY}
        with (
            contextlib.suppress(httpx.HTTPError),
            httpx.stream("POST", url + "/v1/completions", json=body, timeout=60) as stream,
        ):
            lines = stream.iter_lines()
            next(lines)
            child.send_signal(signal.SIGTERM)
            heard.extend(lines)
        assert "data: [DONE]" not in heard
        assert child.wait(60) in (0, -signal.SIGTERM)


def test_after_kill_9_a_new_process_serves_the_same_port(qwen3: Reference) -> None:
    with engine_process(qwen3.folder) as (child, url):
        port = url.rsplit(":", 1)[1]
        assert (
            httpx.post(url + "/v1/completions", json={"prompt": "a", **GREEDY}, timeout=60).status_code == 200
        )
        child.kill()
        child.wait()
        with engine_process(qwen3.folder, "--port", port) as (_, again):
            assert httpx.get(again + "/health", timeout=60).json()["status"] == "ok"


def test_a_wrong_folder_ends_with_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "inference", "serve", "--model", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 1
    assert "config.json cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
