"""python -m inference serve ..."""

from inference.cli import app

app()
