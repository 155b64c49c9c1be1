"""server.json -> the ways to have that server here, as entries of ours. Nothing is run or fetched.

The publisher is not trusted. What they write is put into the entry word for word or the way is refused:
a ``${…}`` of theirs would be filled from our own environment, an identifier that is no package's name
could be a file or an option to the program that fetches packages. What a person has to provide becomes
a reference to a variable of the gateway's environment, so that no secret is kept here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from registry.errors import BadServerJson
from registry.model import ServerSpec
from registry.model import Transport as Kind
from registry.official.model import Argument, Input, KeyValueInput, Package, ServerJson, Transport

_VARIABLE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2: token
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_!-]*")
_IDENTIFIER: Final[Mapping[str, re.Pattern[str]]] = {
    "npm": re.compile(r"(@[a-zA-Z0-9~][a-zA-Z0-9._~-]*/)?[a-zA-Z0-9~][a-zA-Z0-9._~-]*"),
    "pypi": re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"),
    "nuget": re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?"),
    "oci": re.compile(
        r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
        r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[a-f0-9]{64})?"
    ),
}
_RUNNERS: Final[Mapping[str, tuple[str, ...]]] = {
    "npm": ("npx", "bunx"),
    "pypi": ("uvx",),
    "nuget": ("dnx",),
    "oci": ("docker", "podman"),
}
"""The programs that run a package of each kind; the first where the publisher names none of them."""
_INDEX: Final[Mapping[str, str]] = {"npm": "--registry", "pypi": "--default-index", "nuget": "--source"}
_INDEX_PATH: Final[Mapping[str, str]] = {"npm": "", "pypi": "/simple", "nuget": "/v3/index.json", "oci": ""}
"""Where the index of packages is below the address of a registry (of PyPI's kind: PEP 503)."""
_LOADERS: Final = re.compile(
    r"PATH|LD_.*|DYLD_.*|PYTHON(PATH|STARTUP|HOME)|NODE_(OPTIONS|PATH)|BASH_ENV|ENV|PERL5.*|RUBY(OPT|LIB)|"
    r"(HTTPS?|ALL)_PROXY|(NPM|UV|PIP)_.*|DOTNET_STARTUP_HOOKS|GIT_.*",
    re.IGNORECASE,
)
"""Variables that decide what a program loads, or from where."""
_REACHING: Final = re.compile(
    r"--privileged|-v|--volume|--mount|--device|--cap-add|--security-opt|--(net|network|pid|ipc|userns|uts)"
)
"""Options by which a container reaches out of itself."""


@dataclass(frozen=True, slots=True)
class Need:
    """A value that a person has to provide before the server can work.

    :param variable: the variable of the gateway's environment that it is read from.
    :param name: what the publisher calls it.
    """

    variable: str
    name: str
    description: str | None = None
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """One way to have a server.

    :param kind: ``npm``, ``pypi``, ``nuget``, ``oci`` or ``remote``.
    :param optional: names of values that may be given (`ways`' ``given``) and were not.
    :param cautions: what a person should know before they approve, a sentence each.
    """

    kind: str
    spec: ServerSpec
    needs: tuple[Need, ...] = ()
    optional: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ways:
    """Every way to have a server, as published: packages, then remotes; and why others cannot be had."""

    usable: tuple[Way, ...]
    refused: tuple[str, ...]


class _Refused(Exception):
    """This way cannot be gone; the message says why."""


def ways(
    server: ServerJson,
    name: str,
    given: Mapping[str, str] | None = None,
    *,
    extra: Mapping[str, Any] | None = None,
) -> Ways:
    """The ways to have a server under a name of ours.

    :param given: values of a person's own, by the publisher's name: of a variable, header, argument or
        ``{placeholder}``.
    :param extra: goes into each spec's ``extra``.
    :raises BadServerJson: a value is given that the server has no use for, or that it does not allow.
    """
    usable: list[Way] = []
    refused: list[str] = []
    used: set[str] = set()
    mine = dict(given or {})
    for package in server.packages or ():
        values = _Values(name, mine)
        try:
            usable.append(_package(package, name, values, dict(extra or {})))
        except _Refused as why:
            refused.append(f"{package.registry_type[:20]} package {package.identifier[:120]!a}: {why}")
        used |= values.used
    for remote in server.remotes or ():
        values = _Values(name, mine)
        try:
            usable.append(_remote(remote, name, values, dict(extra or {})))
        except _Refused as why:
            refused.append(f"remote {(remote.url or '')[:120]!a}: {why}")
        used |= values.used
    if unknown := sorted(mine.keys() - used):
        raise BadServerJson(
            f"{server.name} has no use for {', '.join(unknown)}.", "--show lists what can be given."
        )
    return Ways(tuple(usable), tuple(refused))


# values -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Values:
    """Fills in the inputs of one way, and notes what is missing."""

    server: str
    given: Mapping[str, str]
    used: set[str] = field(default_factory=set)
    needs: dict[str, Need] = field(default_factory=dict)
    optional: list[str] = field(default_factory=list)

    def text(
        self, wanted: Input, name: str, variables: Mapping[str, Input] | None, variable: str
    ) -> str | None:
        """The value of an input; None where it is optional and nobody gave one.

        :param variable: of the gateway's environment, where a person has to provide the value.
        """
        if wanted.value is None:
            return self._one(wanted, name, variable)
        return self.template(wanted.value, variables)

    def template(self, text: str, variables: Mapping[str, Input] | None) -> str | None:
        """A text with ``{name}`` filled in; None where an optional one of them is missing."""
        _plain(text)
        known, missing = variables or {}, False
        ours: list[str] = []

        def replace(match: re.Match[str]) -> str:
            nonlocal missing
            name = match[1]
            if name not in known:
                return match[0]  # the schema: it "should remain unchanged"
            one = known[name]
            if one.value is not None:
                return _plain(one.value)
            value = self._one(one, name, _variable(self.server, name))
            if value is None:
                missing = True
                return ""
            if one.default is not None and name not in self.given:
                return value
            ours.append(value)
            return "\0"

        filled = _VARIABLE.sub(replace, text)
        if re.search(r"\$[{\0]", filled):  # the publisher's pieces together, or with one of ours
            raise _Refused("it makes up a ${…}, which would be filled from the gateway's own environment")
        pieces = iter(ours)
        return None if missing else re.sub("\0", lambda _: next(pieces), filled)

    def _one(self, wanted: Input, name: str, variable: str) -> str | None:
        if name in self.given:
            self.used.add(name)
            value = self.given[name]
            if wanted.choices and value not in wanted.choices:
                raise BadServerJson(f"{name} must be one of {', '.join(wanted.choices)}.")
            return value
        if wanted.default is not None:
            self.optional.append(name)
            return _plain(wanted.default)
        if wanted.is_required:
            need = Need(variable, name, _told(wanted), bool(wanted.is_secret))
            self.needs.setdefault(variable, need)
            return f"${{{variable}}}"
        self.optional.append(name)
        return None

    def pairs(self, inputs: Iterable[KeyValueInput], valid: re.Pattern[str], *, own: bool) -> dict[str, str]:
        """Variables or headers by name.

        :param own: a missing one is read from the variable of its own name.
        """
        found: dict[str, str] = {}
        for one in inputs:
            if not valid.fullmatch(one.name):
                raise _Refused(f"it has a variable or header named {one.name[:80]!a}")
            variable = one.name if own else _variable(self.server, one.name)
            value = self.text(one, one.name, one.variables, variable)
            if value is not None:
                found[one.name] = value
        return found

    def arguments(self, given: Iterable[Argument]) -> list[str]:
        """A command's arguments. A named one is ``--flag=value`` (schema: ``NamedArgument``), ``-f value`` if short."""
        argv: list[str] = []
        for one in given:
            named = one.type == "named"
            if one.type not in ("named", "positional") or (named and not one.name):
                raise _Refused("it has an argument that is neither positional nor named")
            label = one.name if named else one.value_hint
            name = (label or "argument").lstrip("-") or "argument"
            flag = _plain(one.name) if named and one.name else None
            if flag is not None and _switch(one):
                argv.append(flag)
                continue
            value = self.text(one, name, one.variables, _variable(self.server, name))
            if value is None:
                continue
            if flag is None:
                argv.append(value)
            elif flag.startswith("--"):
                argv.append(f"{flag}={value}")
            else:
                argv += [flag, value]
        return argv


def _switch(one: Argument) -> bool:
    """Whether a named argument is a flag without a value. The schema cannot say so: nothing about it speaks of one."""
    if one.value is not None:
        return one.value == ""
    if one.default is not None or one.choices or one.placeholder or one.value_hint or one.is_secret:
        return False
    if one.format == "boolean":
        return bool(one.is_required)
    return one.format is None and not one.description and one.is_required is not False


def _told(wanted: Input) -> str | None:
    parts = [wanted.description or ""]
    if wanted.choices:
        parts.append(f"(one of {', '.join(wanted.choices[:20])})")
    return " ".join(part for part in parts if part)[:300] or None


def _variable(server: str, name: str) -> str:
    """A variable that only this server's entry reads: a publisher cannot name one that holds another's secret."""
    return "MCP_" + re.sub(r"[^A-Z0-9]+", "_", f"{server}_{name}".upper()).strip("_")


def _plain(text: str) -> str:
    """A publisher's text as it is. Raises _Refused for what would not stay as it is."""
    if "${" in text:
        raise _Refused("it holds a ${…}, which would be filled from the gateway's own environment")
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text):
        raise _Refused("it holds a control character")
    return text


