"""How a converted service is written as a server entry, and what its approval covers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config.servers import made, parse
from gateway.errors import ConfigError
from gateway.hosted.entry import ManifestUnusable, approval_of, from_manifest, is_hosted, launched
from servers.manifest import files
from servers.manifest.records import Manifest


def test_a_servers_file_names_a_manifest() -> None:
    text = json.dumps({"mcpServers": {"h": {"manifest": "humanize", "timeout": 5, "requireSandbox": "L3"}}})
    (spec,) = parse(Path("f"), text.encode()).specs
    assert is_hosted(spec)
    assert (spec.args, spec.timeout) == (("host", "humanize", "--require-sandbox", "L3"), 5.0)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"manifest": 5}, "manifest is a number"),
        ({"manifest": " "}, "manifest is empty"),
        ({"manifest": "x", "command": "y"}, "a manifest and a command"),
        ({"manifest": "x", "requireSandbox": "L9"}, "requireSandbox cannot be used"),
        ({"manifest": "x", "allowWeakSandbox": "yes"}, "allowWeakSandbox is a string"),
        ({"manifest": "x", "timeout": -1}, "timeout cannot be used"),
    ],
)
def test_a_wrong_entry_is_told_what_is_wrong(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made("h", entry)


def test_what_is_started_is_this_installation_whatever_the_entry_says() -> None:
    spec = launched(from_manifest("h", "humanize", allow_weak=True))
    assert spec.command == sys.executable
    assert spec.args[:4] == ("-P", "-m", "gateway", "host")
    assert spec.args[-1] == "--allow-weak-sandbox"


def test_a_manifest_that_is_not_there_cannot_be_approved(tmp_path: Path) -> None:
    with pytest.raises(ManifestUnusable, match="no converted service"):
        approval_of(from_manifest("h", str(tmp_path)), {})


def changed(manifest: Manifest, what: str) -> Manifest:
    replace = msgspec.structs.replace
    match what:
        case "lock":
            return replace(manifest, environment=replace(manifest.environment, lock="other==1"))
        case "network":
            return replace(manifest, permissions=replace(manifest.permissions, network=True))
        case "tool":
            first = replace(manifest.tools[0], qualname="os:system")
            return replace(manifest, tools=(first, *manifest.tools[1:]))
        case _:
            return replace(manifest, preload=("antigravity",))


@pytest.mark.parametrize("what", ["lock", "network", "tool", "preload"])
def test_an_approval_covers_what_decides_which_code_runs(tmp_path: Path, what: str) -> None:
    manifest = files.read(Path(__file__).parents[3] / "manifests" / "xmltodict")
    spec = from_manifest("x", str(tmp_path))
    files.write(manifest, tmp_path)
    before = approval_of(spec, {})[0]
    files.write(msgspec.structs.replace(manifest, description="Another text."), tmp_path)
    assert approval_of(spec, {})[0] == before
    files.write(changed(manifest, what), tmp_path)
    assert approval_of(spec, {})[0] != before


def test_an_approval_records_the_sandbox_it_was_given_for() -> None:
    plain, weak = (approval_of(from_manifest("x", "xmltodict", allow_weak=w), {}) for w in (False, True))
    assert plain[0] != weak[0]
    assert "L1 accepted" in weak[1]
    assert "L1" not in plain[1]
