"""The ``toolyard`` command."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line in ``sys.argv`` and return its exit code.

    ``toolyard stdio`` and ``toolyard host`` go their own ways: what the other verbs need to import
    would cost them the time in which an assistant expects the first answer.
    """
    arguments = sys.argv[1:]
    if arguments[:1] == ["stdio"]:
        from gateway.stdio import main as stdio

        return stdio(arguments[1:])
    if arguments[:1] == ["host"] and not {"-h", "--help"} & set(arguments):
        from servers.host.start import main as host

        return host(arguments[1:])
    from gateway.cli.app import main as cli

    return cli(arguments)


if __name__ == "__main__":
    sys.exit(main())
