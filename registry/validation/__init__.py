"""Checking values against JSON Schemas that a stranger wrote, within bounds."""
