"""A model on a machine: loads a checkpoint, owns the KV memory, turns batches into logits."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from inference.batch import Batch
from inference.errors import KernelError
from inference.kernels.base import Kernels, Matrix
from inference.kernels.reference import ReferenceKernels
from inference.layers import BuildContext
from inference.layers.rotary import rope_table
from inference.loader import Checkpoint, torch_dtype
from inference.models.config import ModelConfig
from inference.models.registry import build_model

log = logging.getLogger("inference")


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """`backend`: auto, cpu, reference or triton. `dtype`: auto (the checkpoint's) or a torch name.
    `quantize`: none, int8 or int4. `kv_tokens`: room of the KV cache, rounded up to pages."""

    device: str = "cpu"
    backend: str = "auto"
    dtype: str = "auto"
    quantize: str = "none"
    threads: int = 1
    kv_tokens: int = 16384
    step_tokens: int = 512
    max_context: int | None = None


def choose_kernels(config: RunnerConfig, dtype: torch.dtype) -> Kernels:
    """The backend for a machine. Where a part is missing the next one serves, and the log says so."""
    if config.backend == "reference":
        return ReferenceKernels(dtype, config.device)
    if config.backend == "triton" or (config.backend == "auto" and config.device.startswith("cuda")):
        from inference.kernels.triton.backend import TritonKernels

        return TritonKernels(dtype, config.device)
    if config.backend not in ("auto", "cpu"):
        raise KernelError(f"backend {config.backend!r} is not one of auto, cpu, reference, triton")
    if config.device != "cpu":
        raise KernelError(f"the cpu backend does not run on device {config.device!r}")
    from inference.kernels.cpu.backend import CpuKernels

    try:
        return CpuKernels(dtype, threads=config.threads, capacity=config.step_tokens)
    except KernelError as problem:
        if config.backend == "cpu":
            raise
        log.warning("Running on plain torch, several times slower, because: %s", problem)
        return ReferenceKernels(dtype)


class ModelRunner:
    """Tokens' ids in, logits out. All calls from one thread."""

    def __init__(self, folder: Path | str, config: RunnerConfig = RunnerConfig()) -> None:
        torch.set_num_threads(config.threads)
        self.folder, self.config = Path(folder), config
        self.model_config = ModelConfig.read(folder)
        dtype = torch_dtype(self.model_config.dtype if config.dtype == "auto" else config.dtype)
        if dtype == torch.float16 and config.device == "cpu":
            log.warning("float16 weights run as float32 on a CPU; pass --dtype bfloat16 for half the memory.")
            dtype = torch.float32
        if config.quantize not in ("none", "int8", "int4"):
            raise KernelError(f"quantize {config.quantize!r} is not one of none, int8, int4")
        self.kernels = choose_kernels(config, dtype)
        self.page_size = self.kernels.page_size
        self.pages = -(-config.kv_tokens // self.page_size)
        self.context = min(self.model_config.context, config.max_context or self.model_config.context)
        checkpoint = Checkpoint(folder)
        rope = rope_table(self.model_config, self.context).to(config.device)
        bits = 0 if config.quantize == "none" else int(config.quantize.removeprefix("int"))
        ctx = BuildContext(self.model_config, checkpoint, self.kernels, rope, self.pages, bits)
        self.model = build_model(ctx)
        self.caches = ctx.caches
        harmless = ("rotary_emb.inv_freq", *(["lm_head.weight"] if self.model_config.tied else []))
        if unused := [n for n in checkpoint.unused() if not n.endswith(harmless)]:
            log.warning(
                "The checkpoint has tensors that this architecture does not use: %s",
                ", ".join(unused[:5]),
            )

    def forward(self, batch: Batch) -> Tensor:
        """Logits [R, vocabulary] f32, valid until the next call."""
        return self.kernels.run(self.model, batch)

    def scrub(self, pages: list[int]) -> None:
        """Zero pages that may hold NaN."""
        self.kernels.scrub(self.caches, pages)

    @property
    def decode_bytes(self) -> int:
        """Bytes of weights that one decode step must read (of an untied embedding only a row)."""
        matrices: list[Matrix] = [self.model.head.matrix]
        for layer in self.model.layers:
            matrices += [layer.attention.qkv, layer.attention.output, layer.mlp.gate_up, layer.mlp.down]
        return sum(m.nbytes for m in matrices)
