"""Loader, sampling, text streams, quantisation, speculation: one part at a time."""

from __future__ import annotations

import json
import shutil
import time

import pytest

torch = pytest.importorskip("torch", reason="torch is missing: install toolyard[inference]")

import numpy as np  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tiny_checkpoints import Reference, make_checkpoint  # noqa: E402

from inference.errors import CheckpointError, GrammarError, UnsupportedModelError  # noqa: E402
from inference.grammar.adaptive import AdaptiveCompiler, make_compiler  # noqa: E402
from inference.grammar.base import GrammarSpec  # noqa: E402
from inference.quantize import dequantize, quantize  # noqa: E402
from inference.runner import ModelRunner, RunnerConfig  # noqa: E402
from inference.sampling import Row, Sampler, token_set  # noqa: E402
from inference.sequence import Request, SamplingParams, Sequence  # noqa: E402
from inference.server.toolcalls import ToolCallSplitter  # noqa: E402
from inference.speculate import PromptLookup  # noqa: E402
from inference.text import TextStream  # noqa: E402
from inference.tokenizer import Tokenizer  # noqa: E402


# ---------------------------------------------------------------------- checkpoints
def load(folder, **kw) -> ModelRunner:
    return ModelRunner(folder, RunnerConfig(backend="reference", kv_tokens=64, **kw))


@pytest.fixture
def copy(qwen3: Reference, tmp_path):
    return shutil.copytree(qwen3.folder, tmp_path / "copy")


def test_a_sharded_checkpoint_loads_like_a_single_one(tmp_path) -> None:
    from inference.engine import Engine

    single = make_checkpoint(tmp_path / "single", "llama")
    make_checkpoint(tmp_path / "sharded", "llama", shard="200KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    logits = [Engine(load(tmp_path / name)).logits([1, 2, 3]) for name in ("single", "sharded")]
    assert torch.equal(*logits)
    assert (logits[0] - single.logits([1, 2, 3])).abs().max() < 1e-4


def test_a_missing_tensor_is_named(copy) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"'model\.layers\.1\.mlp\.up_proj\.weight' is missing"):
        load(copy)


def test_a_tensor_of_the_wrong_shape_is_named(copy) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "intermediate_size": 224}))
    with pytest.raises(
        CheckpointError, match=r"'model\.layers\.0\.mlp\.gate_proj\.weight' has shape \[208, 128\]"
    ):
        load(copy)


def test_a_truncated_file_is_named(copy) -> None:
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing, truncated"):
        load(copy)


def test_a_missing_shard_is_named_with_its_tensor(tmp_path) -> None:
    make_checkpoint(tmp_path, "llama", shard="200KB")
    sorted(tmp_path.glob("*.safetensors"))[-1].unlink()
    with pytest.raises(CheckpointError, match=r"tensor '.*' cannot be read: .*safetensors is missing"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "longrope"),
        ({"layer_types": ["sliding_attention"]}, "sliding"),
    ],
)
def test_what_is_not_computed_is_refused(copy, change: dict, word: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UnsupportedModelError, match=word):
        load(copy)


# ---------------------------------------------------------------------- sampling
def draw(logits, count: int = 4000, **kw) -> np.ndarray:
    rows = [Row(SamplingParams(**kw), i) for i in range(count)]
    tokens = Sampler(0).sample(logits.expand(count, -1).contiguous(), rows).tokens
    return np.bincount(tokens, minlength=logits.shape[-1]) / count


LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, -3.0]])


def test_samples_follow_the_distribution() -> None:
    for temperature in (0.5, 1.0, 2.0):
        exact = (LOGITS[0] / temperature).softmax(-1).numpy()
        assert np.abs(draw(LOGITS, temperature=temperature) - exact).max() < 0.03


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.7}, {0, 1}),
        ({"top_p": 0.6}, {0}),
        ({"min_p": 0.3}, {0, 1}),
        ({"top_k": 3, "top_p": 0.99}, {0, 1, 2}),
    ],
)
def test_filters_keep_what_they_should_in_the_right_proportion(filters: dict, kept: set[int]) -> None:
    seen = draw(LOGITS, temperature=1.0, **filters)
    exact = torch.zeros(5)
    exact[list(kept)] = LOGITS[0].softmax(-1)[list(kept)]
    assert set(np.flatnonzero(seen)) == kept
    assert np.abs(seen - (exact / exact.sum()).numpy()).max() < 0.03


