"""XGrammar (Dong et al., MLSys 2025): compiles for longer, then masks in a few microseconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from inference.errors import GrammarError
from inference.grammar.base import GrammarCompiler, GrammarSpec, Mask, Matcher
from inference.tokenizer import Tokenizer

_LOOSE = frozenset({"pattern", "patternProperties", "propertyNames", "minLength", "maxLength"})
"""Keywords whose strings XGrammar 0.2 does not hold to JSON: control characters stay unescaped, and bytes
that are no UTF-8 count as characters."""
_NAMED = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
_VALUES = frozenset({"const", "enum", "default", "examples"})


def loose(schema: Any) -> bool:
    """Whether XGrammar would allow text for this schema that is not valid JSON under it."""
    if isinstance(schema, list):
        return any(map(loose, schema))
    if not isinstance(schema, dict):
        return False
    for key, value in schema.items():
        if key in _LOOSE:
            return True
        if key in _NAMED and isinstance(value, dict):
            value = list(value.values())
        if key not in _VALUES and loose(value):
            return True
    return False


class XGrammarMatcher(Matcher):
    def __init__(self, matcher: Any, encode: Callable[[str], list[int]], eos: list[int], words: int) -> None:
        self._matcher, self._encode, self._eos = matcher, encode, eos
        self._probe = np.zeros(words, np.int32)

    def fill(self, mask: Mask) -> None:
        tensor = torch.from_numpy(mask[None])
        tensor.fill_(-1)  # the library leaves the mask alone where everything is allowed
        self._matcher.fill_next_token_bitmask(tensor, 0)

    def accept(self, token: int) -> bool:
        return bool(self._matcher.accept_token(token))

    def forced(self) -> list[int]:
        # The last token of the forced text could merge with what follows: leave that one to the model.
        text = self._matcher.find_jump_forward_string()
        return self._encode(text)[:-1] if text else []

    @property
    def done(self) -> bool:
        if not self._matcher.is_completed():
            return False
        self.fill(self._probe)  # complete, but may more follow? Only if a token other than the end is allowed
        for token in self._eos:
            self._probe[token // 32] &= ~np.int32(np.uint32(1 << token % 32).view(np.int32))
        return not self._probe.any()


class XGrammarCompiler(GrammarCompiler):
    """Compiled grammars are cached inside the library, up to `cache_bytes`."""

    def __init__(
        self, tokenizer: Tokenizer, vocabulary: int, eos: list[int], cache_bytes: int = 2**27
    ) -> None:
        import xgrammar

        # Special tokens have no text of their own: an empty entry keeps them out of every mask.
        special = {i for i, t in tokenizer.fast.get_added_tokens_decoder().items() if t.special}
        texts = [""] * min(vocabulary, tokenizer.vocabulary)
        for text, i in tokenizer.fast.get_vocab(with_added_tokens=True).items():
            if i < len(texts) and (i not in special or i in eos):
                texts[i] = text
        detect = xgrammar.TokenizerInfo._detect_metadata_from_hf(tokenizer.fast.to_str())
        info = xgrammar.TokenizerInfo(
            texts,
            vocab_type=detect["vocab_type"],
            add_prefix_space=detect["add_prefix_space"],
            vocab_size=vocabulary,
            stop_token_ids=eos,
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_limit_bytes=cache_bytes)
        self._tokenizer, self._eos, self._words = tokenizer, eos, -(-vocabulary // 32)

    def matcher(self, spec: GrammarSpec) -> Matcher:
        import xgrammar

        try:
            compiled = self._compile(spec)
        except (RuntimeError, ValueError) as problem:
            reason = str(problem).strip().partition(".cc:")[2].partition(": ")[2] or str(problem).strip()
            raise GrammarError(f"The {spec.kind} cannot be used as a grammar: {reason}") from None
        matcher = xgrammar.GrammarMatcher(compiled)
        encode = lambda text: self._tokenizer.encode(text, special=False)  # noqa: E731
        return XGrammarMatcher(matcher, encode, self._eos, self._words)

    def _compile(self, spec: GrammarSpec) -> Any:
        c = self._compiler
        style: dict[str, Any] = {"any_whitespace": False, "separators": (", ", ": ")}
        if spec.kind == "json_schema":
            if loose(json.loads(spec.text)):
                raise GrammarError(
                    "XGrammar does not keep strings with a length or a pattern to JSON. "
                    "Install llguidance for such a schema: pip install 'toolyard[inference]'."
                )
            return c.compile_json_schema(spec.text, strict_mode=False, **style)
        if spec.kind == "json_object":
            return c.compile_json_schema('{"type": "object"}', strict_mode=False, **style)
        if spec.kind == "regex":
            return c.compile_regex(spec.text)
        if spec.kind == "choice":
            return c.compile_grammar("root ::= " + " | ".join(map(json.dumps, json.loads(spec.text))))
        if spec.kind == "ebnf":
            return c.compile_grammar(spec.text)
        raise GrammarError(f"unknown kind of grammar {spec.kind!r}")
