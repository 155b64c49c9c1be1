"""How many prompt tokens a step may carry while others are decoding.

Sarathi-Serve (Agrawal et al., OSDI 2024) bounds a step by a token budget, so that a long prompt cannot stall
running decodes. The right budget depends on machine, model, batch and on how long the prompt already is
(attention grows with it), so it is bounded in time here: a model of the time of a step is learned from the
steps themselves, and prompts get what keeps a step within `stretch` times the same step without them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Work:
    """What a step computes. `tokens`: rows of every matrix product. `context`: cached tokens that decoding
    sequences read. `pairs`: query-key pairs of the attention of prompts."""

    tokens: int = 0
    context: int = 0
    pairs: int = 0


def prompt_pairs(start: int, count: int) -> int:
    """Query-key pairs of `count` prompt tokens after `start` others: each sees all before it, and itself."""
    return count * start + count * (count + 1) // 2


class StepCost:
    """Seconds of a step, as a linear function of its work, by recursive least squares with forgetting.

    Errors count relative to the time measured: a short step matters as much as a long one, and one that was
    slow because the machine was busy elsewhere matters little. What recent steps say nothing about stays as
    it is: a little evidence for the present estimate is added to each step's (leakage in the sense of Gunnarsson,
    "Combining tracking and regularization in recursive least squares identification", CDC 1996).
    """

    _SCALE: Vector = np.array([1.0, 1 / 16, 1 / 4096, 1 / 65536])  # brings the coefficients to one order
    _LEAK = 0.02

    def __init__(self, memory: float = 50.0, granule: int = 1) -> None:
        self._granule = granule
        self._keep = 1.0 - 1.0 / memory  # steps that are remembered
        self._evidence = np.zeros((4, 4))
        self._cost = np.zeros(4)

    def rows(self, tokens: int) -> int:
        """Rows that matrix products compute for so many tokens."""
        return -(-tokens // self._granule) * self._granule

    def _features(self, work: Work) -> Vector:
        return np.array([1.0, self.rows(work.tokens), work.context, work.pairs]) * self._SCALE

    def observe(self, work: Work, seconds: float) -> None:
        """A step with this work took so long."""
        x = self._features(work) / seconds
        leak = (1.0 - self._keep) * self._LEAK * float(x @ x)
        self._evidence = self._keep * self._evidence + np.outer(x, x) + leak * np.eye(4)
        self._cost += np.linalg.solve(self._evidence, x) * (1.0 - self._cost @ x)

    def seconds(self, work: Work) -> float:
        """What a step with this work should take."""
        return max(0.0, float(self._cost @ self._features(work)))

    @property
    def row(self) -> float:
        """Seconds of one more row, without attention."""
        return max(0.0, float(self._cost[1] * self._SCALE[1]))

    @property
    def pair(self) -> float:
        """Seconds of one more query-key pair of a prompt."""
        return max(0.0, float(self._cost[3] * self._SCALE[3]))


class Pace:
    """Shares a step's time between those who decode and those whose prompt is being computed.

    A larger `stretch` finishes prompts sooner and lets readers wait longer between tokens; an infinite one
    gives each step all the prompt that it has room for. `granule`: rows that the kernels compute together, so
    that prompts may fill up for nothing what the decodes have begun.
    """

    # Chunks of one size would not show what of a step's time is theirs. So of this many steps beside readers
    # one carries no prompt, and one half of what it may.
    _PROBE = 16
    # A first guess of what a step may carry. More than was tried lately is tried little by little, whatever the
    # model says: a row costs more once there are so many that memory is no longer what a step waits for.
    _GUESS, _GROWTH, _FORGET = 8, 1.25, 0.98

    def __init__(self, stretch: float = 1.9, granule: int = 1) -> None:
        self.stretch, self.granule = stretch, granule
        self.cost = StepCost(granule=granule)
        self.carried = 0  # prompt tokens of the last step beside readers
        self._tried = 0.0  # the most of them in a step lately
        self._grants = 0

    def observe(self, work: Work, seconds: float) -> None:
        """A step is done: learn from it."""
        self.cost.observe(work, seconds)

    def grant(self, decodes: Work, budget: int) -> Grant:
        """What prompts may use of a step that computes `decodes` anyway and has `budget` tokens left."""
        if decodes.tokens == 0 or math.isinf(self.stretch):
            return Grant(self, decodes.tokens, budget, math.inf)
        self._grants += 1
        turn = self._grants % self._PROBE
        if turn == 0:
            return Grant(self, decodes.tokens, 0, 0.0)
        seconds = (self.stretch - 1.0) * self.cost.seconds(decodes)
        self._tried, self.carried = max(self.carried, self._FORGET * self._tried), 0
        most = max(self._GUESS, int(self._GROWTH * self._tried), int(self._tried) + self.granule)
        if turn == self._PROBE // 2:
            seconds /= 2
        return Grant(self, decodes.tokens, min(budget, most), seconds)


class Grant:
    """Tokens and seconds that the prompts of one step have left. At least one token is: prompts go on."""

    def __init__(self, pace: Pace, computed: int, tokens: int, seconds: float) -> None:
        self._pace, self._computed, self.tokens, self._seconds = pace, computed, tokens, seconds

    def take(self, start: int, wanted: int) -> int:
        """Tokens for a prompt of which `start` are computed, at most `wanted`; they are then spent."""
        count = min(wanted, self.tokens)
        if not math.isinf(self._seconds):
            count = min(count, max(0 if self._pace.carried else 1, self._affordable(start)))
            self._seconds -= self._price(start, count)
            self._pace.carried += count
        self._computed += count
        # A prompt that was cut says that the step is full.
        self.tokens = 0 if count < wanted or self._seconds <= 0 else self.tokens - count
        return count

    def _price(self, start: int, count: int) -> float:
        cost = self._pace.cost
        rows = cost.rows(self._computed + count) - cost.rows(self._computed)
        return cost.row * rows + cost.pair * prompt_pairs(start, count)

    def _affordable(self, start: int) -> int:
        """The count whose price comes nearest to the seconds: what fills the rows already begun, which costs its
        attention alone, and then whole granules."""
        cost, granule = self._pace.cost, self._pace.granule
        free = cost.rows(self._computed) - self._computed
        if (alone := self._most(cost.pair * start, self._seconds)) <= free:
            return round(alone)
        rest = self._seconds - cost.pair * prompt_pairs(start, free)
        return free + round(self._most(cost.row + cost.pair * (start + free), rest) / granule) * granule

    def _most(self, each: float, seconds: float) -> float:
        """The largest n, up to the tokens left, with each * n + pair * n^2 / 2 within `seconds`."""
        if seconds <= 0:
            return 0.0
        root = each + math.sqrt(each * each + 2 * self._pace.cost.pair * seconds)
        return self.tokens if root == 0 else min(self.tokens, 2 * seconds / root)
