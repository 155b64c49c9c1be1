"""An index on disk: a derived, immutable generation that any process may open for reading.

A generation is a folder ``index-N`` with the vectors as a FAISS file, the tools they belong to, and
``meta.json``, written last, which names the SHA-256 of both. It appears by one rename of a folder
that was written and synced elsewhere, so a generation is whole or not there. Damage is found by the
hashes and answered by building the next generation out of the store, which is the truth.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from registry.errors import IndexDamaged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from registry.vector.records import Key

KEPT: Final = 2
"""Generations that stay: the latest, and the one before it for whoever has just opened it."""

_NAME: Final = re.compile(r"index-(\d+)")
_FLAT: Final = b"IxFI"
_HEADER: Final = struct.Struct("<4siqqq?iQ")
"""FAISS, ``write_index`` of IndexFlatIP: kind, dimension, count, two unused, trained, metric, floats."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What a generation holds.

    :param keys: the tool of each row.
    :param rows: unit vectors, ``[len(keys), dimension]``.
    """

    number: int
    model: str
    keys: list[Key]
    rows: NDArray[np.float32]


def write(folder: Path, model: str, keys: list[Key], rows: NDArray[np.float32]) -> int:
    """Write the next generation and drop those that are too old. Returns its number.

    :raises OSError: the disk is full, or the folder cannot be written; the generations there stay.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        _write_flat(work / "vectors.faiss", rows)
        (work / "tools.json").write_text(json.dumps(keys), encoding="utf-8")
        files = {path.name: _digest(path) for path in sorted(work.iterdir())}
        meta = {"format": 1, "model": model, "count": len(keys), "files": files}
        (work / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        for path in work.iterdir():
            _sync(path)
        _sync(work)
        number = max(numbers(folder), default=0) + 1
        work.rename(folder / f"index-{number}")
        _sync(folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    for old in numbers(folder)[:-KEPT]:
        shutil.rmtree(folder / f"index-{old}", ignore_errors=True)
    return number


def clean(folder: Path) -> None:
    """Remove what a killed writer left behind. For the one process that writes."""
    for path in folder.glob(".writing-*") if folder.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)


def numbers(folder: Path) -> list[int]:
    """The generations there are, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(m.group(1)) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name)))


def read(folder: Path, model: str) -> Generation | None:
    """The latest generation, or None where there is none of this model.

    :raises IndexDamaged: a file is missing, cut short or changed.
    """
    found = numbers(folder)
    if not found:
        return None
    place = folder / f"index-{found[-1]}"
    try:
        meta = json.loads((place / "meta.json").read_text(encoding="utf-8"))
        if meta["format"] != 1 or meta["model"] != model:
            return None
        for name, digest in meta["files"].items():
            if _digest(place / name) != digest:
                raise ValueError(f"{name} is not what was written")
        keys = [
            (str(server), str(digest)) for server, digest in json.loads((place / "tools.json").read_text())
        ]
        rows = _read_flat(place / "vectors.faiss")
        if not len(keys) == len(rows) == meta["count"]:
            raise ValueError(f"{len(rows)} vectors for {len(keys)} tools")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise IndexDamaged(
            f"The index {place} is damaged: {error}.", "It is built again from the store; nothing is lost."
        ) from error
    return Generation(found[-1], model, keys, rows)


def _write_flat(path: Path, rows: NDArray[np.float32]) -> None:
    """An IndexFlatIP as FAISS writes it, without importing FAISS (43 MB in this process)."""
    count, dimension = rows.shape
    with path.open("wb") as file:
        file.write(_HEADER.pack(_FLAT, dimension, count, 1 << 20, 1 << 20, True, 0, count * dimension))
        np.ascontiguousarray(rows, dtype="<f4").tofile(file)


def _read_flat(path: Path) -> NDArray[np.float32]:
    with path.open("rb") as file:
        kind, dimension, count, _, _, _, metric, floats = _HEADER.unpack(file.read(_HEADER.size))
        if kind != _FLAT or metric != 0 or floats != count * dimension:
            raise ValueError("vectors.faiss is no flat index of inner products")
        rows = np.fromfile(file, dtype="<f4")
    if rows.size != floats:
        raise ValueError("vectors.faiss is cut short")
    return rows.reshape(count, dimension)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
