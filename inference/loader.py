"""Read a Hugging Face checkpoint folder: safetensors, single or sharded, by tensor name.

Nothing is executed from the folder (no pickle); every tensor is checked against the shape that the
architecture wants, so a wrong or truncated file ends with that tensor's name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inference.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be read: {problem.strerror}. Is this a model folder?") from None
    except ValueError as problem:
        raise CheckpointError(f"{path} is not valid JSON: {problem}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} should hold a JSON object, not {type(value).__name__}")
    return value


class Checkpoint:
    """The tensors of a model folder, loaded one at a time (memory-mapped) as they are asked for."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._where: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        index = self.folder / "model.safetensors.index.json"
        single = self.folder / "model.safetensors"
        if index.exists():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise CheckpointError(f"{index} has no 'weight_map'")
            self._where = {name: self.folder / str(file) for name, file in weight_map.items()}
        elif single.exists():
            self._where = dict.fromkeys(self._file(single).keys(), single)
        else:
            raise CheckpointError(
                f"{self.folder} holds neither model.safetensors nor model.safetensors.index.json. "
                "Only safetensors checkpoints are read; convert .bin files first."
            )
        self.used: set[str] = set()

    def _file(self, path: Path) -> Any:
        if path not in self._open:
            try:
                self._open[path] = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as problem:
                raise CheckpointError(
                    f"{path} is missing, truncated or no safetensors file: {problem}"
                ) from None
        return self._open[path]

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def tensor(self, name: str, *shape: int) -> Tensor:
        """One tensor of exactly `shape`.

        :raises CheckpointError: it is missing, unreadable, or of another shape; the message names it.
        """
        if name not in self._where:
            raise CheckpointError(f"tensor {name!r} is missing from {self.folder}")
        try:
            value: Tensor = self._file(self._where[name]).get_tensor(name)
        except CheckpointError as problem:
            raise CheckpointError(f"tensor {name!r} cannot be read: {problem}") from None
        except (SafetensorError, RuntimeError, ValueError, OSError) as problem:
            raise CheckpointError(
                f"tensor {name!r} cannot be read from {self._where[name]}: {problem}"
            ) from None
        if tuple(value.shape) != shape:
            raise CheckpointError(
                f"tensor {name!r} has shape {list(value.shape)}, but config.json implies {list(shape)}"
            )
        if not value.is_floating_point():
            raise CheckpointError(f"tensor {name!r} has dtype {value.dtype}; only float weights are read")
        self.used.add(name)
        return value

    def unused(self) -> list[str]:
        return sorted(set(self._where) - self.used)


def torch_dtype(name: str) -> torch.dtype:
    table = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in table:
        raise CheckpointError(f"dtype {name!r} is not one of {', '.join(table)}")
    return table[name]
