"""Random walks through grammars: whatever a mask allows leads to an output that its schema accepts."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import jsonschema
import numpy as np
import pytest
from tiny_checkpoints import Reference

from inference.grammar.adaptive import AdaptiveCompiler, make_compiler
from inference.grammar.base import GrammarSpec, Matcher
from inference.tokenizer import Tokenizer

pytest.importorskip("xgrammar", reason="no grammar library")
pytest.importorskip("llguidance", reason="no grammar library")

VOCABULARY = 448
WALKS = 25
TOKENS = 300
SCHEMAS: list[dict[str, Any]] = [
    {"type": "string", "maxLength": 6},
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string"},
    {"type": "string", "pattern": "^[^a]{1,4}$"},
    {"type": "string", "pattern": "^\\n$"},
    {"type": "string", "format": "date"},
    {"type": "object", "patternProperties": {"^.x$": {"type": "boolean"}}, "additionalProperties": False},
    {"type": "object", "additionalProperties": {"type": "string", "maxLength": 3}, "maxProperties": 2},
    {"enum": ["a\nb", 'q"uote', "\x07"]},
    {
        "type": "object",
        "properties": {"pattern": {"type": "boolean"}, 'we"ird\n': {"type": "integer", "minimum": -3}},
        "required": ["pattern"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"type": ["string", "null"]}, "minItems": 1, "maxItems": 3},
]


@pytest.fixture(scope="module")
def compiler(qwen3: Reference) -> Iterator[AdaptiveCompiler]:
    tokenizer = Tokenizer(qwen3.folder)
    made = make_compiler(qwen3.folder, tokenizer, VOCABULARY, [_eos(tokenizer)])
    yield made
    made.close()


def _eos(tokenizer: Tokenizer) -> int:
    eos = tokenizer.fast.token_to_id("<|im_end|>")
    assert eos is not None
    return eos


def _walk(matcher: Matcher, eos: int, rng: random.Random) -> list[int] | None:
    """Tokens to a complete output, each allowed one as likely as another; None where it grows too long."""
    tokens: list[int] = []
    mask = np.zeros(-(-VOCABULARY // 32), np.int32)
    while len(tokens) < TOKENS:
        for token in matcher.forced():
            assert matcher.accept(token)
            tokens.append(token)
        if matcher.done:
            return tokens
        matcher.fill(mask)
        allowed = [t for t in range(VOCABULARY) if int(mask[t // 32]) >> (t % 32) & 1]
        assert allowed, "the grammar leads nowhere"
        token = eos if eos in allowed else rng.choice(allowed)
        if token == eos:
            return tokens
        assert matcher.accept(token)
        tokens.append(token)
    return None


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:60])
def test_every_walk_ends_in_a_valid_output_also_once_the_grammar_was_compiled(
    compiler: AdaptiveCompiler, qwen3: Reference, schema: dict[str, Any]
) -> None:
    tokenizer = Tokenizer(qwen3.folder)
    spec = GrammarSpec("json_schema", json.dumps(schema))
    assert compiler._background
    ended = 0
    for seed in range(WALKS):
        matcher = compiler.matcher(spec)
        if seed == 1:  # the second use has begun to compile it: wait for that, so that the third has it
            compiler._background.submit(lambda: None).result(60)
        tokens = _walk(matcher, _eos(tokenizer), random.Random(seed))
        if tokens is not None:
            ended += 1
            jsonschema.validate(json.loads(tokenizer.decode(tokens)), schema)
    assert ended, "no walk came to an end"


def test_a_seeded_request_gets_the_same_tokens_once_its_grammar_was_compiled(
    compiler: AdaptiveCompiler, qwen3: Reference
) -> None:
    eos = _eos(Tokenizer(qwen3.folder))
    spec = GrammarSpec("json_schema", json.dumps({"enum": ["search_issues", "search_users", "send"]}))
    walks = []
    for _ in range(3):
        compiler.matcher(spec)
        walks.append(_walk(compiler.matcher(spec, again=True), eos, random.Random(3)))
        compiler._background.submit(lambda: None).result(60)
    assert walks[0]
    assert walks[0] == walks[1] == walks[2]
    assert type(compiler.matcher(spec)) is not type(compiler.matcher(spec, again=True))
