"""Definitions that try to do more than describe: hidden characters, and instructions to the model."""

from registry.poison.characters import Hidden, hidden_characters, visible
from registry.poison.detector import THRESHOLD, Finding, inspect

__all__ = ["THRESHOLD", "Finding", "Hidden", "hidden_characters", "inspect", "visible"]
