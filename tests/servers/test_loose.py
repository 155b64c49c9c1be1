"""Code that was never packaged: a folder of modules and scripts, or one file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from trap_packages import Client, convert

from servers.convert import loose, source
from servers.errors import SourceError
from servers.manifest import files

TOOL = '''
"""Counts words."""
import argparse
from helper import split

def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(split(text))

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count words.")
    parser.add_argument("text")
    print(count_words(parser.parse_args().text))
'''
HELPER = "def split(text):\n    return text.split()\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "word tools"
    (made / "shapes").mkdir(parents=True)
    (made / "tests").mkdir()
    (made / "tool.py").write_text(TOOL)
    (made / "helper.py").write_text(HELPER)
    (made / "setup_notes.txt").write_text("x")
    (made / "shapes" / "round.py").write_text("def area(r: float) -> float:\n    return 3 * r * r\n")
    (made / "tests" / "test_tool.py").write_text("raise SystemExit\n")
    (made / "README.md").write_text("# Words\n\nTools for words.\n")
    return made


def test_a_folder_of_modules_and_scripts_is_converted(needs_l2: None, folder: Path, tmp_path: Path) -> None:
    done = convert(str(folder), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    manifest = files.read(tmp_path / "out")
    assert (manifest.name, manifest.description) == ("word-tools", "Tools for words.")
    found = {path for each in manifest.tools for path in (each.qualname, *each.aliases)}
    assert {"tool:count_words", "helper:split", "shapes.round:area", "cli:tool"} <= found
    with Client(tmp_path / "out") as client:
        assert client.value("count_words", text="a b c") == 3
        assert client.value("tool", argv=["one two"]).strip() == "2"


def test_one_file_is_converted(needs_l2: None, folder: Path, tmp_path: Path) -> None:
    done = convert(str(folder / "helper.py"), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [each.qualname for each in files.read(tmp_path / "out").exposed()] == ["helper:split"]


def test_what_a_requirements_file_asks_for_is_needed(folder: Path, tmp_path: Path) -> None:
    (folder / "requirements.txt").write_text(
        "# all of it\n-r other.txt\nhumanize>=4  # later\nattrs==23.1 --hash=sha256:00\n./local\n"
    )
    with zipfile.ZipFile(loose.wheel(folder, tmp_path / "out")) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("METADATA")]
        text = archive.read(name).decode()
    assert [line for line in text.splitlines() if line.startswith("Requires-Dist")] == [
        "Requires-Dist: humanize>=4",
        "Requires-Dist: attrs==23.1",
    ]


def test_a_package_folder_itself_is_taken_whole(tmp_path: Path) -> None:
    package = tmp_path / "words"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / "neighbour.py").write_text("")
    with zipfile.ZipFile(loose.wheel(package, tmp_path / "out")) as archive:
        code = [each for each in archive.namelist() if each.endswith(".py")]
    assert code == ["words/__init__.py"]


def test_an_address_of_a_repository_is_cloned_and_others_are_refused(tmp_path: Path) -> None:
    assert source.kind_of("https://example.com/someone/tools") == "git"
    assert source.kind_of("https://example.com/someone/tools@v1.2") == "git"
    assert source.kind_of("git+file:///srv/tools.git") == "git"
    bare = tmp_path / "bare"
    for each in ("objects", "refs"):
        (bare / each).mkdir(parents=True)
    (bare / "HEAD").write_text("ref: refs/heads/main")
    assert source.kind_of(str(bare)) == "git"
    with pytest.raises(SourceError, match="There is no"):
        source.kind_of("dist/tools-1.0-py3-none-any.whl")
    with pytest.raises(SourceError, match="no address of a git repository"):
        source.kind_of("https://example.com/tools-1.0.tar.gz")
