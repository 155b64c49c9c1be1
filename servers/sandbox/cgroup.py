"""A control group for each worker, where this process may make one: real memory limits, and real peaks.

The address-space limit (rlimits) holds everywhere, for each process alone; a group's limit counts what is really
used, by the worker and everything it starts together, and can be set anew for each call. Version 2 is used where
its memory controller is enabled for children of our group or of its parent (systemd: ``Delegate=yes`` with
``DelegateSubgroup=``), version 1 where a memory hierarchy is mounted and ours to write.

Source: Linux ``Documentation/admin-guide/cgroup-v2.rst`` and ``cgroup-v1/memory.rst``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from pathlib import Path
from typing import Final

_NUMBERS: Final = itertools.count()
_PREFIX: Final = "toolyard-"
_REMOVE_WITHIN: Final = 1.0


class Cgroup:
    """One group. Every method is a few file operations; what the kernel does not offer is left out.

    :param path: an empty group that is ours.
    :param version: of the hierarchy it lies in.
    """

    def __init__(self, path: Path, version: int) -> None:
        self.path = path
        self.version = version
        self._limit, self._peak = (
            ("memory.max", "memory.peak")
            if version == 2
            else ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
        )
        self._peak_file: int | None = None
        with contextlib.suppress(OSError):
            self._peak_file = os.open(path / self._peak, os.O_RDWR)

    @classmethod
    def make(cls, processes: int) -> Cgroup | None:
        """A new group beside or below our own; None where the machine or our rights do not allow it.

        :param processes: tasks it may hold, where that can be limited.
        """
        for base, version in _bases():
            _clear(base)
            path = base / f"{_PREFIX}{os.getpid()}-{next(_NUMBERS)}"
            try:
                path.mkdir()
            except OSError:
                continue
            made = cls(path, version)
            if not (path / made._limit).exists():
                made.remove()
                continue
            made._write("memory.oom.group", 1)
            made._write("memory.swap.max", 0)
            made._write("pids.max", processes)
            return made
        return None

    def enter(self, pid: int) -> bool:
        """Put a process into the group, and all that it has started already. Returns whether that worked.

        What a process in the group starts is in it from the beginning, so this ends once nobody new is found.
        """
        entered = self._write("cgroup.procs", pid)
        known, found = {pid}, _children(pid)
        while fresh := found - known:
            known |= fresh
            for one in fresh:
                self._write("cgroup.procs", one)
            found = set().union(*map(_children, known))
        return entered

    def begin(self, limit: int) -> None:
        """Before a call: what it may use, in bytes, and a peak that begins now (v2: since Linux 6.12)."""
        self._write(self._limit, limit)
        if self._peak_file is not None:
            with contextlib.suppress(OSError):
                os.pwrite(self._peak_file, b"0", 0)

    def peak(self) -> int | None:
        """The most memory in use since `begin`, in bytes."""
        if self._peak_file is None:
            return None
        try:
            return int(os.pread(self._peak_file, 32, 0))
        except (OSError, ValueError):
            return None

    def killed(self) -> int:
        """How often the kernel killed something here for want of memory."""
        try:
            text = (self.path / ("memory.events" if self.version == 2 else "memory.oom_control")).read_text()
        except OSError:
            return 0
        counts = dict(line.split() for line in text.splitlines() if line.count(" ") == 1)
        return int(counts.get("oom_kill", 0))

    def remove(self) -> None:
        """End what is left in the group, and the group."""
        if self._peak_file is not None:
            os.close(self._peak_file)
            self._peak_file = None
        deadline = time.monotonic() + _REMOVE_WITHIN
        while True:
            if not self._write("cgroup.kill", 1):
                self._kill_each()
            try:
                self.path.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:  # its processes are not gone yet
                if time.monotonic() > deadline:
                    return
                time.sleep(0.002)

    def _kill_each(self) -> None:
        try:
            pids = (self.path / "cgroup.procs").read_text().split()
        except OSError:
            return
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(int(pid), 9)

    def _write(self, name: str, value: int) -> bool:
        try:
            (self.path / name).write_text(str(value))
        except OSError:
            return False
        return True


def _bases() -> list[tuple[Path, int]]:
    """Groups in which one of ours may be made, the best first."""
    try:
        own = Path("/proc/self/cgroup").read_text()
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return []
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in own.splitlines())}
    found: list[tuple[Path, int]] = []
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, mount = before.split(" ")[3:5]
        if kind == "cgroup2" and "" in paths:
            here = Path(mount + _below(root, paths[""]))
            found += [(base, 2) for base in (here, here.parent) if _gives_memory(base)]
        elif kind == "cgroup" and "memory" in options.rpartition(" ")[2].split(","):
            name = next((key for key in paths if "memory" in key.split(",")), None)
            if name is not None:
                found.append((Path(mount + _below(root, paths[name])), 1))
    return [(base, version) for base, version in found if os.access(base, os.W_OK)]


def _clear(base: Path) -> None:
    """Remove the empty groups of hosts that were killed."""
    with contextlib.suppress(OSError):
        for path in base.glob(_PREFIX + "*"):
            owner = path.name.removeprefix(_PREFIX).partition("-")[0]
            if not os.path.exists(f"/proc/{owner}"):
                with contextlib.suppress(OSError):
                    path.rmdir()


def _below(root: str, path: str) -> str:
    """A group's path below the mount, which may show a part of the hierarchy only."""
    return path.removeprefix(root.rstrip("/")).rstrip("/")


def _gives_memory(base: Path) -> bool:
    """Whether groups made in here have a memory limit; where that only has to be switched on, it is."""
    control = base / "cgroup.subtree_control"
    try:
        if "memory" in control.read_text().split():
            return True
        if "memory" in (base / "cgroup.controllers").read_text().split():
            control.write_text("+memory")  # refused while the group itself has processes
            return True
    except OSError:
        return False
    return False


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(map(int, listed.read_text().split()))
    return found
