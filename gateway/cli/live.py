"""``status --watch``: the gateway as it goes, once a second, until q or Ctrl-C."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from gateway.admin.client import NotRunning
from gateway.cli import offline, render
from gateway.cli.shared import LAST_KNOWN, client
from gateway.cli.status import servers_head, servers_rows
from gateway.errors import GatewayError
from registry.errors import RegistryError

_EVERY: Final = 1.0
_END: Final = b"qQ\x03\x04"


def watch(state_dir: Path | None) -> None:
    """Show the state on the whole terminal until the person has seen enough.

    A gateway that goes away is waited for; what was last known of it stays in view.
    """
    from rich.console import Console
    from rich.live import Live

    with _keys() as ended, Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        try:
            while True:
                live.update(_view(state_dir), refresh=True)
                if ended(_EVERY):
                    return
        except KeyboardInterrupt:
            return


def _view(state_dir: Path | None) -> Any:
    from rich.console import Group
    from rich.text import Text

    seen, said = _seen(state_dir)
    rows = seen["servers"]
    parts: list[Any] = [Text(render.clean(line), overflow="ellipsis", no_wrap=True) for line in said]
    if seen["gateway"]:
        parts += [Text(render.clean(line), overflow="ellipsis") for line in servers_head(seen)]
    parts.append(Text())
    columns, cells, right = servers_rows(rows)
    if rows:
        parts.append(render.rich_table(columns, cells, right))
    for row in rows:
        text = " ".join(part for part in (row["error"], row["hint"]) if part)
        if text:
            parts += [Text(), Text(render.clean(f"{row['name']}: {text}"))]
    parts += [Text(), Text(f"{time.strftime('%H:%M:%S')}  q ends", style="dim")]
    return Group(*parts)


def _seen(state_dir: Path | None) -> tuple[dict[str, Any], list[str]]:
    """What there is to show, and what is to be said before it."""
    said: list[str] = []
    try:
        return client(state_dir).status(), said
    except NotRunning:
        said.append(LAST_KNOWN)
    except GatewayError as error:  # it is ending or starting this very moment
        said.append(error.message)
    try:
        return offline.status(state_dir), said
    except (GatewayError, RegistryError) as error:
        return {"gateway": None, "servers": [], "conflicts": []}, [*said, error.message]


@contextmanager
def _keys() -> Iterator[Any]:
    """Single keys instead of lines. Yields a function: wait so long; did the person ask for the end?"""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield _no_keys
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield lambda seconds: _pressed(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _no_keys(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _pressed(descriptor: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([descriptor], [], [], left)
        if ready:
            keys = os.read(descriptor, 64)
            if not keys or any(key in _END for key in keys):  # nothing: the terminal is gone
                return True
    return False
