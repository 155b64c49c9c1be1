"""Vectors: in the store, where they are the truth; and as an index, which is derived from them."""
