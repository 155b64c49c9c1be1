"""The manifests that come with the product."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from trap_packages import ROOT

from servers.manifest import files

SHIPPED = sorted(path.parent for path in (ROOT / "manifests").glob("*/manifest.json"))
PERMISSIVE = re.compile(r"MIT|BSD|Apache|ISC|Unlicense|PSF|Python Software Foundation|Public Domain", re.I)


def test_there_are_at_least_thirty() -> None:
    assert len(SHIPPED) >= 30


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_manifest_is_whole_permissive_and_speaks_of_no_machine(folder: Path) -> None:
    text = (folder / files.FILE).read_text("utf-8")
    assert files.check(json.loads(text)) == []
    manifest = files.read(folder)
    assert PERMISSIVE.search(manifest.licence)
    assert 1 <= len(manifest.exposed()) <= 38
    assert manifest.environment.lock.count("--hash=sha256:") > 0
    assert not re.search(
        r"--(extra-)?index-url|file://.*\.whl|/root/|/home/\w+/\.cache|toolyard-[a-z0-9_]{8}/",
        manifest.environment.lock + text,
    )
    assert any(tool.review and tool.review.outcome == "answer" for tool in manifest.exposed())
    assert (folder / "README.md").is_file()
