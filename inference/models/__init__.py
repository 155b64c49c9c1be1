"""Architectures. One file each, and nothing in it but the architecture."""
