"""From the name in config.json to a class."""

from __future__ import annotations

from inference.errors import UnsupportedModelError
from inference.layers import BuildContext
from inference.models.base import CausalLM
from inference.models.llama import Llama
from inference.models.qwen2 import Qwen2
from inference.models.qwen3 import Qwen3

ARCHITECTURES: dict[str, type[CausalLM]] = {
    "LlamaForCausalLM": Llama,
    "Qwen2ForCausalLM": Qwen2,
    "Qwen3ForCausalLM": Qwen3,
}


def build_model(ctx: BuildContext) -> CausalLM:
    """:raises UnsupportedModelError: the architecture is not one of ours."""
    name = ctx.config.architecture
    if name not in ARCHITECTURES:
        raise UnsupportedModelError(f"architecture {name!r} is not one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name](ctx)
