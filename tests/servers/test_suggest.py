"""What a language model proposes for tools, and how much of it is believed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from trap_packages import convert, wheel

from servers.convert import suggest
from servers.manifest import files
from servers.manifest.records import Tool

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOL = Tool(name="f", qualname="m:f", kind="function", input_schema=SCHEMA, description="F.")
CODE = 'def f(n: int) -> int:\n    return 10 // (n - 3)\n\ndef g(n: int) -> int:\n    """Add one."""\n    return n + 1\n'


@contextmanager
def model(answer: str, status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """An OpenAI-compatible API that always says the same; yields its URL and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Be silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_holds_of_an_answer_is_used_and_the_rest_is_not() -> None:
    said = {"name": "Not A Name!", "description": "Divide ten.\n", "examples": [{"n": 5}, {"n": "x"}, 7]}
    found = suggest.read(TOOL, f"Sure:\n```json\n{json.dumps(said)}\n```")
    assert found == suggest.Proposal(description="Divide ten.", examples=({"n": 5},))


@pytest.mark.parametrize("text", ["", "no", "[1]", "{not json}"])
def test_an_answer_without_an_object_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|answered"):
        suggest.read(TOOL, text)


def test_a_name_that_is_taken_is_not_given_twice() -> None:
    tools = [TOOL, Tool(name="g", qualname="m:g", kind="function", input_schema=SCHEMA)]
    same = suggest.Proposal(name="divide", description="Divide ten by a number less three.")
    made = suggest.applied(tools, {"f": same, "g": same})
    assert [tool.name for tool in made] == ["divide", "g"]


def test_a_model_that_fails_leaves_everything_as_it_is_and_is_not_asked_for_ever() -> None:
    said: list[str] = []
    tools = [Tool(name=f"f{n}", qualname="m:f", kind="function", input_schema=SCHEMA) for n in range(30)]
    with model("{}", status=500) as (url, asked):
        assert suggest.propose(tools, "m", suggest.Endpoint(url, "any"), said.append) == {}
    assert len(asked) <= suggest.MOST_FAILURES + suggest.AT_ONCE
    assert "did not help" in said[0]


def test_a_conversion_calls_the_examples_and_takes_the_descriptions(needs_l2: None, tmp_path: Path) -> None:
    answer = {
        "name": "",
        "description": "Divide ten by a number that is three less than the one given.",
        "examples": [{"n": 8}],
    }
    with model(json.dumps(answer)) as (url, asked):
        source = wheel(tmp_path, "dividing", {"dividing.py": CODE})
        done = convert(str(source), tmp_path / "out", "--model-url", url, "--model", "tiny")
    assert done.returncode == 0, done.stderr
    assert {request["model"] for request in asked} == {"tiny"}
    tool = files.read(tmp_path / "out").by_name()["f"]
    assert tool.description.startswith("Divide ten")
    assert tool.review is not None
    assert (tool.review.source, tool.review.arguments, tool.review.result) == ("model", {"n": 8}, "2")
