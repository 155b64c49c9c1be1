"""From a model's name to an encoder: check, export once into the cache, load."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from registry.document import FORMAT
from registry.embed.onnx import OnnxEncoder
from registry.embed.weights import DEFAULT_MODEL, ModelFiles, locate
from registry.errors import ExportFailed, ModelMissing

EXPORT_FORMAT: Final = 2
"""Of the files in the cache; another number is another folder."""
EXPORT_SECONDS: Final = 900.0
"""A large model on a slow disk; the default one takes half a minute."""

_NEEDED: Final = ("numpy", "onnxruntime", "tokenizers")
_NEEDED_ONCE: Final = ("torch", "sentence_transformers", "onnx", "onnxscript")


def missing(*, export: bool = True) -> list[str]:
    """The modules that search by meaning needs and this installation lacks. Imports none of them."""
    names = _NEEDED + (_NEEDED_ONCE if export else ())
    return [name for name in names if importlib.util.find_spec(name) is None]


def identity(files: ModelFiles) -> str:
    """The name under which a model's vectors are stored: weights, precision and text format."""
    return f"{files.identity}/text{FORMAT}/onnx{EXPORT_FORMAT}"


def exported(cache: Path, files: ModelFiles) -> Path:
    """Where a model's export is, or will be."""
    return cache / f"model-{hashlib.sha256(identity(files).encode()).hexdigest()[:24]}"


def load(cache: Path, name: str = DEFAULT_MODEL) -> OnnxEncoder | None:
    """The encoder of a model that was exported before; None where it was not.

    :raises ModelMissing: the model or a library is not installed.
    :raises WeightsWrong: the packaged weights are not the published ones.
    :raises ExportFailed: there is an export, and it cannot be loaded.
    """
    files = locate(name)
    folder = exported(cache, files)
    return OnnxEncoder(folder, identity(files)) if (folder / "model.json").is_file() else None


def prepare(
    cache: Path,
    name: str = DEFAULT_MODEL,
    *,
    say: Callable[[str], None] = lambda line: None,
    timeout: float = EXPORT_SECONDS,
) -> OnnxEncoder:
    """The encoder of a model, exported first where it was not, or where the export is damaged.

    Blocks while the child works; run it in a thread. Two processes that export at once both succeed:
    each works in a folder of its own, and the first to finish stays.

    :param say: hears each step.
    :raises ModelMissing: the model or a library is not installed.
    :raises WeightsWrong: the packaged weights are not the published ones.
    :raises ExportFailed: the child failed, or took longer than ``timeout`` seconds.
    """
    files = locate(name)
    folder = exported(cache, files)
    if (folder / "model.json").is_file():
        try:
            return OnnxEncoder(folder, identity(files))
        except ExportFailed as error:
            say(f"{error.message} Exporting it again.")
            shutil.rmtree(folder)
    lacking = missing()
    if lacking:
        raise ModelMissing(
            f"The model {name} cannot be exported: {', '.join(lacking)} not installed.",
            "Install toolyard[search].",
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=cache) as work:
        made = Path(work) / "model"
        made.mkdir()
        _run(files.source, made, say, timeout)
        (made / "model.onnx").unlink() if (made / "model.int8.onnx").exists() else None
        for path in made.iterdir():
            _sync(path)
        _sync(made)
        try:
            made.rename(folder)
        except OSError:
            if not (folder / "model.json").is_file():
                raise
        _sync(cache)
    return OnnxEncoder(folder, identity(files))


def _run(source: str, folder: Path, say: Callable[[str], None], timeout: float) -> None:
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    if Path(source).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"  # all files are here: nothing is fetched, nobody is told
    try:
        with tempfile.TemporaryFile() as errors:
            command = [sys.executable, "-P", "-m", "registry.embed.export", source, str(folder)]
            say(f"Preparing the model {source} once; this takes up to a minute.")
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                timeout=timeout,
                env=environment,
                check=False,
            ).returncode
            errors.seek(0)
            lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    except subprocess.TimeoutExpired as error:
        raise ExportFailed(
            f"Exporting the model {source} took longer than {timeout:.0f} s.",
            "Try again on a quieter machine.",
        ) from error
    if code:
        last = lines[-1] if lines else "it said nothing"
        raise ExportFailed(
            f"The model {source} could not be exported (exit code {code}): {last}",
            "Try another model, or search by words alone.",
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
