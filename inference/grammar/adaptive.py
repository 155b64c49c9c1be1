"""Which library serves which grammar.

A grammar seen for the first time goes to llguidance, which needs no preparation; one that comes back is
worth compiling, so it goes to XGrammar, whose masks are cheaper. Either library may be absent; the other then
serves all, and a server without both answers grammar requests with a clear error.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from pathlib import Path

from inference.errors import GrammarError
from inference.grammar.base import GrammarCompiler, GrammarSpec, Matcher
from inference.tokenizer import Tokenizer

log = logging.getLogger("inference")


class AdaptiveCompiler(GrammarCompiler):
    """Thread-safe: compilations run on the caller's threads, one at a time for each library."""

    def __init__(
        self, fresh: GrammarCompiler | None, cached: GrammarCompiler | None, remember: int = 1024
    ) -> None:
        self.fresh, self.cached = fresh, cached
        self._seen: OrderedDict[GrammarSpec, None] = OrderedDict()
        self._remember = remember
        self._lock = threading.Lock()

    def matcher(self, spec: GrammarSpec) -> Matcher:
        with self._lock:
            again = spec in self._seen
            self._seen[spec] = None
            self._seen.move_to_end(spec)
            while len(self._seen) > self._remember:
                self._seen.popitem(last=False)
            if self.cached is not None and (again or self.fresh is None or spec.kind == "ebnf"):
                return self.cached.matcher(spec)
            if self.fresh is not None:
                return self.fresh.matcher(spec)
        raise GrammarError("No grammar library is installed here: pip install 'toolyard[inference]'.")


def make_compiler(folder: Path, tokenizer: Tokenizer, vocabulary: int, eos: list[int]) -> AdaptiveCompiler:
    """The compiler for a model. What is missing is said in the log."""
    fresh: GrammarCompiler | None = None
    cached: GrammarCompiler | None = None
    if not eos:
        log.warning("The model names no end token, so constrained output is switched off.")
        return AdaptiveCompiler(None, None)
    try:
        from inference.grammar.llguidance import LLGuidanceCompiler

        fresh = LLGuidanceCompiler(folder, vocabulary, eos[0])
    except ImportError as problem:
        log.warning(
            "llguidance is missing (%s): first uses of a grammar wait for XGrammar to compile.", problem
        )
    try:
        from inference.grammar.xgrammar import XGrammarCompiler

        cached = XGrammarCompiler(tokenizer, vocabulary, eos)
    except ImportError as problem:
        log.warning("XGrammar is missing (%s): repeated grammars stay with llguidance.", problem)
    return AdaptiveCompiler(fresh, cached)
