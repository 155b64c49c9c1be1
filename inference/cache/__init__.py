"""The KV cache's books: which page holds which tokens. Pure Python, no tensors."""

from inference.cache.base import CacheStats, Node, PrefixCache
from inference.cache.naive import NaiveCache
from inference.cache.pages import PagePool
from inference.cache.radix import RadixCache

__all__ = ["CacheStats", "NaiveCache", "Node", "PagePool", "PrefixCache", "RadixCache"]
