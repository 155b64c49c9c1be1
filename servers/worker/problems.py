"""What goes wrong in a worker, said so that the caller can mend it."""

from __future__ import annotations


class BadArgument(Exception):
    """An argument cannot become what the parameter needs; the message names the parameter."""


class NoSuchHandle(BadArgument):
    """A handle that was never given, belongs to somebody else, or died with its worker."""
