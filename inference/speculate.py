"""Prompt-lookup speculation: guess that the text goes on as it did after the same few tokens before.

Saxena, "Prompt Lookup Decoding", 2023; n-gram drafting in the sense of Leviathan et al. (ICML 2023). It needs
no second model and pays where output repeats input: plans that copy names from a catalogue, edits, quotes.

Lossless: every drafted position gets its own row of logits and is sampled as if it were the next token; a
draft is kept only as far as it agrees with what was sampled. It switches itself off where it does not pay:
a draft makes a step longer by a ratio that is measured, and must earn more tokens than that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from inference.sequence import Sequence


@dataclass(slots=True)
class _History:
    """Where each n-gram of one sequence was last seen, and how drafting has done there."""

    indexed: int = 0
    last: dict[tuple[int, ...], int] = field(default_factory=dict)
    gained: float = 1.0  # tokens accepted a draft, moving average; optimistic start
    resume_at: int = 0  # output length at which to try again


class PromptLookup:
    def __init__(self, *, ngram: int = 3, length: int = 4, max_batch: int = 4, rest: int = 64) -> None:
        self.ngram, self.length, self.max_batch, self.rest = ngram, length, max_batch, rest
        self.proposed = self.accepted = 0
        self._histories: dict[Sequence, _History] = {}
        self._plain: float | None = None  # seconds of a decode step without drafts, and with
        self._drafted: float | None = None

    def propose(self, running: list[Sequence]) -> None:
        """Fill `seq.draft` for sequences about to decode. Larger batches have no arithmetic to spare."""
        decoding = [s for s in running if s.decoding and s.request.matcher is None]
        if len(decoding) > self.max_batch:
            return
        for seq in decoding:
            room = seq.request.params.max_tokens - seq.output_length - 1
            history = self._histories.setdefault(seq, _History())
            if room > 0 and seq.output_length >= history.resume_at and seq.uncomputed == 1:
                seq.draft = self._lookup(seq.tokens, history)[:room]

    def _lookup(self, tokens: list[int], history: _History) -> list[int]:
        n = self.ngram
        for end in range(max(history.indexed, n), len(tokens)):  # not the last n-gram: it would find itself
            history.last[tuple(tokens[end - n : end])] = end
        history.indexed = len(tokens)
        at = history.last.get(tuple(tokens[-n:]))
        return [] if at is None else tokens[at : at + self.length]

    def result(self, seq: Sequence, drafted: int, accepted: int) -> None:
        if not drafted:
            return
        self.proposed += drafted
        self.accepted += accepted
        history = self._histories.setdefault(seq, _History())
        history.gained += 0.25 * (accepted - history.gained)
        if 1.0 + history.gained < self.cost_ratio:
            history.resume_at, history.gained = seq.output_length + self.rest, self.cost_ratio - 1.0

    def forget(self, seq: Sequence) -> None:
        self._histories.pop(seq, None)

    @property
    def cost_ratio(self) -> float:
        """How much longer a step with a draft takes; a cautious guess until both kinds were seen."""
        if self._plain is None or self._drafted is None:
            return 1.25
        return max(1.05, self._drafted / self._plain)

    def observe(self, drafted: bool, seconds: float) -> None:
        """Time of a step that did nothing but decode."""
        if drafted:
            self._drafted = _blend(self._drafted, seconds)
        else:
            self._plain = _blend(self._plain, seconds)


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + 0.1 * (new - old)
