"""Output that must match a grammar: JSON Schema, regex, choice, EBNF."""
