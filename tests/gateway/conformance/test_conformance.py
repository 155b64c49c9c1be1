"""The official conformance harness finds nothing lost on the way through the gateway."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import run
from harness import Harness
from npm_packages import Unavailable

pytestmark = pytest.mark.node

CLIENT = (
    ("initialize", "2025-11-25"),
    ("tools_call", "2025-06-18"),
    ("tools_call", "2026-07-28"),
    ("elicitation-sep1034-client-defaults", "2025-11-25"),
    ("sse-retry", "2025-11-25"),
    ("json-schema-2020-12-preservation", "2025-11-25"),
    ("json-schema-2020-12-preservation", "2026-07-28"),
    ("json-schema-ref-no-deref", "2026-07-28"),
    ("request-metadata", "2026-07-28"),
    ("sep-2322-client-request-state", "2026-07-28"),
    ("http-standard-headers", "2026-07-28"),
    ("http-custom-headers", "2026-07-28"),
    ("http-invalid-tool-headers", "2026-07-28"),
)
"""The client scenarios without authorization; ``sep-2640-*`` are about loading skills, which a gateway
does not do."""


@pytest.fixture(scope="module")
def harness() -> Harness:
    """The harness; without npm the tests are skipped, loudly."""
    try:
        return run.installed()
    except Unavailable as reason:
        warnings.warn(f"the conformance harness is skipped: {reason}", stacklevel=1)
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def legs(harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> list[run.Leg]:
    """Both revisions of the server suite, with the fixture server over HTTP and over stdio."""
    return run.run(harness, tmp_path_factory.mktemp("conformance"))


def test_every_required_scenario_passes_in_both_revisions_over_both_transports(legs: list[run.Leg]) -> None:
    expected = run.expected()
    for leg in legs:
        print(leg.summary(expected[leg.revision]))
    assert [fault for leg in legs for fault in leg.faults(expected[leg.revision])] == []
    for transport in ("http", "stdio"):
        names = [name for leg in legs if leg.transport == transport for name in leg.required]
        assert len(names) == 67


def test_the_nine_task_scenarios_pass_although_the_server_knows_no_tasks(legs: list[run.Leg]) -> None:
    for leg in legs:
        passed = {n for n, outcome in leg.outcomes.items() if outcome.passed and not outcome.failures}
        tasks = {name for name in passed if name.startswith("tasks-")}
        assert len(tasks) == (9 if leg.revision == "2026-07-28" else 0)


@pytest.mark.parametrize(("scenario", "revision"), CLIENT)
def test_the_gateway_as_a_client(harness: Harness, scenario: str, revision: str, tmp_path: Path) -> None:
    command = f"{sys.executable} {Path(__file__).with_name('drive.py')}"
    outcome = harness.client(command, scenario, revision, tmp_path)
    assert outcome.failures == ()
    assert outcome.passed
    assert not outcome.statuses["WARNING"]
