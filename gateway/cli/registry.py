"""``toolyard registry``: every tool that is known, what was approved of it, and how it did."""

from __future__ import annotations

from typing import Final

import typer

from gateway.cli import registry_decide, registry_keep, registry_show

app: Final = typer.Typer(
    name="registry",
    help="Every tool that is known: its versions, its approval, its statistics.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _module in (registry_show, registry_decide, registry_keep):
    _module.add_to(app)


def add_to(root: typer.Typer) -> None:
    """Add the group to the command line."""
    root.add_typer(app, name="registry")
