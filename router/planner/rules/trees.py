"""Gradient-boosted trees, evaluated without numpy: a few thousand comparisons a request.

Trees become one Python expression of nested conditions, compiled once: walking them as data takes ten
times as long, and the planner spends half its time here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, cast

LEAF: Final = -1
FIRST: Final = 24
"""Trees that choose which rows get the rest."""

Node = tuple[int, float, int, int]
"""(feature, threshold, left, right): left where the value is at most the threshold. Of a leaf, the
feature is LEAF and the threshold is what it adds."""
Row = Sequence[float]


@dataclass(frozen=True)
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

    @cached_property
    def _first(self) -> Callable[[Row], float]:
        return _compiled(self.base, self.trees[:FIRST])

    @cached_property
    def _rest(self) -> Callable[[Row], float]:
        return _compiled(0.0, self.trees[FIRST:])

    def margin(self, row: Row) -> float:
        """The log odds that a row is positive."""
        return self._first(row) + self._rest(row)

    def probability(self, row: Row) -> float:
        """The probability that a row is positive."""
        return sigmoid(self.margin(row))

    def best(self, rows: Sequence[Row], keep: int = 6) -> list[tuple[float, int]]:
        """(probability, index) of the likeliest rows, likeliest first.

        Boosting puts the most telling trees first, so the first few choose which rows get the rest.
        """
        first, rest = self._first, self._rest
        early = [(first(row), index) for index, row in enumerate(rows)]
        early.sort(key=lambda pair: -pair[0])
        kept = [(sigmoid(sum_ + rest(rows[index])), index) for sum_, index in early[:keep]]
        kept.sort(key=lambda pair: -pair[0])
        return kept


def _compiled(base: float, trees: Sequence[Sequence[Node]]) -> Callable[[Row], float]:
    """The sum of trees as a function. Its text is made of numbers alone, whatever the trees came from."""
    text = "+".join([repr(base), *(_expression(nodes, 0) for nodes in trees)])
    return cast("Callable[[Row], float]", eval(f"lambda r: {text}", {"__builtins__": {}}))


def _expression(nodes: Sequence[Node], at: int) -> str:
    feature, threshold, left, right = nodes[at]
    if feature == LEAF:
        return repr(threshold)
    return f"({_expression(nodes, left)} if r[{feature}]<={threshold!r} else {_expression(nodes, right)})"


def sigmoid(value: float) -> float:
    """Log odds to a probability."""
    return 1.0 / (1.0 + math.exp(-max(-40.0, min(40.0, value))))
