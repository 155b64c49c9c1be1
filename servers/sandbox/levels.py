"""Which sandbox this machine can give, found by trying; what stays open at each level."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

from servers.errors import SandboxUnavailable
from servers.sandbox import kernel
from servers.sandbox.policy import Policy

ORDER: Final = ("L0", "L1", "L2", "L3")
NAMES: Final = {
    "L3": "bubblewrap, landlock, seccomp, limits",
    "L2": "landlock, seccomp, no new privileges, limits",
    "L1": "limits and a life-line only",
    "L0": "none",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What this machine gives.

    :ivar level: the highest level that works here.
    :ivar open: attacks that this level does not stop here, one sentence each.
    :ivar start_ms: what entering the sandbox adds to a start.
    """

    level: str
    landlock_abi: int
    seccomp: bool
    bubblewrap: str | None
    open: tuple[str, ...]
    start_ms: float

    def lines(self) -> list[str]:
        """For ``doctor`` and ``status``."""
        abi = f"landlock ABI {self.landlock_abi}" if self.landlock_abi else "no landlock"
        made = [
            f"sandbox {self.level}: {NAMES[self.level]} (starting it takes {self.start_ms:.0f} ms)",
            f"{abi}, {'seccomp' if self.seccomp else 'no seccomp'}, "
            f"{'bubblewrap ' + self.bubblewrap if self.bubblewrap else 'no bubblewrap'}",
        ]
        return made + [f"open: {each}" for each in self.open]


@functools.cache
def report() -> Report:
    """Try the levels from the top and say what works. Some 50 ms; cached."""
    abi = kernel.landlock_abi()
    wrapper = shutil.which("bwrap")
    level, took = "L0", 0.0
    for candidate in ("L3", "L2", "L1"):
        if candidate == "L3" and wrapper is None:
            continue
        took = _try(candidate)
        if took:
            level = candidate
            break
    return Report(
        level=level,
        landlock_abi=abi,
        seccomp=kernel.seccomp_architecture() is not None,
        bubblewrap=wrapper,
        open=tuple(_open(level, abi)),
        start_ms=took * 1000,
    )


def quick() -> str:
    """The level this machine gives, told without trying where that is certain: for a start that must be short.

    Where bubblewrap is installed, the last answer counts as long as nothing has changed that it rests on. A wrong
    one makes nothing weaker: a worker that cannot have its sandbox does not start.
    """
    wrapper = shutil.which("bwrap")
    if wrapper is None and kernel.landlock_abi() and kernel.seccomp_architecture():
        return "L2"
    file, ground = _remembered_in(), _ground(wrapper)
    try:
        known = json.loads(file.read_bytes())
        if known["ground"] == ground and known["level"] in ("L2", "L3"):
            return str(known["level"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    level = report().level
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = file.with_suffix(f".{os.getpid()}.new")
        fresh.write_text(json.dumps({"ground": ground, "level": level}))
        os.replace(fresh, file)
    return level


def _remembered_in() -> Path:
    return platformdirs.user_cache_path("toolyard", appauthor=False) / "sandbox.json"


def _ground(wrapper: str | None) -> list[str]:
    """What the level depends on: this boot, user, interpreter and bubblewrap, and the leave to make namespaces."""
    made = [str(os.getuid()), sys.executable, str(kernel.landlock_abi())]
    if wrapper is not None:
        status = os.stat(wrapper)
        made += [wrapper, str(status.st_mtime_ns), str(status.st_mode)]
    for name in ("random/boot_id", "unprivileged_userns_clone", "apparmor_restrict_unprivileged_userns"):
        with contextlib.suppress(OSError):
            made.append(Path("/proc/sys/kernel", name).read_text().strip())
    with contextlib.suppress(OSError):
        made.append(Path("/proc/sys/user/max_user_namespaces").read_text().strip())
    return made


def _try(level: str) -> float:
    """Seconds that a sandboxed ``true`` takes; 0 where the sandbox cannot be made."""
    program = shutil.which("true")
    if program is None or sys.platform == "win32":
        return 0.0
    start = time.perf_counter()
    try:
        done = subprocess.run(Policy(level).command([program]), capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0.0
    return time.perf_counter() - start if done.returncode == 0 else 0.0


def _open(level: str, abi: int) -> list[str]:
    if level == "L0":
        return ["everything: converted code is refused"]
    found = []
    if level == "L1":
        found.append(
            "files, network and other processes of this user: nothing keeps converted code from them"
        )
    if level == "L2" and abi < 6:
        found.append("signals to other processes of this user (this kernel's landlock does not scope them)")
    if level == "L2" and abi < 3:
        found.append("truncating files of this user (this kernel's landlock does not govern it)")
    if os.name == "posix" and os.getuid() == 0:
        found.append("fork bombs until the call's time is up: the process limit does not hold for root")
    return found


def require(wanted: str, *, allow_weak: bool = False, found: str | None = None) -> str:
    """The level to run converted code at.

    :param wanted: the least level that will do.
    :param allow_weak: whether L1 will do where no more is to be had.
    :param found: the level that this machine is known to give.
    :raises SandboxUnavailable: this machine gives less.
    """
    found = found or report().level
    if wanted not in NAMES:
        raise SandboxUnavailable(f"There is no sandbox level '{wanted}'.", "Choose L1, L2 or L3.")
    least = "L1" if allow_weak and ORDER.index(wanted) > 1 else wanted
    if ORDER.index(found) < max(1, ORDER.index(least)):
        raise SandboxUnavailable(
            f"Converted code needs sandbox {wanted}; this machine gives {found} ({NAMES[found]}).",
            "Use a Linux kernel with landlock (5.13 or later), or accept less with --allow-weak-sandbox.",
        )
    return found