# packages -----------------------------------------------------------------------------------------


def _package(package: Package, name: str, values: _Values, extra: dict[str, Any]) -> Way:
    kind = package.registry_type
    if kind == "mcpb":
        raise _Refused(
            "a bundle has to be unpacked before it is run; unpack it, and `toolyard add` its command"
        )
    if kind not in _RUNNERS:
        raise _Refused("packages of this kind are not known here")
    if package.transport.type != "stdio":
        raise _Refused("it would serve HTTP once it is started; only servers on stdio are started here")
    identifier, version = package.identifier, package.version
    if not _IDENTIFIER[kind].fullmatch(identifier) or len(identifier) > 300:
        raise _Refused("that is no name of such a package")
    if version is not None and (not _VERSION.fullmatch(version) or version == "latest"):
        raise _Refused(f"the version {version[:80]!a} is none that can be asked for")
    runner = _runner(kind, package)
    before = values.arguments(package.runtime_arguments or ())
    after = values.arguments(package.package_arguments or ())
    env = values.pairs(package.environment_variables or (), _ENV_NAME, own=True)
    base = (package.registry_base_url or "").rstrip("/")
    if base and not re.fullmatch(r"https://[A-Za-z0-9][^\s\"'$]*", base):
        raise _Refused("its registryBaseUrl is no https address")
    # Said on the command line, whatever the runner's own registry is: a name may mean another package there.
    index = base if "/" in base.removeprefix("https://") else base + _INDEX_PATH[kind]
    argv = _argv(kind, identifier, version, before, after, env, index if base else None)
    spec = ServerSpec(name, Kind.STDIO, runner, tuple(argv), env=env, extra=extra)
    cautions = _cautions(kind, package, before, env)
    return Way(kind, spec, tuple(values.needs.values()), tuple(dict.fromkeys(values.optional)), cautions)


