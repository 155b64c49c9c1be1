"""Text to vectors: which model, its weights checked, exported once, run without torch."""
