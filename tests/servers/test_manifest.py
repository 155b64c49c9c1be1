"""The manifest's format: published, checked, read back as it was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from servers.errors import ManifestError
from servers.manifest import files
from servers.manifest.records import Environment, Manifest, Source, Tool


def small(**fields: object) -> Manifest:
    base = {
        "name": "small",
        "source": Source(kind="index", spec="small==1", name="small", version="1", digest="sha256:0"),
        "environment": Environment(python="3.11.0", lock="small==1\n", lock_hash="0" * 64),
        "tools": (
            Tool(
                name="f", qualname="small:f", kind="function", input_schema={"type": "object"}, exposed=True
            ),
        ),
    }
    return Manifest(**{**base, **fields})  # type: ignore[arg-type]


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    files.write(small(), tmp_path)
    assert files.read(tmp_path) == small()


def test_the_published_schema_is_that_of_the_records() -> None:
    assert json.loads(files.SCHEMA_FILE.read_text()) == json.loads(json.dumps(files.schema()))


def test_the_published_schema_accepts_what_is_written_and_names_what_is_wrong(tmp_path: Path) -> None:
    data = json.loads(files.write(small(), tmp_path).read_bytes())
    assert files.check(data) == []
    data["tools"][0]["kind"] = "spell"
    assert any("spell" in problem for problem in files.check(data))


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "schema"), ('{"name": 1}', "schema"), (None, "Cannot read")],
)
def test_a_file_that_is_no_manifest_is_refused_with_a_reason(
    tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ManifestError, match=said):
        files.read(tmp_path)


def test_a_manifest_of_another_format_is_refused(tmp_path: Path) -> None:
    files.write(small(format=99), tmp_path)
    with pytest.raises(ManifestError, match="format 99"):
        files.read(tmp_path)


def test_two_tools_of_one_name_are_refused(tmp_path: Path) -> None:
    tool = small().tools[0]
    files.write(small(tools=(tool, tool)), tmp_path)
    with pytest.raises(ManifestError, match="'f'"):
        files.read(tmp_path)


def test_a_tools_record_says_what_a_caller_needs_null_where_it_does_not_apply(tmp_path: Path) -> None:
    record = json.loads(files.write(small(), tmp_path).read_bytes())["tools"][0]
    assert [record[f"{name}_property"] for name in ("init", "argv", "stdin", "files")] == [None] * 4
    assert (record["aliases"], record["exposed"], record["kind"]) == ([], True, "function")


def test_a_manifest_may_be_written_as_yaml(tmp_path: Path) -> None:
    import yaml

    shipped = Path(__file__).parents[2] / "manifests" / "xmltodict"
    text = yaml.safe_dump(json.loads((shipped / files.FILE).read_text()))
    (tmp_path / "manifest.yaml").write_text(text)
    assert files.read(tmp_path) == files.read(shipped)
    (tmp_path / "manifest.yaml").write_text("a: [1")
    with pytest.raises(ManifestError, match="not YAML"):
        files.read(tmp_path)
    (tmp_path / "manifest.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ManifestError, match="not YAML"):
        files.read(tmp_path)
