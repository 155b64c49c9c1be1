"""Make a checkpoint with random weights in a true architecture, to measure speed without any download.

    python tests/benchmarks/inference/random_model.py --out DIR [--size 60m | 0.5b]

The text that such a model writes is noise; its cost is that of a trained one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path.insert(0, str(TESTS / "inference"))

from tiny_checkpoints import make_checkpoint  # noqa: E402 - its import needs the path

SIZES = {
    "60m": {
        "hidden_size": 640,
        "num_hidden_layers": 8,
        "num_attention_heads": 10,
        "num_key_value_heads": 5,
        "head_dim": 64,
        "intermediate_size": 1920,
    },
    "0.5b": {
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="60m")
    options = parser.parse_args()
    make_checkpoint(
        options.out,
        "qwen3",
        dtype="bfloat16",
        **SIZES[options.size],
        vocab_size=32_000,
        max_position_embeddings=32_768,
        initializer_range=0.02,
    )
    print(options.out)


if __name__ == "__main__":
    main()