def test_a_seed_gives_one_token_at_one_position_whatever_the_neighbours() -> None:
    params = SamplingParams(seed=11)
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    alone = Sampler(1).sample(logits[1:2], [Row(params, 7)]).tokens[0]
    others = [Row(SamplingParams(), 0), Row(params, 7), Row(SamplingParams(temperature=0.0), 3)]
    for seed in range(5):
        assert Sampler(seed).sample(logits, others).tokens[1] == alone


def test_masks_and_forbidden_tokens_are_never_drawn() -> None:
    mask = np.array([0b01010], np.int32)
    for temperature in (0.0, 1.0):
        params = SamplingParams(temperature=temperature)
        tokens = Sampler(0).sample(LOGITS.expand(50, -1), [Row(params, i, mask) for i in range(50)]).tokens
        assert set(tokens) <= {1, 3}
        tokens = (
            Sampler(0).sample(LOGITS.expand(50, -1), [Row(params, i, None, (0,)) for i in range(50)]).tokens
        )
        assert 0 not in tokens


def test_a_row_with_nan_is_told_apart() -> None:
    logits = LOGITS.repeat(2, 1)
    logits[1, 3] = float("nan")
    assert Sampler(0).sample(logits, [Row(SamplingParams(temperature=0.0), 0)] * 2).finite == [True, False]


# ---------------------------------------------------------------------- text
@settings(max_examples=60)
@given(
    text=st.text(max_size=40),
    cuts=st.lists(st.integers(1, 3), max_size=40),
    stop=st.text(min_size=1, max_size=3),
)
def test_a_text_stream_says_what_decoding_at_once_says_up_to_a_stop_string(
    qwen3: Reference, text: str, cuts: list[int], stop: str
) -> None:
    tokenizer = Tokenizer(qwen3.folder)
    tokens = tokenizer.encode(text)
    whole = tokenizer.decode(tokens)
    for stops in ((), (stop,)):
        stream, out, at, left = TextStream(tokenizer, stops), "", 0, list(cuts)
        while at < len(tokens):
            n = left.pop() if left else 1
            out += stream.push(tokens[at : at + n])
            at += n
        out += stream.finish()
        assert out == (whole.partition(stop)[0] if stops else whole)
        assert out == stream.text


def test_tool_calls_are_cut_out_of_text_wherever_it_is_split() -> None:
    text = 'Let me see. <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>\n'
    text += '<tool_call>{"name": "g"}</tool_call>'
    for n in range(1, 30):
        splitter, shown = ToolCallSplitter(), ""
        for i in range(0, len(text), n):
            shown += splitter.push(text[i : i + n])
        rest, calls = splitter.finish()
        assert (shown, rest) == ("Let me see. ", "")
        assert [c["function"]["name"] for c in calls] == ["f", "g"]
    broken = ToolCallSplitter()
    assert broken.push("a <tool_call>{nonsense") == "a "
    assert broken.finish() == ("<tool_call>{nonsense", [])


# ---------------------------------------------------------------------- quantisation, speculation, grammar
@pytest.mark.parametrize(("bits", "worst"), [(8, 0.005), (4, 0.13)])
def test_quantisation_error_is_a_rounding_error(bits: int, worst: float) -> None:
    w = torch.randn(40, 130, generator=torch.Generator().manual_seed(0))
    w[3] = 0
    back = dequantize(quantize(w, bits))
    assert back.shape == w.shape
    peak = (
        torch.nn.functional.pad(w, (0, 62)).view(40, -1, 64).abs().amax(-1).repeat_interleave(64, 1)[:, :130]
    )
    assert ((back - w).abs() <= worst * peak + 1e-9).all()


