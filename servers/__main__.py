"""``python -m servers convert|host|warm|document|sandbox``."""

from __future__ import annotations

import sys


def _run() -> int:
    arguments = sys.argv[1:]
    if arguments[:1] == ["host"] and len(arguments) == 2 and not arguments[1].startswith("-"):
        # Without the command line's own imports: a service answers within a second of its start.
        from servers.host.start import start

        return start(arguments[1])
    from servers.cli import main

    return main(arguments)


if __name__ == "__main__":
    sys.exit(_run())
