"""What config.json says, as one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.errors import CheckpointError, UnsupportedModelError
from inference.loader import read_json


@dataclass(frozen=True, slots=True)
class ModelConfig:
    architecture: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    eps: float
    tied: bool
    attention_bias: bool
    mlp_bias: bool
    rope_theta: float
    rope_scaling: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    eos: tuple[int, ...] = ()

    @classmethod
    def read(cls, folder: Path | str) -> ModelConfig:
        """Parse config.json (and generation_config.json for the end tokens).

        :raises CheckpointError: a field is missing or of the wrong type.
        :raises UnsupportedModelError: it asks for something this engine does not compute.
        """
        folder = Path(folder)
        raw = read_json(folder / "config.json")

        def need(name: str) -> int:
            value = raw.get(name)
            if not isinstance(value, int) or value < 1:
                raise CheckpointError(
                    f"{folder / 'config.json'}: {name!r} should be a positive integer, not {value!r}"
                )
            return value

        names = raw.get("architectures") or [None]
        if raw.get("hidden_act", "silu") != "silu":
            raise UnsupportedModelError(f"hidden_act {raw['hidden_act']!r} is not supported; only 'silu' is")
        if raw.get("use_sliding_window") or "sliding_attention" in (raw.get("layer_types") or ()):
            raise UnsupportedModelError("sliding-window attention is not supported; full attention is")
        heads = need("num_attention_heads")
        # transformers 5 gathers the rope settings in one object; before, theta stood beside rope_scaling.
        rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
        theta = rope.pop("rope_theta", None) or raw.get("rope_theta") or 10000.0
        generation = folder / "generation_config.json"
        eos = raw.get("eos_token_id")
        if generation.exists():
            eos = read_json(generation).get("eos_token_id", eos)
        return cls(
            architecture=str(names[0]),
            hidden=need("hidden_size"),
            layers=need("num_hidden_layers"),
            heads=heads,
            kv_heads=raw.get("num_key_value_heads") or heads,
            head_dim=raw.get("head_dim") or need("hidden_size") // heads,
            intermediate=need("intermediate_size"),
            vocabulary=need("vocab_size"),
            context=need("max_position_embeddings"),
            eps=float(raw.get("rms_norm_eps", 1e-6)),
            tied=bool(raw.get("tie_word_embeddings", False)),
            attention_bias=bool(raw.get("attention_bias", False)),
            mlp_bias=bool(raw.get("mlp_bias", False)),
            rope_theta=float(theta),
            rope_scaling=rope,
            dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "float32"),
            eos=() if eos is None else tuple(eos) if isinstance(eos, list) else (int(eos),),
        )
