"""Logistic regression, evaluated without numpy.

Where there is little to learn from and much of it is peculiar to where it comes from, a line between the numbers
holds on requests of another kind where trees do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from router.planner.rules.trees import sigmoid

FAR: Final = 4.0
"""Deviations from the mean beyond which a number says no more than there."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A model that gives probabilities from numbers that are brought to mean 0 and deviation 1.

    :param base: log odds at the means.
    :param terms: mean, deviation and weight of each number.
    """

    base: float
    terms: tuple[tuple[float, float, float], ...]

    @staticmethod
    def of(value: Mapping[str, Any]) -> Linear:
        """From JSON: ``base`` and ``terms``, each a list of three numbers."""
        return Linear(
            float(value["base"]), tuple((float(m), float(d), float(w)) for m, d, w in value["terms"])
        )

    def margin(self, row: Sequence[float]) -> float:
        """The log odds that a row is positive."""
        return self.base + math.fsum(
            weight * max(-FAR, min(FAR, (number - mean) / deviation))
            for number, (mean, deviation, weight) in zip(row, self.terms, strict=True)
        )

    def probability(self, row: Sequence[float]) -> float:
        """The probability that a row is positive."""
        return sigmoid(self.margin(row))
