"""llguidance: starts in microseconds whatever the grammar, so it serves grammars seen for the first time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from inference.errors import GrammarError
from inference.grammar.base import GrammarCompiler, GrammarSpec, Mask, Matcher

STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class LLGuidanceMatcher(Matcher):
    def __init__(self, matcher: object) -> None:
        from llguidance import LLMatcher

        assert isinstance(matcher, LLMatcher)
        self._matcher = matcher

    def fill(self, mask: Mask) -> None:
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, mask[None], 0)

    def accept(self, token: int) -> bool:
        return bool(self._matcher.consume_token(token)) and not self._matcher.is_error()

    def forced(self) -> list[int]:
        return [] if self._matcher.is_stopped() else list(self._matcher.compute_ff_tokens())

    @property
    def fault(self) -> str | None:
        if not self._matcher.is_error():
            return None
        reason = self._matcher.get_error().partition("\n")[0]  # the parser's state follows
        return f"The grammar cannot be followed any further: {reason}"

    @property
    def done(self) -> bool:
        return bool(self._matcher.is_stopped())


class LLGuidanceCompiler(GrammarCompiler):
    def __init__(self, folder: Path, vocabulary: int, eos: int) -> None:
        import llguidance

        text = (folder / "tokenizer.json").read_text("utf-8")
        self._tokenizer = llguidance.LLTokenizer(text, n_vocab=vocabulary, eos_token=eos)

    def matcher(self, spec: GrammarSpec) -> Matcher:
        from llguidance import LLMatcher

        try:
            grammar = self._grammar(spec)
        except ValueError as problem:
            raise GrammarError(f"The {spec.kind} cannot be used as a grammar: {problem}") from None
        if fault := LLMatcher.validate_grammar(grammar, self._tokenizer):
            raise GrammarError(f"The {spec.kind} cannot be used as a grammar: {fault}")
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise GrammarError(f"The {spec.kind} cannot be used as a grammar: {matcher.get_error()}")
        probe = np.zeros(-(-self._tokenizer.vocab_size // 32), np.int32)
        made = LLGuidanceMatcher(matcher)
        made.fill(probe)  # the first mask is the slow one: pay for it here, off the engine's thread
        return made

    @staticmethod
    def _grammar(spec: GrammarSpec) -> str:
        from llguidance import LLMatcher

        if spec.kind == "json_schema":
            return str(LLMatcher.grammar_from_json_schema(spec.text, defaults=STYLE))
        if spec.kind == "json_object":
            return str(LLMatcher.grammar_from_json_schema('{"type": "object"}', defaults=STYLE))
        if spec.kind == "regex":
            return str(LLMatcher.grammar_from_regex(spec.text))
        if spec.kind == "choice":
            return str(
                LLMatcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, json.loads(spec.text))))
            )
        raise GrammarError(f"llguidance does not take a grammar of kind {spec.kind!r}")
