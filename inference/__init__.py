"""Tokens in, tokens out: a small LLM serving engine. See README.md.

Importing the package imports no torch; `inference.engine` does.
"""
