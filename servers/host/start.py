"""The short way into a service: a small command line, nothing that is not needed for the first answer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """``host DIR [--workers N] [--require-sandbox L] [--allow-weak-sandbox]``; returns the exit code.

    The help page is the command line's own (`servers.cli`), which knows the same flags.
    """
    parser = argparse.ArgumentParser(prog="toolyard host", add_help=False, allow_abbrev=False)
    parser.add_argument("directory")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--require-sandbox", default="")
    parser.add_argument("--allow-weak-sandbox", action="store_true")
    try:
        given = parser.parse_args(arguments)
    except SystemExit as end:  # argparse has said what is wrong
        return int(end.code or 0)
    return start(
        given.directory,
        workers=given.workers,
        require=given.require_sandbox,
        allow_weak=given.allow_weak_sandbox,
    )


def start(directory: str, *, workers: int | None = None, require: str = "", allow_weak: bool = False) -> int:
    """Serve a manifest, shipped or in a directory, until stdin ends; returns the exit code."""
    from servers.errors import ServersError
    from servers.host import service
    from servers.manifest import files, shipped
    from servers.sandbox import levels

    try:
        manifest = files.read(shipped.locate(directory))
        level = levels.require(require or manifest.sandbox, allow_weak=allow_weak, found=levels.quick())
        service.serve(manifest, level, workers=workers)
    except ServersError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
