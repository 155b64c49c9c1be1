"""Search by words: how text becomes terms, and BM25 over them."""

from registry.lexical.bm25 import BM25Index
from registry.lexical.tokens import document_terms, query_terms

__all__ = ["BM25Index", "document_terms", "query_terms"]
