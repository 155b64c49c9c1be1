"""``keys list``, ``keys rotate`` and ``keys retire``: what seals session ids and handles."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gateway.cli import render
from gateway.cli.shared import JsonFlag, StateFlag, client, verb

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", hidden=True)]


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file, under ``keys``."""
    group = typer.Typer(
        name="keys",
        help="The keys that seal session ids and handles: list, rotate, retire.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    verb(group, "", list_keys, name="list")
    verb(group, "", rotate)
    verb(group, "KEY", retire)
    app.add_typer(group)


def list_keys(json_: JsonFlag = False, state_dir: StateFlag = None) -> None:
    """List the keys, newest first. The newest one seals; the others open what they sealed."""
    _show(client(state_dir).keys(), as_json=json_)


def rotate(json_: JsonFlag = False, state_dir: StateFlag = None) -> None:
    """Make a new key, which seals from now on.

    Clients notice nothing: what older keys sealed opens until it expires, within 30 days.
    """
    _show(client(state_dir).rotate_keys(), as_json=json_)


def retire(key: KeyArgument, json_: JsonFlag = False, state_dir: StateFlag = None) -> None:
    """Remove the key KEY at once, for instance because somebody has read it.

    Sessions that it sealed are ended: their clients have to initialize again.
    """
    _show(client(state_dir).retire_key(key), as_json=json_)


def _show(keys: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        render.as_json({"keys": keys})
        return
    rows = [[key["id"], "seals" if key["seals"] else "opens", render.ago(key["created_at"])] for key in keys]
    render.table(["key", "use", "made"], rows)
