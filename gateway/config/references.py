"""References to the environment in a server's spec, and what they become."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Final, NoReturn

from gateway.config.entry import SCHEME
from gateway.errors import ConfigError
from registry.model import ServerSpec

_REFERENCE: Final = re.compile(r"\$\{([^}]*)\}")
_VARIABLE: Final = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_.()]*)(?::-(.*))?", re.DOTALL)


def resolve(spec: ServerSpec, environ: Mapping[str, str]) -> ServerSpec:
    """The spec with every reference to the environment replaced, ready to be started or reached.

    ``${VAR}`` and ``${env:VAR}`` (VS Code) need the variable; ``${VAR:-default}`` takes the default
    where it is unset or empty, as a shell does. Values are put in as they are, never read again.

    :raises ConfigError: a variable is missing, or a header or the url cannot be used once resolved.
        The message names server, field and variable, never a value.
    """

    def expand(text: str, field: str) -> str:
        def replace(match: re.Match[str]) -> str:
            variable = _VARIABLE.fullmatch(match[1])
            if variable is None:
                raise ConfigError(
                    f"Server {spec.name!r}: {field} holds the reference {match[0]}, which is not known here.",
                    "Use ${VAR}, ${VAR:-default} or ${env:VAR}.",
                    server=spec.name,
                )
            name, default = variable.groups()
            value = environ.get(name)
            if default is not None:
                return value or str(default)
            if value is None:
                raise ConfigError(
                    f"Server {spec.name!r}: {field} needs the environment variable {name}, which is not set.",
                    f"Set {name} where the gateway is started, or write ${{{name}:-default}}.",
                    server=spec.name,
                    variable=name,
                )
            return value

        return _REFERENCE.sub(replace, text)

    def each(values: Mapping[str, str], field: str) -> dict[str, str]:
        return {key: expand(value, f"{field}.{key}") for key, value in values.items()}

    resolved = dataclasses.replace(
        spec,
        command=None if spec.command is None else expand(spec.command, "command"),
        args=tuple(expand(arg, f"args[{index}]") for index, arg in enumerate(spec.args)),
        env=each(spec.env, "env"),
        cwd=None if spec.cwd is None else expand(spec.cwd, "cwd"),
        url=None if spec.url is None else expand(spec.url, "url"),
        headers=each(spec.headers, "headers"),
    )
    _check_resolved(resolved)
    return resolved


def _check_resolved(spec: ServerSpec) -> None:
    """What only shows once the values are in. Raises ConfigError."""

    def refuse(field: str, fault: str, hint: str) -> NoReturn:
        raise ConfigError(f"Server {spec.name!r}: {field} {fault}.", hint, server=spec.name)

    if spec.command is not None and not spec.command.strip():
        refuse("command", "is empty once its variables are filled in", "Set them to a program.")
    if spec.url is not None and (not SCHEME.match(spec.url) or _has_blank(spec.url)):
        refuse("url", "is not an http(s) address once its variables are filled in", "Check them.")
    for key, value in spec.headers.items():
        if any((ord(char) < 32 and char != "\t") or ord(char) == 127 for char in value):
            # A line break would let a value add headers of its own (RFC 9110, section 5.5).
            refuse(f"headers.{key}", "holds a line break or control character", "Check its variables.")


def _has_blank(text: str) -> bool:
    return any(char.isspace() or ord(char) < 32 for char in text)
