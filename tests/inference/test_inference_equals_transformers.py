"""fp32 greedy tokens equal transformers', whatever the schedule: the engine's reason to be believed."""

from __future__ import annotations

from functools import lru_cache

import pytest

torch = pytest.importorskip("torch", reason="torch is missing: install toolyard[inference]")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tiny_checkpoints import Reference, make_checkpoint  # noqa: E402

from inference.engine import Engine, EngineConfig  # noqa: E402
from inference.runner import ModelRunner, RunnerConfig  # noqa: E402
from inference.sequence import Request, SamplingParams  # noqa: E402

BACKENDS = ["reference", "cpu"]


@lru_cache
def runner(folder, backend: str, kv_tokens: int = 16384) -> ModelRunner:
    return ModelRunner(
        folder, RunnerConfig(backend=backend, dtype="float32", kv_tokens=kv_tokens, step_tokens=64)
    )


def engine(reference: Reference, backend: str, kv_tokens: int = 16384, **config) -> Engine:
    options = {"step_tokens": 32, "max_running": 8, "check_cache": True, **config}
    return Engine(runner(reference.folder, backend, kv_tokens), EngineConfig(**options))


def request(name: str, prompt: list[int], n: int = 8, **kw) -> Request:
    return Request(name, tuple(prompt), SamplingParams(max_tokens=n, temperature=0.0, ignore_eos=True), **kw)


def same(ours: list[int], wanted: list[int]) -> bool:
    """Equal up to where the reference could not decide."""
    return ours[: len(wanted)] == wanted


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_are_within_1e_4_of_transformers(reference: Reference, backend: str) -> None:
    tokens = [(7 * i * i + 3 * i) % 440 for i in range(60)]
    ours = engine(reference, backend).logits(tokens)
    assert (ours - reference.logits(tokens)).abs().max() < 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_schedule_gives_the_tokens_of_transformers(
    reference: Reference, backend: str, data: st.DataObject
) -> None:
    """Chunking, prefix hits, preemption, speculation, batch mix, cancellation of neighbours."""
    e = engine(
        reference,
        backend,
        kv_tokens=data.draw(st.sampled_from([160, 512])),
        step_tokens=data.draw(st.sampled_from([8, 19, 64])),
        prefix_cache=data.draw(st.booleans()),
        speculate=data.draw(st.booleans()),
    )
    prompts, results, finished = {}, {}, set()
    for i in range(data.draw(st.integers(1, 6))):
        stem = data.draw(st.sampled_from([[], [5] * 20, list(range(40)), [1, 2, 3] * 12]))
        prompt = stem + data.draw(st.lists(st.integers(0, 439), min_size=1, max_size=30))
        prompts[str(i)] = (prompt, data.draw(st.integers(1, 16)))
        e.add(request(str(i), prompt, prompts[str(i)][1], priority=data.draw(st.integers(0, 2))))
        results[str(i)] = []
        for _ in range(data.draw(st.integers(0, 4))):
            for out in e.step():
                results[out.request_id] += out.tokens
        if data.draw(st.integers(0, 4)) == 0:
            victim = data.draw(st.sampled_from(sorted(prompts)))
            e.cancel(victim)
            finished.add(victim)
    while not e.idle:
        for out in e.step():
            results[out.request_id] += out.tokens
    for name, (prompt, n) in prompts.items():
        wanted = reference.greedy(prompt, min(n, 8))
        assert same(results[name], wanted) or (name in finished and same(wanted, results[name]))
    assert e.scheduler.cache.available == e.scheduler.cache.pool.count


@pytest.mark.parametrize("backend", BACKENDS)
def test_speculation_accepts_drafts_and_changes_nothing(qwen3: Reference, backend: str) -> None:
    prompt = [1, 2, 3, 4] * 6
    plain = engine(qwen3, backend, speculate=False).generate([request("a", prompt, 60)])
    fast = engine(qwen3, backend, speculate=True)
    fast.speculator.rest = 0
    assert fast.generate([request("a", prompt, 60)]) == plain
    assert fast.speculator.proposed > 0


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 64,
                    "rope_theta": 500000.0,
                }
            },
        ),
        (
            "qwen3",
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 1024,
                    "rope_theta": 10000.0,
                }
            },
        ),
        ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4}),
        ("qwen2", {"num_key_value_heads": 1, "tie_word_embeddings": False}),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_variants_of_config_give_transformers_logits(
    tmp_path, family: str, changes: dict, backend: str
) -> None:
    reference = make_checkpoint(tmp_path, family, **changes)
    tokens = [(11 * i + i * i) % 440 for i in range(200)]
    r = ModelRunner(tmp_path, RunnerConfig(backend=backend, dtype="float32", step_tokens=256))
    ours = Engine(r).logits(tokens)
    assert (ours - reference.logits(tokens)).abs().max() < 1e-4


def test_bfloat16_on_the_c_kernels_is_closer_to_fp32_than_transformers_bfloat16(tmp_path) -> None:
    reference = make_checkpoint(tmp_path, "qwen3", dtype="bfloat16")
    tokens = [(11 * i + i * i) % 440 for i in range(100)]
    theirs = reference.logits(tokens).float()
    exact = Reference(tmp_path, reference.model.float()).logits(tokens)
    ours = Engine(ModelRunner(tmp_path, RunnerConfig(backend="cpu", dtype="bfloat16"))).logits(tokens)
    assert (ours - exact).abs().mean() <= (theirs - exact).abs().mean()


@pytest.mark.parametrize(("bits", "worst"), [("int8", 0.03), ("int4", 0.5)])
def test_quantised_c_kernels_agree_with_the_dequantised_reference(
    qwen3: Reference, bits: str, worst: float
) -> None:
    tokens = [(11 * i + i * i) % 440 for i in range(40)]
    make = lambda b: ModelRunner(qwen3.folder, RunnerConfig(backend=b, dtype="float32", quantize=bits))  # noqa: E731
    wanted = Engine(make("reference")).logits(tokens)
    ours = Engine(make("cpu")).logits(tokens)
    # The same integers and scales on both sides; what differs is that C rounds the inputs to int8.
    assert (ours - wanted).abs().mean() < 0.03 * wanted.std()
    assert (ours - wanted).abs().max() < 0.2 * wanted.std()
    assert (wanted - qwen3.logits(tokens)).abs().mean() < worst * wanted.std()
