"""Compile the C kernels at first use, into the user's cache folder.

The file name carries a hash of source, compiler and flags: a new version or another machine never loads a
stale library, and two processes that compile at once end with the same file (write aside, then rename).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from inference.errors import KernelError

SOURCE = Path(__file__).with_name("tape.c")
FLAGS = ["-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
# Best first. Without OpenMP (Apple's clang) the kernels run on one thread, which the backend then says.
VARIANTS = [["-march=native", "-fopenmp"], ["-march=native"], []]


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "toolyard" / "kernels"


def compiler() -> str | None:
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    return None


def _cpu() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))


def library() -> ctypes.CDLL:
    """The compiled kernels.

    :raises KernelError: there is no C compiler, or it fails; says which command failed and how.
    """
    cc = compiler()
    if cc is None:
        raise KernelError("No C compiler (cc, gcc or clang) was found. Install one, or set CC.")
    text = b"".join(path.read_bytes() for path in sorted(SOURCE.parent.glob("*.[ch]")))
    failures = []
    for variant in VARIANTS:
        command = [cc, *FLAGS, *variant]
        stamp = hashlib.sha256(" ".join([*command, _cpu()]).encode() + text).hexdigest()[:16]
        target = cache_folder() / f"cpu-{stamp}.so"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                made = Path(scratch) / "cpu.so"
                try:
                    done = subprocess.run(
                        [*command, "-o", str(made), str(SOURCE), "-lm"],
                        capture_output=True,
                        text=True,
                        timeout=300,
                    )
                except (OSError, subprocess.TimeoutExpired) as problem:
                    failures.append(f"{' '.join(command)}: {problem}")
                    continue
                if done.returncode:
                    failures.append(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
                    continue
                os.replace(made, target)
        try:
            return ctypes.CDLL(str(target))
        except OSError as problem:
            failures.append(f"{target}: {problem}")
    raise KernelError("The C kernels could not be built:\n" + "\n".join(failures))
