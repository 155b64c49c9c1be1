"""What is allowed: one rule per file."""
