"""Crossing from one wire era of MCP to the other."""
