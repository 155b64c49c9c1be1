"""What is to be converted: a folder, a git URL, an archive, or a requirement of the package index."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion

from servers.convert import loose, uv
from servers.convert.environment import environments_dir
from servers.errors import SourceError

_GIT: Final = re.compile(
    r"^(git\+.+|(https?|ssh|git|file)://.+\.git(@[\w./-]+)?|git@.+|https?://[^/]+/[^/]+/[^/@]+(@[\w./-]+)?/?)$"
)
_ADDRESS: Final = re.compile(r"^[a-z]+://")
_NOT_CODE: Final = {
    ".git",
    ".hg",
    "__pycache__",
    ".venv",
    "venv",
    "node_modules",
    ".tox",
    ".mypy_cache",
    "build",
    "dist",
}
_GIT_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Prepared:
    """A source that uv can install.

    :ivar requirement: what to resolve: the requirement itself, or ``name @ file://…`` of its wheel.
    :ivar folder: its unpacked source with README, docs and tests, where there is one.
    """

    kind: Literal["index", "folder", "git", "archive"]
    spec: str
    requirement: str
    name: str
    digest: str
    folder: Path | None = None
    commit: str | None = None


def kind_of(spec: str) -> Literal["index", "folder", "git", "archive"]:
    """What a spec names. Raises SourceError where it is none of the four."""
    path = Path(spec).expanduser()
    if path.is_dir():
        return "git" if _is_bare(path) else "folder"
    if path.is_file():
        return "archive"
    if _GIT.match(spec) and not spec.endswith((".whl", ".zip", ".gz", ".bz2", ".xz")):
        return "git"
    if _ADDRESS.match(spec):
        raise SourceError(
            f"'{spec}' is no address of a git repository.",
            "Fetch it yourself, and name the file or folder it is in.",
        )
    if spec.startswith((".", "/", "~")) or spec.endswith((".whl", ".zip", ".gz", ".tgz", ".py")):
        raise SourceError(f"There is no '{spec}'.", "Name a folder, an archive, a git URL or a requirement.")
    try:
        Requirement(spec)
    except InvalidRequirement as error:
        raise SourceError(
            f"'{spec}' is no folder, archive, git URL or requirement ({str(error).splitlines()[0]}).",
            "A requirement looks like 'humanize' or 'humanize==4.12'.",
        ) from None
    return "index"


def _is_bare(folder: Path) -> bool:
    """Whether a folder is a git repository without a working tree."""
    return (folder / "HEAD").is_file() and all((folder / each).is_dir() for each in ("objects", "refs"))


def prepare(spec: str, scratch: Path, level: str) -> Prepared:
    """Fetch what has to be fetched and build what has to be built.

    :param scratch: a directory to work in; the unpacked source stays there.
    :raises SourceError, EnvironmentFailed: it is not there, or does not build.
    """
    kind = kind_of(spec)
    if kind == "index":
        name = canonicalize_name(Requirement(spec).name)
        return Prepared(kind, spec, spec, name, "")
    if kind == "git":
        folder, commit = _clone(spec, scratch)
        return _from_folder("git", spec, folder, scratch, level, commit)
    path = Path(spec).expanduser().resolve()
    if kind == "folder":
        return _from_folder("folder", str(path), path, scratch, level, None)
    return _from_archive(path, scratch, level)


def digest_of(spec: str) -> str | None:
    """The hash of a folder or archive as it is now; None for what is fetched."""
    kind = kind_of(spec)
    path = Path(spec).expanduser().resolve()
    if kind == "folder":
        return _folder_digest(path)
    return _file_digest(path) if kind == "archive" else None


def _from_folder(
    kind: Literal["folder", "git"], spec: str, folder: Path, scratch: Path, level: str, commit: str | None
) -> Prepared:
    packaged = _is_packaged(folder)
    if not packaged and not loose.is_loose(folder):
        raise SourceError(
            f"'{spec}' holds no Python code: no pyproject.toml, no setup.py, and no module at its top.",
            "Name the folder that holds one of them.",
        )
    digest = _folder_digest(folder)
    copy = scratch / "source"
    if folder != copy:
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*_NOT_CODE), symlinks=True)
    if packaged:
        wheel = _kept(uv.wheel_of(copy, scratch / "wheel", level))
    else:
        wheel = _kept(loose.wheel(folder, scratch / "wheel"))
    name = _wheel_name(wheel)
    return Prepared(kind, spec, _as_requirement(name, wheel), name, digest, copy, commit)


def _is_packaged(folder: Path) -> bool:
    """Whether a folder says how it is built; a pyproject.toml may hold nothing but the settings of tools."""
    if any((folder / name).is_file() for name in ("setup.py", "setup.cfg")):
        return True
    try:
        settings = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True  # the build says what is wrong with it
    return "project" in settings or "build-system" in settings or "poetry" in settings.get("tool", {})


def _from_archive(path: Path, scratch: Path, level: str) -> Prepared:
    digest = _file_digest(path)
    if path.suffix == ".whl":
        name = _checked(path)
        return Prepared("archive", str(path), _as_requirement(name, _kept(path)), name, digest)
    if loose.is_loose(path):
        wheel = _kept(loose.wheel(path, scratch / "wheel"))
        return Prepared(
            "archive", str(path), _as_requirement(_wheel_name(wheel), wheel), _wheel_name(wheel), digest
        )
    folder = scratch / "unpacked"
    try:
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                zipped.extractall(folder)
        else:
            raise SourceError(
                f"'{path}' is no wheel, no source archive and no Python file.",
                "Name a .whl, a .tar.gz or a .py.",
            )
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise SourceError(f"Cannot unpack '{path}': {error}.", "Fetch it again.") from None
    inner = [each for each in folder.iterdir() if each.is_dir()]
    root = inner[0] if len(inner) == 1 else folder
    made = _from_folder("folder", str(path), root, scratch, level, None)
    return Prepared("archive", str(path), made.requirement, made.name, digest, made.folder)


def _clone(spec: str, scratch: Path) -> tuple[Path, str]:
    url = spec.removeprefix("git+")
    ref = None
    head, at, tail = url.rpartition("@")
    if at and "/" not in tail and ":" not in tail and "/" in head:
        url, ref = head, tail
    folder = scratch / "source"
    if not shutil.which("git"):
        raise SourceError(f"Cannot fetch '{spec}': git is not installed.", "Install git.")
    steps = [["git", "clone", "-q", "--", url, str(folder)]]
    if ref:
        steps.append(["git", "-C", str(folder), "checkout", "-q", "--detach", ref])
    steps.append(["git", "-C", str(folder), "rev-parse", "HEAD"])
    said = ""
    for step in steps:
        try:
            done = subprocess.run(
                step, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False,
                env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise SourceError(f"'{spec}' was not fetched within {_GIT_SECONDS} s.", "Try again.") from None
        if done.returncode:
            raise SourceError(f"Cannot fetch '{spec}': {done.stderr.strip()[-300:]}.", "Check the URL.")
        said = done.stdout.strip()
    return folder, said


def _kept(wheel: Path) -> Path:
    """A copy of a wheel that stays: a lock names it by its path and hash."""
    folder = environments_dir() / "wheels" / _file_digest(wheel).removeprefix("sha256:")[:32]
    kept = folder / wheel.name
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(wheel, kept)
    return kept


def _checked(wheel: Path) -> str:
    """The distribution's name, of a file that is a wheel. Raises SourceError."""
    try:
        name, *_ = parse_wheel_filename(wheel.name)
    except (InvalidWheelFilename, InvalidVersion) as error:
        raise SourceError(
            f"'{wheel}' is not named as wheels are ({str(error).splitlines()[0]}).",
            "Give it the name it was built with, such as 'name-1.0-py3-none-any.whl'.",
        ) from None
    if not zipfile.is_zipfile(wheel):
        raise SourceError(f"'{wheel}' is no wheel: it cannot be unpacked.", "Fetch it again.")
    return name


def _wheel_name(wheel: Path) -> str:
    return canonicalize_name(wheel.name.split("-")[0])


def _as_requirement(name: str, wheel: Path) -> str:
    return f"{name} @ {wheel.as_uri()}"


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _folder_digest(folder: Path) -> str:
    made = hashlib.sha256()
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name not in _NOT_CODE and not name.endswith(".egg-info")
        )
        for name in sorted(files):
            path = Path(root) / name
            if path.is_symlink() or name.endswith(".pyc"):
                continue
            made.update(str(path.relative_to(folder)).encode() + b"\0")
            made.update(path.read_bytes() + b"\0")
    return "sha256:" + made.hexdigest()
