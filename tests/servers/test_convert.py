"""Converting: sources of each kind, repairs from evidence, nothing done twice, errors that help."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest
from trap_packages import Client, convert, wheel

from servers.convert import environment, repair
from servers.convert.distribution import Distribution
from servers.errors import EnvironmentFailed
from servers.manifest import files

pytestmark = pytest.mark.usefixtures("needs_l2")

BACKEND = """
import base64, hashlib, os, zipfile

def get_requires_for_build_wheel(config_settings=None):
    return []

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "homegrown-1.0-py3-none-any.whl"
    info = "homegrown-1.0.dist-info/"
    if os.path.exists(os.environ["SECRET_PLACE"] if "SECRET_PLACE" in os.environ else "/nonexistent"):
        raise SystemExit("the build saw what it must not see")
    contents = {
        "homegrown.py": open("homegrown.py").read(),
        info + "METADATA": "Metadata-Version: 2.1\\nName: homegrown\\nVersion: 1.0\\n",
        info + "WHEEL": "Wheel-Version: 1.0\\nGenerator: b\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    contents[info + "RECORD"] = "".join(f"{path},,\\n" for path in [*contents, info + "RECORD"])
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
    return name
"""


def project(folder: Path, code: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "homegrown"\nversion = "1.0"\n'
    )
    (folder / "backend.py").write_text(BACKEND)
    (folder / "homegrown.py").write_text(code)
    return folder


def test_a_folder_is_built_in_the_sandbox_and_converted(tmp_path: Path) -> None:
    source = project(tmp_path / "p", 'def double(n: int) -> int:\n    """Double."""\n    return n * 2\n')
    done = convert(str(source), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    manifest = files.read(tmp_path / "out")
    assert manifest.source.kind == "folder"
    assert [each.qualname for each in manifest.exposed()] == ["homegrown:double"]
    with Client(tmp_path / "out") as client:
        assert client.value("double", n=4) == 8


def test_converting_again_does_nothing_until_the_source_changes(tmp_path: Path) -> None:
    source = project(tmp_path / "p", "def double(n: int) -> int:\n    return n * 2\n")
    assert convert(str(source), tmp_path / "out").returncode == 0
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    again = convert(str(source), tmp_path / "out")
    assert "unchanged" in again.stderr
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    project(tmp_path / "p", "def triple(n: int) -> int:\n    return n * 3\n")
    changed = convert(str(source), tmp_path / "out")
    assert "+ homegrown:triple" in changed.stderr
    assert "- homegrown:double" in changed.stderr


def test_a_dry_run_reports_and_writes_nothing(tmp_path: Path) -> None:
    made = wheel(tmp_path, "dry", {"dry.py": "def f(x: int) -> int:\n    return x\n"})
    done = convert(str(made), tmp_path / "out", "--dry-run")
    assert done.returncode == 0
    assert "1 callables found" in done.stdout
    assert not (tmp_path / "out").exists()


def test_a_service_without_a_place_never_goes_into_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from servers import cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert str(cli._folder(cli._label("./mine"))) == "mine-service"
    assert str(cli._folder(cli._label("dist/tools-1.0.tar.gz"))) == "tools"
    assert str(cli._folder(cli._label("git+https://example.com/a/tools.git"))) == "tools"
    assert str(cli._folder(cli._label("humanize[x]==4.1"))) == "humanize"


def test_a_name_that_no_service_can_have_is_refused(tmp_path: Path) -> None:
    done = convert("humanize", tmp_path / "out", "--name", "no/name")
    assert done.returncode == 1
    assert "cannot be called 'no/name'" in done.stderr


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that uv finds, instead of an index."""
    folder = tmp_path / "wheels"
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    wheel(folder, "speedups", {"speedups.py": "def fast():\n    return 'fast'\n"})
    wheel(folder, "PyYAML", {"yaml/__init__.py": "def safe_load(text):\n    return {'loaded': text}\n"})
    return folder


def test_a_missing_import_is_repaired_by_the_extra_that_brings_it(helpers: Path, tmp_path: Path) -> None:
    code = "import speedups\ndef go() -> str:\n    return speedups.fast()\n"
    made = wheel(
        tmp_path, "needy", {"needy.py": code}, requires=['speedups; extra == "quick"'], extras=["quick"]
    )
    done = convert(str(made), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (found,) = files.read(tmp_path / "out").environment.repairs
    assert (found.requirement, found.rule) == ("needy[quick]", "extra")
    assert "no module 'speedups'" in found.evidence
    with Client(tmp_path / "out") as client:
        assert client.value("go") == "fast"


def test_an_undeclared_import_is_repaired_from_the_table(helpers: Path, tmp_path: Path) -> None:
    code = "import yaml\ndef go(text: str) -> dict:\n    return yaml.safe_load(text)\n"
    done = convert(str(wheel(tmp_path, "lazy", {"lazy.py": code})), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [each.requirement for each in files.read(tmp_path / "out").environment.repairs] == ["PyYAML"]


def test_the_newest_release_is_converted_although_something_it_needs_has_no_wheel(
    helpers: Path, tmp_path: Path
) -> None:
    source = project(tmp_path / "p", "def double(n: int) -> int:\n    return n * 2\n")
    with tarfile.open(helpers / "homegrown-1.0.tar.gz", "w:gz") as archive:
        (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: homegrown\nVersion: 1.0\n")
        archive.add(source, "homegrown-1.0")
    code = "def f() -> int:\n    return 1\n"
    wheel(helpers, "aged", {"aged.py": code})
    wheel(helpers, "aged", {"aged.py": code}, version="2.0", requires=["homegrown"])
    done = convert("aged", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    manifest = files.read(tmp_path / "out")
    assert manifest.source.version == "2.0"
    assert "homegrown==1.0" in manifest.environment.lock


def test_an_import_nobody_knows_is_never_guessed(helpers: Path, tmp_path: Path) -> None:
    wheel(helpers, "evilname", {"evilname.py": ""})
    made = wheel(tmp_path, "lost", {"lost.py": "import evilname\ndef f():\n    pass\n"})
    done = convert(str(made), tmp_path / "out")
    assert done.returncode == 1
    assert "No module named 'evilname'" in done.stderr
    assert "--extra" in done.stderr


def test_an_extra_asked_for_is_recorded(helpers: Path, tmp_path: Path) -> None:
    made = wheel(tmp_path, "plain", {"plain.py": "def f() -> int:\n    return 1\n"})
    assert convert(str(made), tmp_path / "out", "--extra", "speedups").returncode == 0
    (found,) = files.read(tmp_path / "out").environment.repairs
    assert (found.requirement, found.rule) == ("speedups", "asked")


def test_pkg_resources_is_repaired_by_setuptools_before_81() -> None:
    plain = Distribution("d", "1", ("d",), {}, "", "", None, "", ())
    assert [each.requirement for each in repair.needed(plain, ["pkg_resources"], "importing d")] == [
        "setuptools<81"
    ]


def test_a_file_that_does_not_match_its_hash_is_not_installed(tmp_path: Path) -> None:
    made = wheel(tmp_path, "pinned", {"pinned.py": "def f():\n    pass\n"})
    lock = environment.resolve([f"pinned @ {made.as_uri()}"], "L2")
    assert "--hash=sha256:" in lock.text
    wheel(tmp_path, "pinned", {"pinned.py": "def f():\n    evil()\n"})
    with pytest.raises(EnvironmentFailed):
        environment.build(lock, "L2")
    assert not environment.path_of(lock.hash).exists()


def test_an_environment_is_found_again_by_its_lock(tmp_path: Path) -> None:
    made = wheel(tmp_path, "kept", {"kept.py": "def f():\n    pass\n"})
    lock = environment.resolve([f"kept @ {made.as_uri()}"], "L2")
    first = environment.build(lock, "L2")
    marker = first / "marker"
    marker.write_text("")
    assert environment.build(lock, "L2") == first
    assert marker.exists()


def test_a_module_that_hangs_when_imported_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from servers.convert import pipeline

    monkeypatch.setattr(pipeline, "IMPORT_SECONDS", 1.0)
    contents = {
        "slow/__init__.py": "def f() -> int:\n    return 1\n",
        "slow/stuck.py": "while True:\n    pass\n",
        "slow/asks.py": "name = input('who? ')\ndef g() -> int:\n    return 2\n",
    }
    made = wheel(tmp_path, "slow", contents)
    manifest = pipeline.convert(str(made), pipeline.Options("L2"), lambda text: None)
    assert "slow:f" in {each.qualname for each in manifest.tools}


@pytest.mark.parametrize(
    ("source", "said"),
    [("./nowhere", "There is no"), ("not a requirement!", "is no folder"), ("empty", "holds no Python code")],
)
def test_a_source_that_is_none_is_refused_with_what_to_do(tmp_path: Path, source: str, said: str) -> None:
    if source == "empty":
        source = str(tmp_path / "empty")
        os.mkdir(source)
    done = convert(source, tmp_path / "out")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_environment_is_built_from_the_lock_alone_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = wheel(tmp_path, "moved", {"moved.py": "def f(n: int) -> int:\n    return n\n"})
    assert convert(str(made), tmp_path / "out").returncode == 0
    kept = json.loads((tmp_path / "out" / "manifest.json").read_text())["environment"]["lock"]
    assert "moved @ file://" in kept
    import shutil

    shutil.rmtree(environment.path_of(files.read(tmp_path / "out").environment.lock_hash))
    with Client(tmp_path / "out") as client:
        assert [each["name"] for each in client.request("tools/list")["result"]["tools"]] == ["f"]
        assert client.value("f", n=3) == 3
