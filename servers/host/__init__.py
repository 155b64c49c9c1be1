"""Serves a manifest: a supervisor that speaks MCP, and workers that run the converted code."""
