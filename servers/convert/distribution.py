"""What an installed distribution says of itself: modules, extras, licence, README."""

from __future__ import annotations

import email.parser
import email.policy
import re
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from servers.errors import ConversionFailed

_NOT_OFFERED = {"tests", "test", "docs", "doc", "examples", "benchmarks", "scripts", "tools", "setup"}


@dataclass(frozen=True, slots=True)
class Distribution:
    """One distribution's metadata.

    :ivar packages: its top-level modules, the one that carries its name first.
    :ivar extras: extra -> requirements that it adds.
    """

    name: str
    version: str
    packages: tuple[str, ...]
    extras: dict[str, tuple[Requirement, ...]]
    summary: str
    licence: str
    homepage: str | None
    readme: str
    scripts: tuple[str, ...]


def read(site: Path, name: str) -> Distribution:
    """Read a distribution's metadata from an environment, without running any of its code.

    :raises ConversionFailed: it is not there, or has no module.
    """
    folder = _find(site, name)
    parser = email.parser.BytesParser(policy=email.policy.compat32)
    metadata = parser.parsebytes((folder / "METADATA").read_bytes())
    packages = _packages(folder, name)
    if not packages:
        raise ConversionFailed(
            f"'{name}' installs no importable module.", "Convert the project that holds its code."
        )
    payload = metadata.get_payload(decode=True)
    body = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
    return Distribution(
        name=str(metadata["Name"]),
        version=str(metadata["Version"]),
        packages=packages,
        extras=_extras(metadata.get_all("Requires-Dist") or [], metadata.get_all("Provides-Extra") or []),
        summary=str(metadata.get("Summary") or "").replace("\ufffd", "").strip(),
        licence=_licence(metadata),
        homepage=_homepage(metadata),
        readme=body or str(metadata.get("Description") or ""),
        scripts=_scripts(folder),
    )


def _find(site: Path, name: str) -> Path:
    wanted = canonicalize_name(name)
    for folder in site.glob("*.dist-info"):
        if canonicalize_name(folder.name.removesuffix(".dist-info").rsplit("-", 1)[0]) == wanted:
            return folder
    raise ConversionFailed(f"'{name}' is not in its own environment.", "Check the requirement's name.")


def _packages(folder: Path, name: str) -> tuple[str, ...]:
    found: dict[str, int] = {}
    record = folder / "RECORD"
    for line in record.read_text("utf-8", "replace").splitlines() if record.is_file() else ():
        path = line.rpartition(",")[0].rpartition(",")[0].strip('"')
        parts = path.split("/")
        if parts[0] in ("..", "") or parts[0].endswith((".dist-info", ".data")):
            continue
        if len(parts) == 1:
            match = re.fullmatch(r"(\w+)(\.[\w-]+)?\.(py|so|pyd)", parts[0])
            if match:
                found[match.group(1)] = found.get(match.group(1), 0) + 1
        elif path.endswith((".py", ".so", ".pyd")) and parts[0].isidentifier():
            found[parts[0]] = found.get(parts[0], 0) + 1
    wanted = canonicalize_name(name).replace("-", "_")
    kept = [
        each
        for each in found
        if each.lower() == wanted or (each.lower() not in _NOT_OFFERED and each[0] != "_")
    ]
    kept = kept or list(found)

    def rank(each: str) -> tuple[bool, bool, int]:
        lowered = each.lower()
        return lowered != wanted, lowered not in wanted and wanted not in lowered, -found[each]

    return tuple(sorted(kept, key=rank)[:6])


def _extras(requires: list[str], provided: list[str]) -> dict[str, tuple[Requirement, ...]]:
    parsed = []
    for each in requires:
        try:
            parsed.append(Requirement(each))
        except InvalidRequirement:
            continue  # a line that no installer can read, either
    found: dict[str, tuple[Requirement, ...]] = {}
    for extra in provided:
        found[extra] = tuple(
            requirement
            for requirement in parsed
            if requirement.marker is not None
            and requirement.marker.evaluate({"extra": extra})
            and not requirement.marker.evaluate({"extra": ""})
        )
    return found


def _licence(metadata: object) -> str:
    get = metadata.get  # type: ignore[attr-defined]
    for key in ("License-Expression", "License"):
        text = str(get(key) or "").strip()
        if text and text.upper() != "UNKNOWN" and len(text) <= 100 and "\n" not in text:
            return text
    classifiers = metadata.get_all("Classifier") or []  # type: ignore[attr-defined]
    for line in classifiers:
        if str(line).startswith("License ::"):
            return str(line).rpartition("::")[2].strip()
    return ""


def _homepage(metadata: object) -> str | None:
    found = metadata.get("Home-page")  # type: ignore[attr-defined]
    if found and str(found).startswith("http"):
        return str(found)
    for line in metadata.get_all("Project-URL") or []:  # type: ignore[attr-defined]
        label, _, url = str(line).partition(",")
        if label.strip().lower() in ("homepage", "repository", "source", "source code", "github", "code"):
            return url.strip()
    return None


def _scripts(folder: Path) -> tuple[str, ...]:
    found = []
    points = folder / "entry_points.txt"
    section = ""
    for line in points.read_text("utf-8", "replace").splitlines() if points.is_file() else ():
        line = line.strip()
        if line.startswith("["):
            section = line.strip("[]")
        elif section == "console_scripts" and "=" in line:
            found.append(line.partition("=")[0].strip())
    return tuple(found)
