"""Plan JSON under a schema against free text: CPU time a token, and whether every output is valid.

    python tests/benchmarks/inference/grammar.py --model DIR [--batch 1 8] [--rounds 3]

With random weights the strings are noise, but their shape is what the schema says. The free text of a round is as
long as its plans are, so that both read the same context.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import jsonschema

from inference.engine import Engine, EngineConfig
from inference.grammar.adaptive import make_compiler
from inference.grammar.base import GrammarSpec
from inference.runner import ModelRunner, RunnerConfig
from inference.sequence import Request, SamplingParams
from inference.tokenizer import Tokenizer

STEP = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 1, "maximum": 99},
        "tool": {"enum": ["search_issues", "create_ticket", "send_message"]},
        "arguments": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "maxLength": 40},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100},
                "urgent": {"type": "boolean"},
            },
            "required": ["query", "limit", "urgent"],
            "additionalProperties": False,
        },
    },
    "required": ["id", "tool", "arguments"],
    "additionalProperties": False,
}
PLAN = {
    "type": "object",
    "properties": {"steps": {"type": "array", "items": STEP, "minItems": 3, "maxItems": 3}},
    "required": ["steps"],
    "additionalProperties": False,
}
SPEC = GrammarSpec("json_schema", json.dumps(PLAN))
TOKENS = 2000
"""More than any plan needs: one that is cut off is not valid."""


def valid(text: str) -> bool:
    """Whether an output is a plan."""
    try:
        jsonschema.validate(json.loads(text), PLAN)
    except (json.JSONDecodeError, jsonschema.ValidationError):
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    runner = ModelRunner(options.model, RunnerConfig(threads=options.threads))
    tokenizer = Tokenizer(options.model)
    eos = sorted(runner.model_config.eos)
    compiler = make_compiler(options.model, tokenizer, runner.model_config.vocabulary, eos)
    kinds = ("free", "plan")
    for batch in options.batch:
        each: dict[str, list[float]] = {kind: [] for kind in kinds}
        outputs: dict[str, int] = dict.fromkeys(kinds, 0)
        forced: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(options.rounds):
            length = TOKENS
            for kind in ("plan", "free"):
                engine = Engine(runner, EngineConfig(speculate=False, seed=number))
                requests = [
                    Request(
                        str(i),
                        tuple((j * 7 + i) % runner.model_config.vocabulary for j in range(32)),
                        SamplingParams(max_tokens=length, temperature=0.0 if i else 1.0, seed=i),
                        matcher=compiler.matcher(SPEC) if kind == "plan" else None,
                    )
                    for i in range(batch)
                ]
                began = time.process_time()
                written = engine.generate(requests)
                seconds = time.process_time() - began
                count = sum(map(len, written.values()))
                length = max(map(len, written.values()))
                each[kind].append(seconds / count)
                forced[kind].append(engine.stats.forced_tokens / count)
                if kind != "free":
                    outputs[kind] += sum(valid(tokenizer.decode(tokens)) for tokens in written.values())
        free = statistics.median(each["free"])
        for kind in kinds:
            middle = statistics.median(each[kind])
            line = f"batch {batch:>2} {kind}: {middle * 1e3:.3f} ms a token ({middle / free:.2f} x free)"
            if kind != "free":
                share = statistics.median(forced[kind])
                line += f", {share:.0%} of tokens forced, {outputs[kind]} of {batch * options.rounds} valid"
            print(line)
    compiler.close()


if __name__ == "__main__":
    main()
