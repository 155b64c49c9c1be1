"""Requests in words over the converted services that come with the product, to their real answers.

The gateway, its services in their sandboxes, search, the planner and the runs are what a person has; search
is by words, so that the answer is the same wherever the tests run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SERVICES = ("inflection", "webcolors", "cron-descriptor", "jellyfish", "w3lib", "python-slugify", "titlecase")
WAIT = 180.0
"""Seconds for the first run of a service, whose environment may have to be built."""


class Yard:
    """A gateway over the services, and the command line."""

    def __init__(self, root: Path) -> None:
        self.file = root / "config" / "mcp.json"
        self.file.parent.mkdir()
        rules = {"readOnly": ["*"], "openWorld": False}
        entries = {name: {"manifest": name, "plan": rules} for name in SERVICES}
        self.file.write_text(json.dumps({"mcpServers": entries}))
        (root / "config" / "config.toml").write_text('[search]\nmodel = ""\n')
        self.environment = {
            **os.environ,
            "TOOLYARD_STATE_DIR": str(root / "state"),
            "TOOLYARD_CONFIG_DIR": str(root / "config"),
            "PYTHONIOENCODING": "utf-8",
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=WAIT,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    from servers.sandbox import levels

    if levels.report().level not in ("L2", "L3"):
        pytest.skip("this machine has no sandbox L2")
    yard = Yard(tmp_path_factory.mktemp("yard"))
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "--port", "0", "--config", str(yard.file)],
        env=yard.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        assert "http://" in process.stdout.readline()
        yield yard
    finally:
        process.terminate()
        process.wait(30)
        assert process.stdout
        process.stdout.close()


REQUESTS: dict[str, list[tuple[str, list[str], Any]]] = {
    # What is asked, and for each step its tool, the steps it needs, and its answer.
    'Singularize the word "mice"; pluralize the word "ox"': [
        ("inflection__singularize", [], "mouse"),
        ("inflection__pluralize", [], "oxen"),
    ],
    'Pluralize the word "category" and then titleize the result': [
        ("inflection__pluralize", [], "categories"),
        ("inflection__titleize", ["1"], "Categories"),
    ],
    'Convert the hex color "#daa520" to its name and then titleize the result': [
        ("webcolors__hex_to_name", [], "goldenrod"),
        ("inflection__titleize", ["1"], "Goldenrod"),
    ],
    'Underscore the word "DeviceType", then dasherize the result': [
        ("inflection__underscore", [], "device_type"),
        ("inflection__dasherize", ["1"], "device-type"),
    ],
    'Camelize the string "device_type" and underscore the word "DeviceType"': [
        ("inflection__camelize", [], "DeviceType"),
        ("inflection__underscore", [], "device_type"),
    ],
    'Get the description of the cron expression "*/5 * * * *"; pluralize the word "ox"': [
        ("cron-descriptor__get_description", [], "Every 5 minutes"),
        ("inflection__pluralize", [], "oxen"),
    ],
    'Compute the soundex of "Robert"; compute the metaphone of "Jellyfish"': [
        ("jellyfish__soundex", [], "R163"),
        ("jellyfish__metaphone", [], "JLFX"),
    ],
    'Singularize the word "posts"; camelize the string "device_type"; ordinalize the number 21': [
        ("inflection__singularize", [], "post"),
        ("inflection__camelize", [], "DeviceType"),
        ("inflection__ordinalize", [], "21st"),
    ],
    'Transliterate the string "älämölö", then parameterize the result': [
        ("inflection__transliterate", [], "alamolo"),
        ("inflection__parameterize", ["1"], "alamolo"),
    ],
    'Canonicalize the url "http://example.com/do?c=3&b=5&b=2&a=50" and get the value of the parameter "id" of '
    'the url "http://example.com/?id=200"': [
        ("w3lib__canonicalize_url", [], "http://example.com/do?a=50&b=2&b=5&c=3"),
        ("w3lib__url_query_parameter", [], "200"),
    ],
}


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_of_several_steps_is_planned_run_and_answered(yard: Yard, request_: str) -> None:
    done = yard.run("run", request_, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert [(s["tool"], s["needs"], answer(s["value"])) for s in found["steps"]] == REQUESTS[request_]


def answer(value: Any) -> Any:
    """The answer of a converted function: in its result object, or as it stands."""
    return value["result"] if isinstance(value, dict) and value.keys() == {"result"} else value


def test_a_request_no_service_can_serve_is_not_run(yard: Yard) -> None:
    done = yard.run("run", "Order a pizza with extra cheese for tonight")
    assert done.returncode == 1
    assert "None of the tools fits" in done.stdout


def test_a_plan_is_shown_with_why_and_a_dry_run_of_it_calls_nothing(yard: Yard) -> None:
    request = 'Pluralize the word "category" and then titleize the result'
    shown = yard.run("plan", request, "--explain").stdout
    assert '{"$ref": "1", "path": "result"}' in shown
    assert "Planned by rules" in shown
    before = json.loads(yard.run("runs", "list", "--json").stdout)
    assert "About" in yard.run("run", request, "--dry-run").stdout
    assert json.loads(yard.run("runs", "list", "--json").stdout) == before


def test_doctor_says_which_planner_is_in_use(yard: Yard) -> None:
    yard.run("plan", "Pluralize the word octopus")
    checks = {c["name"]: c for c in json.loads(yard.run("doctor", "--json").stdout)["checks"]}
    assert checks["planner"]["found"] == (
        "rules, without a model, as none is named; it compares by words alone"
    )