def _runner(kind: str, package: Package) -> str:
    hint = package.runtime_hint
    if hint in _RUNNERS[kind]:
        return hint
    if hint and package.runtime_arguments:
        raise _Refused(f"it wants to be run by {hint[:80]!a}; known here: {', '.join(_RUNNERS[kind])}")
    return _RUNNERS[kind][0]


def _argv(
    kind: str,
    identifier: str,
    version: str | None,
    before: list[str],
    after: list[str],
    env: Mapping[str, str],
    index: str | None,
) -> list[str]:
    """What the runner is given. Environment values stay in the environment, out of the command line."""
    if kind == "oci":
        tagged = "@" in identifier or ":" in identifier.rpartition("/")[2]
        host = (
            f"{index.removeprefix('https://')}/" if index and "." not in identifier.partition("/")[0] else ""
        )
        image = f"{host}{identifier}" + (f":{version}" if version and not tagged else "")
        before = before[1:] if before[:1] == ["run"] else before
        names = [part for variable in env for part in ("-e", variable)]
        standard = [flag for flag in ("-i", "--rm") if flag not in before]
        return ["run", *standard, *names, *before, image, *after]
    source = [f"{_INDEX[kind]}={index}"] if index else []
    package = identifier if version is None else f"{identifier}@{version}"
    if kind == "npm":
        return [*(() if "-y" in before or "--yes" in before else ("-y",)), *source, *before, package, *after]
    if kind == "nuget":
        yes = () if "--yes" in before else ("--yes",)
        return [package, *yes, *source, *before, *(("--", *after) if after else ())]
    return [*source, *before, package, *after]


def _cautions(kind: str, package: Package, before: Iterable[str], env: Mapping[str, str]) -> tuple[str, ...]:
    found = []
    pinned = package.version or (kind == "oci" and "@sha256:" in package.identifier)
    if not pinned and not (kind == "oci" and ":" in package.identifier.rpartition("/")[2]):
        found.append("No version is pinned: what it runs changes whenever the publisher says so.")
    if package.registry_base_url:
        found.append(f"The package comes from {package.registry_base_url[:200]}.")
    if kind == "oci" and any(_REACHING.match(part) for part in before):
        found.append("The container is given access to this machine: look at its options.")
    if kind != "oci" and any(part for part in before):
        found.append("The publisher gives options to the program that fetches the package.")
    if loaders := [name for name in env if _LOADERS.fullmatch(name)]:
        found.append(f"It sets {', '.join(loaders)}, which decide what is loaded.")
    return tuple(found)


# remotes ------------------------------------------------------------------------------------------


def _remote(remote: Transport, name: str, values: _Values, extra: dict[str, Any]) -> Way:
    kinds = {"streamable-http": Kind.HTTP, "sse": Kind.SSE}
    if remote.type not in kinds or remote.url is None:
        raise _Refused("it is neither streamable-http nor sse with an address")
    url = values.template(remote.url, remote.variables)
    if url is None or not re.match(r"(https?://[^/\s]|\$\{)", url, re.IGNORECASE) or re.search(r"\s", url):
        raise _Refused("its address is not one, or lacks a value that is not required")
    headers = values.pairs(remote.headers or (), _HEADER, own=False)
    cautions = []
    if url.lower().startswith("http://"):
        cautions.append("The address is not encrypted: whoever is on the way reads and changes everything.")
    spec = ServerSpec(name, kinds[remote.type], url=url, headers=headers, disabled=True, extra=extra)
    return Way(
        "remote", spec, tuple(values.needs.values()), tuple(dict.fromkeys(values.optional)), tuple(cautions)
    )
