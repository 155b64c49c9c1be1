"""What a person is told after a conversion, and whether there is anything to do at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from servers.convert import environment
from servers.errors import ServersError
from servers.manifest.records import Manifest
from servers.version import VERSION


def unchanged(
    before: Manifest, spec: str, extras: tuple[str, ...], digest_of: Callable[[str], str | None]
) -> bool:
    """Whether converting again could only make the same manifest: same converter, same source, same lock."""
    asked = {each.requirement for each in before.environment.repairs if each.rule == "asked"}
    if (
        before.converter != VERSION
        or asked != set(extras)
        or not environment.is_built(before.environment.lock_hash)
    ):
        return False
    if before.environment.python != environment.python_version():
        return False
    try:
        digest = digest_of(spec)
    except (OSError, ServersError):
        return False
    if digest is not None:
        return digest == before.source.digest
    return spec == before.source.spec


def summary(manifest: Manifest, seconds: float) -> str:
    """Tools kept, hidden and dropped, and why."""
    shown = manifest.exposed()
    outcomes = Counter(tool.review.outcome if tool.review else "not tried" for tool in shown)
    lines = [
        f"{manifest.name}: {manifest.source.name} {manifest.source.version}, "
        f"{manifest.licence or 'no licence named'}, {seconds:.1f} s",
        f"  {manifest.found} callables found: {len(shown)} shown "
        f"({', '.join(f'{count} {name}' for name, count in outcomes.most_common())}), "
        f"{len(manifest.tools) - len(shown)} hidden, {len(manifest.dropped)} dropped",
    ]
    lines += [
        f"  environment: added {each.requirement}: {each.evidence}" for each in manifest.environment.repairs
    ]
    reasons = Counter(each.reason for each in manifest.dropped)
    lines += [f"  dropped {count}: {reason}" for reason, count in reasons.most_common(5)]
    fixed = [tool.name for tool in shown if tool.review and tool.review.varies is False]
    if fixed:
        lines.append(f"  the same answer for different inputs: {', '.join(fixed[:10])}")
    unsteady = [tool.name for tool in shown if tool.review and not tool.review.deterministic]
    if unsteady:
        lines.append(f"  not the same answer twice: {', '.join(unsteady[:10])}")
    return "\n".join(lines)


def difference(before: Manifest, after: Manifest) -> str:
    """What changed between two manifests of one service."""
    old, new = {tool.qualname: tool for tool in before.tools}, {tool.qualname: tool for tool in after.tools}
    lines = []
    if before.source.version != after.source.version:
        lines.append(f"version {before.source.version} -> {after.source.version}")
    if before.environment.lock_hash != after.environment.lock_hash:
        gone = set(_pins(before)) - set(_pins(after))
        come = set(_pins(after)) - set(_pins(before))
        moved = f"{', '.join(sorted(gone)) or 'nothing'} -> {', '.join(sorted(come)) or 'nothing'}"
        lines.append(f"lock: {moved}" if gone or come else "lock: the same versions, other files")
    lines += [f"+ {name}" for name in sorted(new.keys() - old.keys())[:50]]
    lines += [f"- {name}" for name in sorted(old.keys() - new.keys())[:50]]
    lines += [
        f"~ {name}: its parameters changed"
        for name in sorted(new.keys() & old.keys())
        if new[name].input_schema != old[name].input_schema
    ][:50]
    return "\n".join(lines) or "nothing changed"


def _pins(manifest: Manifest) -> list[str]:
    return [
        line.split(" ")[0].rstrip("\\ ")
        for line in manifest.environment.lock.splitlines()
        if line[:1].isalnum()
    ]
