"""The measures are the product's own: `toolyard bench search` reports the same ones."""

from registry.search.measures import NAMES, mean, score

__all__ = ["NAMES", "mean", "score"]
