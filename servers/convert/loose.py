"""Code that nobody has packaged: a folder of modules and scripts, or one file, as a wheel written by hand.

Nothing of it is executed, and nothing is built: the wheel holds the files as they are, and what a
``requirements.txt`` beside them asks for.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from servers.errors import SourceError

_NOT_OFFERED: Final = re.compile(
    r"^(tests?|docs?|examples?|benchmarks?|scripts|build|dist|venv|env|node_modules|__pycache__|site-packages)$|^\.|\.egg-info$"
)
_NOT_MODULES: Final = re.compile(r"^(setup|conftest|noxfile|test_.*|.*_test|__main__)$")
_DATA: Final = (".json", ".txt", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".ini", ".html", ".xml", ".dat")
_NOT_DATA: Final = re.compile(r"^(requirements.*|readme.*|licen[cs]e.*|changelog.*|changes.*)$", re.I)
_MOST_BYTES: Final = 64 << 20


def is_loose(path: Path) -> bool:
    """Whether a file is a module, or a folder holds some at its top or in packages there."""
    if path.is_file():
        return path.suffix == ".py"
    root = _root(path)
    return any(
        where.endswith(".py") for where, _ in _contents(root, path.name if root == path.parent else None)
    )


def wheel(path: Path, out: Path) -> Path:
    """Write the wheel of a folder or file; its name is the folder's or the file's.

    :raises SourceError: a module's name is none, or there is too much of it.
    """
    name = canonicalize_name(
        re.sub(r"[^A-Za-z0-9]+", "-", path.stem if path.is_file() else path.name).strip("-")
    )
    if not name:
        raise SourceError(f"'{path}' has no name to call the service by.", "Name it with letters or digits.")
    root = path.parent if path.is_file() else _root(path)
    is_package = path.is_dir() and root == path.parent
    members = dict(
        [(path.name, path)] if path.is_file() else _contents(root, path.name if is_package else None)
    )
    if sum(file.stat().st_size for file in members.values()) > _MOST_BYTES:
        raise SourceError(
            f"'{path}' holds more than {_MOST_BYTES >> 20} MiB.",
            "Give it a pyproject.toml that names what belongs to it.",
        )
    files = {where: file.read_bytes() for where, file in members.items()}
    label = name.replace("-", "_")
    scripts = {
        f"{label}-0.data/scripts/{Path(where).stem}": b"#!python\n" + data
        for where, data in files.items()
        if "/" not in where and where.endswith(".py") and _is_script(data)
    }
    home = path.parent if path.is_file() else path
    info = {
        f"{label}-0.dist-info/METADATA": _metadata(name, home if path.is_dir() else None, home),
        f"{label}-0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: toolyard\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    made = out / f"{label}-0-py3-none-any.whl"
    _write(made, {**files, **scripts, **info}, f"{label}-0.dist-info/RECORD")
    return made


def _root(folder: Path) -> Path:
    """Where the modules are: the folder, its ``src``, or what holds it where it is a package itself."""
    if (folder / "__init__.py").is_file():
        return folder.parent
    source = folder / "src"
    return source if source.is_dir() and not (source / "__init__.py").is_file() else folder


def _contents(root: Path, only: str | None = None) -> Iterator[tuple[str, Path]]:
    """The files of a wheel: their places in it, and where they are."""
    for entry in sorted(root.iterdir()):
        if entry.is_symlink() or (only is not None and entry.name != only):
            continue
        if entry.is_file():
            is_module = (
                entry.suffix == ".py" and not _NOT_MODULES.search(entry.stem) and entry.stem.isidentifier()
            )
            if is_module or (entry.suffix in _DATA and not _NOT_DATA.search(entry.stem)):
                yield entry.name, entry
        elif entry.name.isidentifier() and not _NOT_OFFERED.search(entry.name) and any(entry.glob("*.py")):
            for file in sorted(entry.rglob("*")):
                inner = file.relative_to(root)
                if file.is_file() and not file.is_symlink() and "__pycache__" not in inner.parts:
                    yield inner.as_posix(), file


def _is_script(source: bytes) -> bool:
    """Whether a module does something when it is run: ``if __name__ == "__main__"``."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError):
        return False
    tests = [ast.unparse(each.test) for each in body if isinstance(each, ast.If)]
    return any("__name__" in test and "__main__" in test for test in tests)


def _metadata(name: str, folder: Path | None, home: Path) -> bytes:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 0"]
    lines += [f"Requires-Dist: {each}" for each in _requirements(home / "requirements.txt")]
    readme = ""
    for found in sorted(folder.glob("README*")) if folder is not None else ():
        if found.is_file():
            readme = found.read_text("utf-8", "replace")
            break
    prose = (line.strip() for line in readme.splitlines() if re.match(r"\s*[A-Z]\w* ", line))
    summary = next(prose, "")[:200]
    lines += [f"Summary: {summary}"] if summary else []
    return ("\n".join(lines) + "\n\n" + readme).encode()


def _requirements(file: Path) -> list[str]:
    """What a requirements file asks for; options and addresses of files are left out."""
    if not file.is_file():
        return []
    found = []
    for line in file.read_text("utf-8", "replace").splitlines():
        text = re.sub(r"(^|\s)#.*|\s--\w.*|\\$", "", line).strip()
        try:
            found.append(str(Requirement(text)))
        except InvalidRequirement:
            continue
    return found


def _write(made: Path, files: dict[str, bytes], record: str) -> None:
    rows = []
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for where, data in sorted(files.items()):
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append(f"{where},sha256={digest},{len(data)}")
            archive.writestr(zipfile.ZipInfo(where), data)
        archive.writestr(zipfile.ZipInfo(record), "\n".join([*rows, f"{record},,"]) + "\n")
