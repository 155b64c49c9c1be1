"""What was learned: trees, lines and word rarities, from the file that `router.planner.rules.train` writes."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from router.planner.rules.linear import Linear
from router.planner.rules.trees import Trees

FILE = Path(__file__).with_name("weights.json.gz")


@dataclass(frozen=True, slots=True)
class Weights:
    """What the planner knows before it reads anything.

    :param rarity: how much a stem tells a tool from others, 0 to 1.
    :param tools: whether a tool is called, at first sight; ``tools_by_words`` where there is no encoder.
    :param values: whether a parameter takes a value.
    :param calls: whether a tool is called, once its parameters are filled.
    :param splits: whether it is called several times.
    """

    rarity: dict[str, float]
    tools: Trees
    tools_by_words: Trees
    values: Trees
    calls: Trees
    calls_by_words: Trees
    splits: Linear


def read_weights(data: bytes) -> Weights:
    """From the bytes of a weights file."""
    value = json.loads(gzip.decompress(data))
    trees = [field.name for field in fields(Weights) if field.name not in ("rarity", "splits")]
    models = {name: Trees.of(value[name]) for name in trees}
    return Weights(value["rarity"], **models, splits=Linear.of(value["splits"]))


@cache
def weights() -> Weights:
    """The weights that are shipped; read once."""
    return read_weights(FILE.read_bytes())
