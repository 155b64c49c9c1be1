"""What the architectures have in common."""

from inference.layers.attention import Attention
from inference.layers.context import BuildContext
from inference.layers.embedding import Embedding, Head
from inference.layers.mlp import GatedMLP
from inference.layers.norm import RMSNorm

__all__ = ["Attention", "BuildContext", "Embedding", "GatedMLP", "Head", "RMSNorm"]
