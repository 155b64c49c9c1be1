"""Turns a Python repository into a running, verified MCP service."""