def test_drafting_stops_where_it_does_not_pay_and_is_tried_again_later() -> None:
    lookup = PromptLookup(rest=10)
    request = Request("a", (1, 2, 3, 4, 1, 2, 3), SamplingParams(max_tokens=500))
    seq = Sequence(request, 0)
    seq.decoding, seq.computed = True, len(seq.tokens) - 1
    for _ in range(20):
        lookup.observe(False, 1.0)
        lookup.observe(True, 1.5)
    drafted = []
    for _ in range(60):
        seq.draft.clear()
        lookup.propose([seq])
        drafted.append(bool(seq.draft))
        lookup.result(seq, len(seq.draft), 0)
        seq.tokens += [1] if seq.tokens[-1] == 3 else [2] if seq.tokens[-1] == 1 else [3]
        seq.computed = len(seq.tokens) - 1
    assert drafted[0]
    assert sum(drafted) < 15
    assert any(drafted[20:])


def walk(matcher, tokenizer: Tokenizer, size: int, pick) -> tuple[str, int]:
    """Drive a matcher to its end; the text, and how many tokens were forced."""
    tokens, forced = [], 0
    while not matcher.done:
        jump = matcher.forced()
        for token in jump:
            assert matcher.accept(token)
        tokens += jump
        forced += len(jump)
        if matcher.done:
            break
        mask = np.zeros(-(-size // 32), np.int32)
        matcher.fill(mask)
        allowed = token_set(mask, size)
        token = int(pick(allowed))
        if tokenizer.token_text(token) == "<|im_end|>":
            break
        assert matcher.accept(token)
        tokens.append(token)
        assert len(tokens) < 500
    return tokenizer.decode(tokens, skip_special=False), forced


@pytest.mark.parametrize("library", ["fresh", "cached"])
def test_both_grammar_libraries_give_valid_json_and_force_what_is_forced(
    qwen3: Reference, library: str
) -> None:
    pytest.importorskip("xgrammar", reason="no grammar library")
    pytest.importorskip("llguidance", reason="no grammar library")
    tokenizer = Tokenizer(qwen3.folder)
    eos = tokenizer.id_of("<|im_end|>")
    compiler = make_compiler(qwen3.folder, tokenizer, 448, [eos])
    schema = {
        "type": "object",
        "properties": {
            "tool": {"enum": ["search", "fetch"]},
            "ok": {"type": "boolean"},
            "n": {"type": "integer"},
        },
        "required": ["tool", "ok", "n"],
        "additionalProperties": False,
    }
    spec = GrammarSpec("json_schema", json.dumps(schema))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        text, forced = walk(getattr(compiler, library).matcher(spec), tokenizer, 448, rng.choice)
        value = json.loads(text)
        assert set(value) == {"tool", "ok", "n"}
        assert value["tool"] in ("search", "fetch")
        assert forced >= 5


def test_without_grammar_libraries_the_answer_is_a_clear_error() -> None:
    with pytest.raises(GrammarError, match="pip install"):
        AdaptiveCompiler(None, None).matcher(GrammarSpec("regex", "a"))


def test_a_grammar_that_comes_back_moves_to_the_compiled_library(qwen3: Reference) -> None:
    pytest.importorskip("xgrammar", reason="no grammar library")
    pytest.importorskip("llguidance", reason="no grammar library")
    tokenizer = Tokenizer(qwen3.folder)
    compiler = make_compiler(qwen3.folder, tokenizer, 448, [tokenizer.id_of("<|im_end|>")])
    spec = GrammarSpec("regex", "[ab]{3}")
    assert type(compiler.matcher(spec)).__name__ == "LLGuidanceMatcher"
    end = time.monotonic() + 60
    while type(compiler.matcher(spec)).__name__ != "XGrammarMatcher":
        assert time.monotonic() < end, "the compiled form never took over"
    compiler.close()
