"""What a sandboxed command may do, and the command line that makes it so."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LAUNCH: Final = str(Path(__file__).with_name("launch.py"))
_SYSTEM: Final = (
    "/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/opt",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone",
    "/etc/mime.types", "/etc/alternatives", "/etc/ssl", "/etc/ca-certificates", "/etc/nsswitch.conf",
    "/etc/passwd", "/etc/group", "/etc/locale.alias", "/etc/os-release", "/etc/magic",
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/sys/vm", "/proc/sys/kernel",
    "/sys/devices/system/cpu", "/dev/urandom", "/dev/random", "/dev/zero", "/run/systemd/resolve",
)  # fmt: skip
_NETWORK: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/services")


@dataclass(frozen=True, slots=True)
class Policy:
    """What one command may do.

    :ivar read: paths it may read and execute, beyond the system's own.
    :ivar write: directories that are wholly its own.
    """

    level: str
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: bool = False
    memory_mb: int = 4096
    processes: int = 64
    file_mb: int = 256

    def command(self, argv: Sequence[str]) -> list[str]:
        """The argument list that runs ``argv`` in this sandbox."""
        read = [*_SYSTEM, *self.read, *interpreter_paths()]
        if self.network:
            read += _NETWORK
        inner = {
            "level": "L1" if self.level == "L1" else "L2",
            "read": [os.path.realpath(path) for path in read] + read,
            "write": [*(os.path.realpath(path) for path in self.write), "/dev/null", "/dev/shm"],
            "network": self.network,
            "memory_mb": self.memory_mb,
            "processes": self.processes,
            "file_mb": self.file_mb,
            # bubblewrap is the first process of its own namespace, and ends with its parent by itself
            "parent": 1 if self.level == "L3" else os.getpid(),
        }
        launched = [sys.executable, "-I", "-S", _LAUNCH, json.dumps(inner), *argv]
        return _bubble(self, read, launched) if self.level == "L3" else launched


def interpreter_paths() -> tuple[str, ...]:
    """Where our own Python lives: environments are made from it."""
    real = os.path.realpath(sys.executable)
    return (
        sys.prefix,
        sys.base_prefix,
        os.path.dirname(os.path.dirname(real)),
        str(Path(__file__).parents[1]),
    )


def _bubble(policy: Policy, read: Sequence[str], argv: Sequence[str]) -> list[str]:
    """bubblewrap around the launcher: only the allowed paths exist, own namespaces, no capabilities."""
    program = shutil.which("bwrap") or "bwrap"
    made = [program, "--die-with-parent", "--unshare-all", "--cap-drop", "ALL"]
    made += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    if policy.network:
        made.append("--share-net")
    for path in dict.fromkeys(path for path in read if not path.startswith(("/proc", "/dev", "/sys"))):
        made += ["--ro-bind-try", path, path]
    for path in policy.write:
        made += ["--bind", path, path]
    return [*made, "--", *argv]


def clean_environment(scratch: str, bin_dir: str, extra: Sequence[str] = ()) -> dict[str, str]:
    """The environment of converted code: nothing of ours but what it was allowed by name."""
    made = {
        "PATH": os.pathsep.join((bin_dir, "/usr/bin", "/bin")),
        "HOME": scratch,
        "TMPDIR": scratch,
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
    }
    made.update({name: os.environ[name] for name in extra if name in os.environ})
    return made
