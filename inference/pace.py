"""How many prompt tokens a step may carry while others are decoding.

Sarathi-Serve (Agrawal et al., OSDI 2024) bounds a step by a token budget, so that a long prompt cannot stall
running decodes. The right budget depends on machine and model, so this one is learned: it watches how long
steps take and grants as many prompt tokens as keep a mixed step within `stretch` times a pure decode step.
"""

from __future__ import annotations


class Pace:
    """Online estimates of the time of a decode step and of one more prompt token, in seconds.

    A larger `stretch` finishes prompts sooner and lets readers wait longer between tokens.
    """

    def __init__(self, stretch: float = 2.0, floor: int = 16, memory: float = 0.1) -> None:
        self.stretch = stretch
        self.floor = floor  # progress is guaranteed: a prompt always gets at least this much
        self.memory = memory
        self._decode: dict[int, float] = {}  # by batch size, rounded up to a power of two
        self._per_token: float | None = None

    @staticmethod
    def _bucket(decodes: int) -> int:
        return 1 << max(0, decodes - 1).bit_length()

    def observe(self, decode_tokens: int, prompt_tokens: int, seconds: float) -> None:
        if prompt_tokens == 0:
            bucket = self._bucket(decode_tokens)
            self._decode[bucket] = self._blend(self._decode.get(bucket), seconds)
        else:
            # Never less than a tenth of the step: a noisy base must not make prompt tokens look free.
            base = self._decode.get(self._bucket(decode_tokens), 0.0) if decode_tokens else 0.0
            extra = max(seconds - base, 0.1 * seconds)
            self._per_token = self._blend(self._per_token, extra / prompt_tokens)

    def _blend(self, old: float | None, new: float) -> float:
        return new if old is None else old + self.memory * (new - old)

    def allowance(self, decodes: int, budget: int) -> int:
        """Prompt tokens for a step with `decodes` decoding sequences, out of `budget`."""
        base = self._decode.get(self._bucket(decodes)) if decodes else None
        if not decodes or base is None or self._per_token is None:
            return budget if not decodes else min(budget, 4 * self.floor)
        return min(budget, max(self.floor, int((self.stretch - 1.0) * base / self._per_token)))
