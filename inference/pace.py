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

    def __init__(self, memory: float = 50.0) -> None:
        self._keep = 1.0 - 1.0 / memory  # steps that are remembered
        self._evidence = np.zeros((4, 4))
        self._cost = np.zeros(4)

    def _features(self, work: Work) -> Vector:
        return np.array([1.0, work.tokens, work.context, work.pairs]) * self._SCALE

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
    def token(self) -> float:
        """Seconds of one more token, without attention."""
        return max(0.0, float(self._cost[1] * self._SCALE[1]))

    @property
    def pair(self) -> float:
        """Seconds of one more query-key pair of a prompt."""
        return max(0.0, float(self._cost[3] * self._SCALE[3]))


class Pace:
    """Shares a step's time between those who decode and those whose prompt is being computed.

    A larger `stretch` finishes prompts sooner and lets readers wait longer between tokens; an infinite one
    gives each step all the prompt that it has room for.
    """

    # Chunks of one size would not show what of a step's time is theirs. So of this many steps beside readers
    # one carries no prompt, and one half of what it may.
    _PROBE = 16
    # A first guess of what a step may carry; from step to step it doubles at most, whatever the model says.
    _GUESS = 8

    def __init__(self, stretch: float = 1.4) -> None:
        self.stretch = stretch
        self.cost = StepCost()
        self.carried = 0  # prompt tokens of the last step beside readers
        self._grants = 0

    def observe(self, work: Work, seconds: float) -> None:
        """A step is done: learn from it."""
        self.cost.observe(work, seconds)

    def grant(self, decodes: Work, budget: int) -> Grant:
        """What prompts may use of a step that computes `decodes` anyway and has `budget` tokens left."""
        if decodes.tokens == 0 or math.isinf(self.stretch):
            return Grant(self, budget, math.inf)
        self._grants += 1
        turn = self._grants % self._PROBE
        if turn == 0:
            return Grant(self, 0, 0.0)
        seconds = (self.stretch - 1.0) * self.cost.seconds(decodes)
        most, self.carried = max(self._GUESS, 2 * self.carried), 0
        return Grant(self, min(budget, most), seconds / 2 if turn == self._PROBE // 2 else seconds)


class Grant:
    """Tokens and seconds that the prompts of one step have left. At least one token is: prompts go on."""

    def __init__(self, pace: Pace, tokens: int, seconds: float) -> None:
        self._pace, self.tokens, self._seconds = pace, tokens, seconds

    def take(self, start: int, wanted: int) -> int:
        """Tokens for a prompt of which `start` are computed, at most `wanted`; they are then spent."""
        count = min(wanted, self.tokens)
        if not math.isinf(self._seconds):
            count = min(count, max(0 if self._pace.carried else 1, self._affordable(start)))
            self._seconds -= self._price(start, count)
            self._pace.carried += count
        # A prompt that was cut says that the step is full.
        self.tokens = 0 if count < wanted or self._seconds <= 0 else self.tokens - count
        return count

    def _price(self, start: int, count: int) -> float:
        cost = self._pace.cost
        return cost.token * count + cost.pair * prompt_pairs(start, count)

    def _affordable(self, start: int) -> int:
        """The largest count whose price, token * n + pair * (start * n + n^2 / 2), is within the seconds."""
        if self._seconds <= 0:
            return 0
        pair = self._pace.cost.pair
        each = self._pace.cost.token + pair * start
        root = each + math.sqrt(each * each + 2 * pair * self._seconds)
        return self.tokens if root == 0 else round(min(self.tokens, 2 * self._seconds / root))
