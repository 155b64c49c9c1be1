"""``toolyard stdio``: the way in for assistants that launch a server as a child process.

Everything here is on the way to the first answer, so flags are read by hand and imports are few.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

HELP: Final = """\
Usage: toolyard stdio [FLAGS]

Speak MCP on stdin and stdout, for assistants that launch a server as a child process.

Connects to the gateway of this state directory, or starts one in the background that
ends itself five minutes after its last client. The first lists come from the last known
catalog, so that an assistant never waits for a server to start.

  --config FILE       the mcpServers JSON of a gateway that has to be started
  --host HOST         where that gateway listens
  --port PORT
  --token TOKEN       its bearer token
  --no-auth           or none (loopback only)
  --names POLICY      prefix, on-collision or priority
  --log-level LEVEL
  --state-dir DIR     which gateway: one per state directory
  --toolset NAME      the tools of this toolset alone
  --standalone        a gateway within this process alone, sharing nothing
  --help              show this
"""

_VALUED: Final = {"config", "host", "port", "token", "names", "log-level", "state-dir", "toolset"}
_PATHS: Final = {"config", "state-dir"}
_TOOLSET: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
"""Characters of a toolset's name: it is part of a file's."""
_USAGE: Final = 2


class UsageError(Exception):
    """A flag that is none, or that lacks its value."""


@dataclass(frozen=True, slots=True)
class Flags:
    """What stood behind ``toolyard stdio``, by the flag's name without dashes; paths are absolute."""

    values: dict[str, str] = field(default_factory=dict)
    no_auth: bool = False
    standalone: bool = False
    help: bool = False

    @classmethod
    def read(cls, arguments: Sequence[str]) -> Flags:
        """Read the flags. Raises UsageError."""
        values: dict[str, str] = {}
        switches = {"no-auth": False, "standalone": False, "help": False}
        rest = iter(arguments)
        for argument in rest:
            name, equals, value = argument.removeprefix("--").partition("=")
            if argument == "-h":
                name = "help"
            elif not argument.startswith("--"):
                raise UsageError(f"Unexpected argument {argument!r}.")
            if name in switches and not equals:
                switches[name] = True
            elif name in _VALUED:
                given = value if equals else next(rest, None)
                if given is None:
                    raise UsageError(f"--{name} needs a value.")
                values[name] = os.path.abspath(os.path.expanduser(given)) if name in _PATHS else given
            else:
                raise UsageError(f"No such flag: {argument}.")
        if "toolset" in values and not _TOOLSET.issuperset(values["toolset"]):
            raise UsageError(f"{values['toolset']!r} is no name of a toolset.")
        if "port" in values and not values["port"].isdecimal():
            raise UsageError(f"--port must be a number, not {values['port']!r}.")
        return cls(values, switches["no-auth"], switches["standalone"], switches["help"])

    def for_serve(self) -> list[str]:
        """The flags of ``toolyard serve`` that mean the same, without the state directory."""
        flags = ["--no-auth"] if self.no_auth else []
        for name, value in self.values.items():
            if name not in ("state-dir", "toolset"):
                flags += [f"--{name}", value]
        return flags


def main(arguments: Sequence[str]) -> int:
    """Run ``toolyard stdio`` with the arguments behind these two words. Returns the exit code."""
    try:
        flags = Flags.read(arguments)
    except UsageError as error:
        sys.stderr.write(f"toolyard stdio: {error} See `toolyard stdio --help`.\n")
        return _USAGE
    if flags.help:
        sys.stdout.write(HELP)
        return 0
    if sys.platform == "win32" and not flags.standalone:
        sys.stderr.write("toolyard: sharing one gateway needs Unix sockets; running one of our own.\n")
        return _standalone(flags)
    if flags.standalone:
        return _standalone(flags)
    return _relay(flags)


def _relay(flags: Flags) -> int:
    import signal

    from gateway.face.link import Starter
    from gateway.face.relay import Face
    from gateway.paths import StateDir

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    state = StateDir.at(flags.values.get("state-dir"))
    Face(state, Starter(state, flags.for_serve()), toolset=flags.values.get("toolset")).run()
    return 0


def _standalone(flags: Flags) -> int:
    from pathlib import Path

    from gateway.config.options import ServeOptions
    from gateway.serve import run_standalone

    values = flags.values
    return run_standalone(
        ServeOptions(
            config=Path(values["config"]) if "config" in values else None,
            host=values.get("host"),
            port=int(values["port"]) if "port" in values else None,
            token=values.get("token"),
            no_auth=flags.no_auth,
            names=values.get("names"),
            state_dir=Path(values["state-dir"]) if "state-dir" in values else None,
            log_level=values.get("log-level"),
            toolset=values.get("toolset"),
        )
    )
