"""Asking a person before something is changed."""

from __future__ import annotations

import sys

import typer

from gateway.cli import render
from gateway.cli.exits import Exit


def agreed(question: str, otherwise: str, hint: str) -> bool:
    """Whether the person at the terminal says yes. Where nobody can be asked, the verb ends.

    :param otherwise: what a no comes to, as "Nothing was added".
    :param hint: how to do it without being asked.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        render.problem(f"{otherwise}: this is not a terminal, so nobody can be asked.", hint)
        raise typer.Exit(Exit.USAGE)
    if typer.confirm(question):
        return True
    render.out(f"{otherwise}.")
    return False
