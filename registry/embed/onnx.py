"""Running an exported model with ONNX Runtime: no torch, one thread, small memory."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from registry.errors import ExportFailed, ModelMissing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_REMEMBERED: Final = 512
"""Vectors of recent queries that are kept; an agent asks the same again."""
_BATCH_TOKENS: Final = 4096
"""Tokens in one batch of documents: enough for full speed, and a bound on memory."""

_SLOWER: Final = ["SkipLayerNormFusion"]
"""Fusions that cost time on a CPU: this one adds up a layer one number at a time, a sixth of a query's time."""


class Session:
    """One graph and its tokenizer. `encode` may be called from any thread."""

    def __init__(self, graph: Path, tokenizer: Path, *, max_tokens: int, pad: int) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # Without the arena the memory of one long batch goes back when the batch is done.
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER
        )
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._pad = pad

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, ``[len(texts), dimension]``. Texts of like length are run together."""
        import numpy as np

        encoded = [self._tokenizer.encode(_sound(text)).ids for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
        out: NDArray[np.float32] | None = None
        start = 0
        while start < len(order):
            stop = start + 1
            # Padding is work for nothing: a batch ends where lengths or the number of tokens run away.
            while stop < len(order) and (
                len(encoded[order[stop]]) * (stop - start + 1) <= _BATCH_TOKENS
                and len(encoded[order[stop]]) <= 1.25 * len(encoded[order[start]]) + 2
            ):
                stop += 1
            rows = order[start:stop]
            width = len(encoded[rows[-1]])
            ids = np.full((len(rows), width), self._pad, dtype=np.int64)
            mask = np.zeros((len(rows), width), dtype=np.int64)
            for row, i in enumerate(rows):
                ids[row, : len(encoded[i])] = encoded[i]
                mask[row, : len(encoded[i])] = 1
            vectors: Any = self._session.run(["pooled"], {"input_ids": ids, "attention_mask": mask})[0]
            if out is None:
                out = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
            out[rows] = vectors
            start = stop
        return np.zeros((0, 0), dtype=np.float32) if out is None else out


class OnnxEncoder:
    """An `Encoder` over a folder that `registry.embed.export` wrote.

    :raises ModelMissing: onnxruntime or tokenizers is not installed.
    :raises ExportFailed: the folder is not a whole export.
    """

    def __init__(self, folder: Path, model: str) -> None:
        try:
            import onnxruntime  # noqa: F401
            import tokenizers  # noqa: F401
        except ImportError as error:
            raise ModelMissing(
                f"The model cannot run: {error.name} is not installed.", "Install toolyard[search]."
            ) from error
        try:
            facts: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            self._dimension = int(facts["dimension"])
            self._prompts = str(facts["query_prompt"]), str(facts["document_prompt"])
            self._session = Session(
                folder / facts["graph"],
                folder / "tokenizer.json",
                max_tokens=int(facts["max_tokens"]),
                pad=int(facts["pad"]),
            )
        except Exception as error:  # onnxruntime and tokenizers raise types of their own for a bad file
            raise ExportFailed(
                f"The exported model in {folder} cannot be loaded: {error}", "It will be exported again."
            ) from error
        self._model = model
        self._recent: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def model(self) -> str:
        return self._model

    @property
    def dimension(self) -> int:
        return self._dimension

    def forget(self) -> None:
        """Encode every query anew from here on: for who measures how long that takes."""
        with self._lock:
            self._recent.clear()

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of requests; those asked lately come from memory."""
        import numpy as np

        with self._lock:
            known = {text: self._recent[text] for text in texts if text in self._recent}
            for text in known:
                self._recent.move_to_end(text)
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        prompt = self._prompts[0]
        rows = self._session.encode([prompt + text for text in missing])
        fresh = dict(zip(missing, rows, strict=True))
        with self._lock:
            self._recent.update(fresh)
            while len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
        if not texts:
            return np.zeros((0, self._dimension), dtype=np.float32)
        return np.stack([known[text] if text in known else fresh[text] for text in texts])

    def encode_documents(
        self, texts: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Unit vectors of tools' texts; ``progress`` hears how many are done."""
        import numpy as np

        out = np.zeros((len(texts), self._dimension), dtype=np.float32)
        prompt = self._prompts[1]
        for start in range(0, len(texts), 256):
            chunk = [prompt + text for text in texts[start : start + 256]]
            out[start : start + len(chunk)] = self._session.encode(chunk)
            if progress is not None:
                progress(start + len(chunk))
        return out


def _sound(text: str) -> str:
    """Lone surrogates, which JSON can carry and no tokenizer takes, as question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
