"""Which library serves which grammar.

A grammar seen for the first time goes to llguidance, which needs no preparation. One that comes back is
worth compiling: XGrammar does so in the background, while llguidance goes on serving, and takes over when it
is ready, since its masks are cheaper. What XGrammar refuses or cannot do rightly stays with llguidance. Either
library may be absent; the other then serves all, and a server without both answers grammar requests with a clear
error.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from inference.errors import GrammarError
from inference.grammar.base import GrammarCompiler, GrammarSpec, Matcher
from inference.tokenizer import Tokenizer

log = logging.getLogger("inference")


class AdaptiveCompiler(GrammarCompiler):
    """Thread-safe: `matcher` runs on the callers' threads, background compilation on one of its own."""

    def __init__(
        self, fresh: GrammarCompiler | None, cached: GrammarCompiler | None, remember: int = 1024
    ) -> None:
        self.fresh, self.cached = fresh, cached
        self._seen: OrderedDict[GrammarSpec, Future[Matcher] | None] = OrderedDict()
        self._remember = remember
        self._lock = threading.Lock()
        self._background = ThreadPoolExecutor(1, thread_name_prefix="grammar")

    def matcher(self, spec: GrammarSpec, *, again: bool = False) -> Matcher:
        """A matcher from the library that is best for now. `again`: from the one that serves first uses, since
        the libraries cut what they force into other tokens, and a seeded request should give the same again."""
        if self.fresh is None or spec.kind == "ebnf":
            if self.cached is None:
                raise GrammarError(
                    "No library for this grammar is installed: pip install 'toolyard[inference]'."
                )
            return self.cached.matcher(spec)
        return (
            self.cached.matcher(spec)
            if self.cached is not None and not again and self._ready(spec)
            else self.fresh.matcher(spec)
        )

    def _ready(self, spec: GrammarSpec) -> bool:
        """Whether the compiled form is there; the second use of a grammar starts its compilation."""
        with self._lock:
            known = spec in self._seen
            work = self._seen.pop(spec, None)
            if known and work is None and self.cached is not None:
                work = self._background.submit(self.cached.matcher, spec)
            self._seen[spec] = work  # at the end: most recently used
            while len(self._seen) > self._remember:
                self._seen.popitem(last=False)
        # A grammar that XGrammar refuses stays with llguidance, which has accepted it.
        return work is not None and work.done() and not work.cancelled() and work.exception() is None

    def close(self) -> None:
        """Stop compiling; what has begun is finished."""
        self._background.shutdown(cancel_futures=True)


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
