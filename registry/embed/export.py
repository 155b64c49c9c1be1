"""The child that turns a sentence-transformers model into files the gateway can run.

``python -m registry.embed.export SOURCE FOLDER``. It imports torch (0.7 GB, seconds of CPU), so it is
a process of its own. It writes into FOLDER, which must exist: the graph in fp32 and with 8-bit
weights, the tokenizer, and ``model.json`` last. The whole model is in the graph, pooling and
normalisation included. Progress is one line a step on stderr; the last line says what was wrong.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_COSINE: Final = 0.9999
"""Between the exported graph in fp32 and torch, on every probe."""
MIN_INT8_COSINE: Final = 0.98
"""Between 8-bit weights and fp32. Below, the 8-bit graph is not written; see registry/README.md for what
it costs in ranking where it is."""

OPSET: Final = 23
"""Of ONNX's operators: the first that has attention as one, which halves the time of a long text."""

_PROBES: Final = (
    "weather",
    "Book a table for two at an Italian restaurant near the station on Friday evening.",
    "filesystem: read file. Read the complete contents of a file. Parameters: path (where it is)",
    "Convert 100 USD to EUR, then email the result to alice@example.org and add it to the sheet.",
    "créer une facture; 創建發票; erstelle eine Rechnung",
    "x " * 300,
)


def main(source: str, folder: Path) -> None:
    """Load, export, check against torch, shrink, check again, write."""
    import torch
    from sentence_transformers import SentenceTransformer

    _say(f"loading {source}")
    model = SentenceTransformer(source, device="cpu").eval()
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", None)
    if tokenizer is None:
        raise SystemExit(f"the model {source} has no tokenizer of the 'tokenizers' library")
    limit = min(int(model.max_seq_length or 512), 512)
    pad = model.tokenizer.pad_token_id or 0

    graph = folder / "model.onnx"
    _say("exporting")
    _export(torch, model, graph)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))

    wanted = model.encode(list(_PROBES), normalize_embeddings=True, prompt="")
    cosine = _agreement(folder, graph, limit, pad, wanted)
    if cosine < MIN_COSINE:
        raise SystemExit(f"the exported graph differs from the model: cosine {cosine:.6f} < {MIN_COSINE}")
    _say("shrinking")
    small = folder / "model.int8.onnx"
    int8_cosine = 0.0
    for narrow in (False, True):
        _quantize(graph, small, narrow=narrow)
        int8_cosine = _agreement(folder, small, limit, pad, wanted)
        if int8_cosine >= MIN_INT8_COSINE:
            break
    else:
        _say(f"8-bit weights are too coarse for this model: cosine {int8_cosine:.4f}; using fp32")
        small.unlink()
    prompts: dict[str, str | None] = dict(model.prompts or {})
    (folder / "model.json").write_text(
        json.dumps(
            {
                "format": 1,
                "source": source,
                "dimension": int(wanted.shape[1]),
                "max_tokens": limit,
                "pad": int(pad),
                "query_prompt": prompts.get("query") or "",
                "document_prompt": prompts.get("document") or "",
                "cosine": round(cosine, 7),
                "int8_cosine": round(int8_cosine, 5),
                "graph": small.name if small.exists() else graph.name,
            },
            indent=1,
        ),
        encoding="utf-8",
    )
    _say("done")


def _export(torch: Any, model: Any, graph: Path) -> None:
    takes_types = "token_type_ids" in (getattr(model.tokenizer, "model_input_names", None) or ())

    class Whole(torch.nn.Module):  # type: ignore[misc]  # torch is Any here: it is imported late
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            if takes_types:
                features["token_type_ids"] = torch.zeros_like(input_ids)
            vector = self.model(features)["sentence_embedding"]
            return torch.nn.functional.normalize(vector, dim=-1)

    # Two rows of different length: a graph traced on one row may bake the shape in.
    example = model.tokenizer(["a request", "a somewhat longer request"], padding=True, return_tensors="pt")
    dynamic = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        Whole(),
        (example["input_ids"], example["attention_mask"]),
        str(graph),
        input_names=["input_ids", "attention_mask"],
        output_names=["pooled"],
        dynamic_shapes={name: {0: dynamic, 1: dynamic} for name in ("input_ids", "attention_mask")},
        dynamo=True,
        external_data=False,
        opset_version=OPSET,
        verbose=False,
    )


def _quantize(graph: Path, small: Path, *, narrow: bool) -> None:
    """8-bit weights with a scale per output channel; activations are quantised as they come.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference" (CVPR 2018). It makes a query three times as fast and the resident model four times smaller.

    :param narrow: leave the eighth bit unused. A processor without VNNI instructions adds two products of
        8 bits in 16, and what does not fit is cut off (ONNX Runtime, "Quantize ONNX models: U8S8 saturation").
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = graph.with_suffix(".prepared")
    quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
    nodes = onnx.load(str(prepared), load_external_data=False).graph.node
    quantize_dynamic(
        str(prepared),
        str(small),
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=narrow,
        # It would be taken for ONNX Runtime's own operator of that name, which has weights and other inputs.
        nodes_to_exclude=[node.name for node in nodes if node.op_type == "Attention"],
    )
    prepared.unlink()


def _agreement(folder: Path, graph: Path, limit: int, pad: int, wanted: NDArray[np.float32]) -> float:
    from registry.embed.onnx import Session

    session = Session(graph, folder / "tokenizer.json", max_tokens=limit, pad=pad)
    return float((session.encode(_PROBES) * wanted).sum(axis=1).min())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    from registry.orphans import end_with_parent

    end_with_parent()
    warnings.simplefilter("ignore")
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m registry.embed.export SOURCE FOLDER")
    main(sys.argv[1], Path(sys.argv[2]))
