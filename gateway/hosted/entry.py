"""A converted service as a server entry: how it is written, what is started for it, and what is approved.

Its entry names a manifest, shipped or of one's own: ``{"manifest": "humanize"}`` in a servers file. Which program
runs, and with which environment, follows from the manifest; so an entry survives an upgrade of this package.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from gateway.config.references import resolve
from gateway.errors import UpstreamUnavailable
from gateway.policy.approval import approval_key
from registry.model import ServerSpec, Transport

if TYPE_CHECKING:
    from servers.manifest.records import Manifest

MANIFEST: Final = "manifest"
REQUIRE: Final = "requireSandbox"
WEAK: Final = "allowWeakSandbox"
LEVELS: Final = ("L1", "L2", "L3")
IDLE_SECONDS: Final = 900
"""Seconds without a call after which a service's processes end; the next call starts them again."""
_PASSED: Final = "TOOLYARD_ENVIRONMENTS_DIR"


class ManifestUnusable(UpstreamUnavailable):
    """The manifest of a converted service is gone, or is none."""

    kind = "manifest_unusable"
    retriable = False


def sandbox() -> dict[str, Any]:
    """What converted services run in on this machine. The first time it is tried: for a worker thread."""
    from servers.sandbox import levels

    report = levels.report()
    return {
        "level": report.level,
        "made_of": levels.NAMES[report.level],
        "start_ms": round(report.start_ms, 1),
        "open": list(report.open),
    }


def is_hosted(spec: ServerSpec) -> bool:
    """Whether an entry is of a converted service."""
    return MANIFEST in spec.extra


def from_manifest(
    name: str,
    manifest: str,
    *,
    require: str | None = None,
    allow_weak: bool = False,
    timeout: float | None = None,
    disabled: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> ServerSpec:
    """The spec of a converted service.

    :param manifest: a shipped service's name, or the absolute path of a folder with ``manifest.json``.
    :param require: the least sandbox level, where the manifest's own is not enough.
    :param allow_weak: whether level L1 will do where the machine gives no more.
    """
    own: dict[str, Any] = {MANIFEST: manifest}
    if require:
        own[REQUIRE] = require
    if allow_weak:
        own[WEAK] = True
    return ServerSpec(
        name=name,
        transport=Transport.STDIO,
        command="toolyard",
        args=("host", manifest, *_flags(require, allow_weak)),
        disabled=disabled,
        timeout=timeout,
        extra={"idleTimeout": IDLE_SECONDS, **(extra or {}), **own},
    )


def _flags(require: str | None, allow_weak: bool) -> tuple[str, ...]:
    flags = ("--require-sandbox", require) if require else ()
    return (*flags, "--allow-weak-sandbox") if allow_weak else flags


def place_of(spec: ServerSpec) -> str:
    """The folder, or the file, of the manifest that an entry names. Raises ManifestUnusable."""
    from servers.errors import ManifestError
    from servers.manifest import shipped

    try:
        return str(shipped.locate(str(spec.extra[MANIFEST])))
    except ManifestError as error:
        raise ManifestUnusable(error.message, error.hint, server=spec.name) from None


def manifest_of(spec: ServerSpec) -> Manifest:
    """Read the manifest an entry names: call it in a worker thread. Raises ManifestUnusable."""
    from servers.errors import ManifestError
    from servers.manifest import files

    try:
        return files.read(place_of(spec))
    except ManifestError as error:
        raise ManifestUnusable(error.message, error.hint, server=spec.name) from None


def launched(spec: ServerSpec) -> ServerSpec:
    """What is really started for a converted service: this very installation, on the manifest's folder.

    Reads the manifest: call it in a worker thread. Raises ManifestUnusable.
    """
    manifest, place = manifest_of(spec), place_of(spec)
    flags = _flags(spec.extra.get(REQUIRE), bool(spec.extra.get(WEAK)))
    env = {name: os.environ[name] for name in (_PASSED, *manifest.permissions.env) if name in os.environ}
    # -P: the folder that the gateway was started in is not where our own code is looked for.
    args = ("-P", "-m", "gateway", "host", place, *flags)
    return replace(spec, command=sys.executable, args=args, env=env)


def approval_of(spec: ServerSpec, environ: Mapping[str, str]) -> tuple[str, str]:
    """The key and the text of the approval that an entry needs, be it a command or a converted service.

    A converted service's covers what decides which code runs and what it may do: the lock of its environment,
    hashes and all, its source, what its tools call, its permissions, and the sandbox it is content with.

    :raises UpstreamUnavailable: there is nothing that could be approved.
    """
    if not is_hosted(spec):
        return approval_key(resolve(spec, environ), environ)
    manifest = manifest_of(spec)
    rights = manifest.permissions
    least, weak = str(spec.extra.get(REQUIRE) or manifest.sandbox), bool(spec.extra.get(WEAK))
    covered = {
        "version": 1,
        "lock": hashlib.sha256(manifest.environment.lock.encode()).hexdigest(),
        "source": [manifest.source.kind, manifest.source.digest, manifest.source.commit],
        "tools": sorted([tool.kind, tool.qualname, tool.line] for tool in manifest.tools),
        "preload": manifest.preload,
        "permissions": [rights.network, sorted(rights.read), sorted(rights.write), sorted(rights.env)],
        "sandbox": [least, weak],
    }
    key = hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()
    lines = [
        f"converted service {manifest.name}: {manifest.source.name} {manifest.source.version} ({manifest.source.spec})",
        f"environment: lock {manifest.environment.lock_hash[:16]}…",
        f"sandbox: {least} or higher" + ("; L1 accepted where there is no more" if weak else ""),
        f"network: {'yes' if rights.network else 'no'}",
    ]
    for what, names in (("reads", rights.read), ("writes", rights.write), ("variables", rights.env)):
        if names:
            lines.append(f"{what}: {', '.join(names)}")
    return key, "\n".join(lines)
