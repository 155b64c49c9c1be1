"""Tokens to text while they come: whole characters only, and nothing that a stop string would take back."""

from __future__ import annotations

from inference.tokenizer import Tokenizer


class TextStream:
    """The text of one output.

    A token may end inside a character, and decoding depends on the tokens before (spaces), so a short window
    is decoded twice and the difference is the news. Text that may be the beginning of a stop string is held
    back until it is decided.
    """

    def __init__(
        self, tokenizer: Tokenizer, stops: tuple[str, ...] = (), *, skip_special: bool = True
    ) -> None:
        self.tokenizer, self.stops, self.skip_special = tokenizer, stops, skip_special
        self.stopped = False
        self.text = ""  # all that was given out
        self._tokens: list[int] = []
        self._window = self._read = 0  # tokens[_window:_read] are decoded and given out
        self._held = ""

    def push(self, tokens: tuple[int, ...] | list[int]) -> str:
        """Text that may be shown now. After a stop string, `stopped` is set and nothing more comes."""
        if self.stopped:
            return ""
        self._tokens += tokens
        before = self._decode(self._tokens[self._window : self._read])
        now = self._decode(self._tokens[self._window :])
        if len(now) <= len(before) or now.endswith("�"):
            return ""  # inside a character
        self._window, self._read = self._read, len(self._tokens)
        return self._release(now[len(before) :])

    def finish(self) -> str:
        """What is left at the end, incomplete characters included."""
        if self.stopped:
            return ""
        before = self._decode(self._tokens[self._window : self._read])
        rest = self._decode(self._tokens[self._window :])[len(before) :]
        news = self._release(rest)
        if not self.stopped:
            news += self._held
            self.text += self._held
            self._held = ""
        return news

    def _decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special=self.skip_special)

    def _release(self, news: str) -> str:
        if self.stops:
            pending = self._held + news
            cut = min((at for s in self.stops if (at := pending.find(s)) >= 0), default=-1)
            if cut >= 0:
                self.stopped, self._held = True, ""
                news = pending[:cut]
            else:
                keep = max(_overlap(pending, s) for s in self.stops)
                news, self._held = pending[: len(pending) - keep], pending[len(pending) - keep :]
        self.text += news
        return news


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
