"""Reading and writing manifests, and the JSON Schema they are published with."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from servers.errors import ManifestError
from servers.manifest.records import FORMAT, Manifest

FILE: Final = "manifest.json"
_YAML: Final = ("manifest.yaml", "manifest.yml")
"""Written by hand, or by other tools; read like the JSON."""
SCHEMA_FILE: Final = Path(__file__).with_name("manifest.schema.json")


def path_of(where: str | os.PathLike[str]) -> Path:
    """The manifest in a directory, or the file itself."""
    path = Path(where)
    if not path.is_dir():
        return path
    return next((path / name for name in (FILE, *_YAML) if (path / name).is_file()), path / FILE)


def read(where: str | os.PathLike[str]) -> Manifest:
    """Load a manifest.

    :param where: the file, or the directory that holds ``manifest.json``.
    :raises ManifestError: it is missing, not JSON, of another format, or lacks a field.
    """
    path = path_of(where)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ManifestError(
            f"Cannot read the manifest '{path}': {error.strerror or error}.",
            "Name the directory that `toolyard convert --out` wrote.",
        ) from None
    try:
        if path.suffix in (".yaml", ".yml"):
            manifest = msgspec.convert(_yaml(path, data), Manifest)
        else:
            manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ManifestError(
            f"The manifest '{path}' does not follow its schema: {error}.", "Convert the source again."
        ) from None
    if manifest.format != FORMAT:
        raise ManifestError(
            f"The manifest '{path}' has format {manifest.format}; this version reads {FORMAT}.",
            "Convert the source again.",
        )
    names = [tool.name for tool in manifest.tools]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ManifestError(
            f"The manifest '{path}' names more than one tool {', '.join(map(repr, twice[:5]))}.",
            "Give every tool a name of its own.",
        )
    return manifest


def _yaml(path: Path, data: bytes) -> Any:
    """A YAML file's contents, plain data alone. Raises ManifestError."""
    try:
        import yaml
    except ImportError:
        raise ManifestError(
            f"The manifest '{path}' is YAML, which needs a part that is not installed.",
            "Install it: pip install 'toolyard[convert]'; or write the manifest as JSON.",
        ) from None
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ManifestError(
            f"The manifest '{path}' is not YAML: {' '.join(str(error).split())[:300]}.", "Mend it."
        ) from None


def write(manifest: Manifest, directory: str | os.PathLike[str]) -> Path:
    """Write ``manifest.json`` into a directory, whole or not at all. Returns its path.

    :raises ManifestError: the directory cannot be written.
    """
    folder = Path(directory)
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.new")
        scratch.write_bytes(encode(manifest))
        os.replace(scratch, path)
    except OSError as error:
        raise ManifestError(
            f"Cannot write the manifest '{path}': {error.strerror or error}.", "Choose another --out."
        ) from None
    return path


def encode(manifest: Manifest) -> bytes:
    """The file's bytes: readable, one field a line, the same for the same manifest."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def check(data: Any) -> list[str]:
    """What is wrong with decoded manifest JSON by the published schema; empty where nothing is."""
    from jsonschema import Draft202012Validator

    schema = json.loads(SCHEMA_FILE.read_text())
    return [
        f"{error.json_path}: {error.message[:200]}"
        for error in Draft202012Validator(schema).iter_errors(data)
    ]


def schema() -> dict[str, Any]:
    """The JSON Schema of the format, made from the records; ``manifest.schema.json`` is its published copy."""
    made = msgspec.json.schema(Manifest)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Toolyard service manifest",
        **{key: _dedented(value) for key, value in made.items()},
    }


def _dedented(value: Any) -> Any:
    """The same with descriptions as `inspect.getdoc` has docstrings: not every msgspec and Python does that."""
    if isinstance(value, dict):
        return {
            key: inspect.cleandoc(part) if key == "description" and isinstance(part, str) else _dedented(part)
            for key, part in value.items()
        }
    return [_dedented(part) for part in value] if isinstance(value, list) else value
