"""Gradient-boosted trees, evaluated without numpy: a few thousand comparisons a request."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

LEAF: Final = -1

Node = tuple[int, float, int, int]
"""(feature, threshold, left, right): left where the value is at most the threshold. Of a leaf, the
feature is LEAF and the threshold is what it adds."""


@dataclass(frozen=True, slots=True)
class Trees:
    """A model that gives probabilities (Friedman 2001, logistic loss).

    :param base: log odds before the first tree.
    """

    base: float
    trees: tuple[tuple[Node, ...], ...]

    @staticmethod
    def of(value: Mapping[str, Any]) -> Trees:
        """From JSON: ``base`` and ``trees``, each tree a list of four-number nodes."""
        trees = tuple(
            tuple((int(f), float(t), int(left), int(right)) for f, t, left, right in nodes)
            for nodes in value["trees"]
        )
        return Trees(float(value["base"]), trees)

    def margin(self, row: Sequence[float], start: int = 0, stop: int | None = None) -> float:
        """What the trees from ``start`` to ``stop`` add for a row; the base counts with the first."""
        total = self.base if start == 0 else 0.0
        for nodes in self.trees[start:stop]:
            feature, threshold, left, right = nodes[0]
            while feature != LEAF:
                feature, threshold, left, right = nodes[left if row[feature] <= threshold else right]
            total += threshold
        return total

    def probability(self, row: Sequence[float]) -> float:
        """The probability that a row is positive."""
        return sigmoid(self.margin(row))

    def best(
        self, rows: Sequence[Sequence[float]], first: int = 24, keep: int = 6
    ) -> list[tuple[float, int]]:
        """(probability, index) of the likeliest rows, likeliest first.

        Boosting puts the most telling trees first, so the first few choose which rows get the rest.
        """
        early = [(self.margin(row, 0, first), index) for index, row in enumerate(rows)]
        early.sort(key=lambda pair: -pair[0])
        kept = [(sigmoid(sum_ + self.margin(rows[index], first)), index) for sum_, index in early[:keep]]
        kept.sort(key=lambda pair: -pair[0])
        return kept


def sigmoid(value: float) -> float:
    """Log odds to a probability."""
    return 1.0 / (1.0 + math.exp(-max(-40.0, min(40.0, value))))
