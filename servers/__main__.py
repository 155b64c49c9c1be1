"""``python -m servers convert|host|warm|document|sandbox``."""

from __future__ import annotations

import sys


def _run() -> int:
    arguments = sys.argv[1:]
    if arguments[:1] == ["host"] and not {"-h", "--help"} & set(arguments):
        # Without the command line's own imports: a service answers within a second of its start.
        from servers.host.start import main as host

        return host(arguments[1:])
    from servers.cli import main

    return main(arguments)


if __name__ == "__main__":
    sys.exit(_run())
