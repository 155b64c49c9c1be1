"""Tiny checkpoints with random weights, made by transformers itself: the reference for every token."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FAMILIES = ["llama", "qwen2", "qwen3"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools:\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n"
    "{% endif %}{% for m in messages %}{% if m.role == 'forbidden' %}{{ raise_exception('no such role') }}"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Reference:
    """A checkpoint folder and transformers' model of it."""

    folder: Path
    model: Any

    def logits(self, tokens: list[int]) -> Any:
        import torch

        with torch.inference_mode():
            return self.model(torch.tensor([tokens])).logits[0]

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """Greedy tokens, up to the first step where the two best logits are closer than 1e-4."""
        tokens = list(prompt)
        for _ in range(count):
            best = self.logits(tokens)[-1].topk(2)
            if float(best.values[0] - best.values[1]) < 1e-4:
                break
            tokens.append(int(best.indices[0]))
        return tokens[len(prompt) :]


def save_tokenizer(folder: Path) -> int:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = [json.dumps({"name": f"tool_{i}", "arguments": {"city": "Paris", "count": i}}) for i in range(50)]
    text += ["the plan needs to call this tool and read its result " * 3, "true false null yes no maybe"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.token_to_id("<|im_end|>")


def make_checkpoint(
    folder: Path, family: str, *, dtype: str = "float32", shard: str = "2GB", **changes: Any
) -> Reference:
    transformers = pytest.importorskip("transformers", reason="transformers is the reference: install [test]")
    torch = pytest.importorskip("torch", reason="torch is missing: install toolyard[inference]")
    folder.mkdir(parents=True, exist_ok=True)
    eos = save_tokenizer(folder)
    kinds = {
        "llama": transformers.LlamaConfig,
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
    }
    settings: dict[str, Any] = {
        "vocab_size": 448,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 208,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": family != "llama",
        "rms_norm_eps": 1e-6,
        "bos_token_id": None,
        "eos_token_id": eos,
        "initializer_range": 0.08,
    }
    if family != "qwen2":
        settings["head_dim"] = 32
    config = kinds[family](**{**settings, **changes})
    torch.manual_seed(FAMILIES.index(family))
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():  # norms and biases away from 1 and 0, so that forgetting one shows
        for name, value in model.named_parameters():
            if "norm" in name or name.endswith(".bias"):
                value.add_(torch.randn(value.shape, generator=noise) * 0.1)
    model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=shard)
    return Reference(folder, model)
