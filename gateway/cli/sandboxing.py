"""What ``toolyard doctor`` looks at for the sake of converted services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.cli.checks import Check
from gateway.errors import GatewayError
from gateway.hosted.entry import REQUIRE, WEAK, is_hosted, manifest_of, sandbox
from registry.model import ServerSpec

_ORDER = ("L0", "L1", "L2", "L3")


def checks(specs: Iterable[ServerSpec]) -> Iterator[Check]:
    """The sandbox of this machine, the attacks it leaves open, and services that need a higher one."""
    found = sandbox()
    level, hosted = found["level"], [spec for spec in specs if is_hosted(spec) and not spec.disabled]
    text = f"{level}: {found['made_of']}; entering it takes {found['start_ms']:.0f} ms"
    if level in ("L2", "L3"):
        yield Check("sandbox", "ok", text)
    else:
        weak = [spec.name for spec in hosted if spec.extra.get(WEAK)]
        yield Check(
            "sandbox",
            "warn" if hosted else "ok",
            text + (f"; {', '.join(weak)} may run in it all the same" if weak else ""),
            "Converted code needs L2: a Linux kernel with landlock (5.13 or later). "
            "`toolyard use NAME --allow-weak-sandbox` accepts L1 for one service.",
        )
    for attack in found["open"]:
        yield Check("sandbox", "warn" if hosted else "ok", f"open: {attack}", _mend(attack) if hosted else "")
    for spec in hosted:
        try:
            least = str(spec.extra.get(REQUIRE) or manifest_of(spec).sandbox)
        except GatewayError as error:
            yield Check("sandbox", "fail", f"{spec.name}: {error.message}", error.hint or "")
            continue
        if _ORDER.index(least) > _ORDER.index(level) and not spec.extra.get(WEAK):
            yield Check(
                "sandbox",
                "fail",
                f"{spec.name} needs sandbox {least}; this machine gives {level}",
                f"toolyard remove {spec.name}, or use it again with --allow-weak-sandbox.",
            )


def _mend(attack: str) -> str:
    if "root" in attack:
        return "Run the gateway as an ordinary user."
    return "A newer kernel governs it, or bubblewrap, once installed."
