"""The short way into a service: no command line parser, nothing that is not needed for the first answer."""

from __future__ import annotations

import sys


def start(directory: str, *, workers: int | None = None, require: str = "", allow_weak: bool = False) -> int:
    """Serve the manifest in a directory until stdin ends; returns the exit code."""
    from servers.errors import ServersError
    from servers.host import service
    from servers.manifest import files
    from servers.sandbox import levels

    try:
        manifest = files.read(directory)
        level = levels.require(require or manifest.sandbox, allow_weak=allow_weak, found=levels.quick())
        service.serve(manifest, level, workers=workers)
    except ServersError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
