"""Landlock, seccomp and the other promises a process can make to the kernel, through libc alone.

Read by ``launch.py``, which runs with nothing but the standard library. Numbers are those of
``linux/landlock.h``, ``linux/seccomp.h``, ``linux/prctl.h`` and the system call tables.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446

# access rights on files (landlock ABI that brought them)
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(OSError):
    """The kernel would not make a promise."""


def _call(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise Refused(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(what: str, *args: int) -> None:
    _call(what, _libc.prctl(*(ctypes.c_ulong(arg) for arg in (*args, 0, 0, 0, 0)[:5])))


def die_with_parent() -> None:
    """SIGKILL when the parent is gone."""
    if sys.platform == "linux":
        _prctl("parent-death signal", _PR_SET_PDEATHSIG, 9)


def no_new_privileges() -> None:
    """No setuid program gives anything any more, for ever."""
    _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Take every capability away from a root process, and from what it will execute."""
    for number in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) < 0:
            break
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    _call("drop capabilities", _libc.capset(header, bytes(24)))


def landlock_abi() -> int:
    """The kernel's landlock version; 0 where it has none, or has it switched off."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def landlock(read: list[str], write: list[str], *, network: bool) -> int:
    """Allow these paths and nothing else; no TCP, no signals or abstract sockets out of here.

    :returns: the ABI that was used. Paths that do not exist are left out.
    :raises Refused: the kernel has no landlock.
    """
    abi = landlock_abi()
    if abi < 1:
        raise Refused(errno.ENOSYS, "this kernel has no landlock")
    handled = (1 << 13) - 1
    handled |= (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0) | (_IOCTL if abi >= 5 else 0)
    net = 0 if network or abi < 4 else 3
    scope = 3 if abi >= 6 else 0
    attributes = struct.pack("=QQQ", handled, net, scope)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    rules = _call("landlock", _libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0))
    try:
        for path in read:
            _allow(rules, path, READ & handled)
        for path in write:
            _allow(rules, path, handled & ~_IOCTL)
        _call("landlock", _libc.syscall(_LANDLOCK_RESTRICT, rules, 0))
    finally:
        os.close(rules)
    return abi


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return
    try:
        if not os.path.isdir(path):
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, place)
        _call(f"landlock for {path}", _libc.syscall(_LANDLOCK_ADD, rules, 1, rule, 0))
    finally:
        os.close(place)


# system calls refused in every sandbox: name -> (x86_64, aarch64)
_DENIED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "kexec_load": (246, 104),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "swapon": (167, 224), "swapoff": (168, 225),
    "reboot": (169, 142), "sethostname": (170, 161), "setdomainname": (171, 162),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "acct": (163, 89),
    "quotactl": (179, 60), "setsid": (112, 157), "setpgid": (109, 154), "move_mount": (429, 429),
    "open_tree": (428, 428), "fsopen": (430, 430), "fsmount": (432, 432), "mount_setattr": (442, 442),
    "pidfd_getfd": (438, 438), "setpriority": (141, 140), "mknodat": (259, 33), "mknod": (133, None),
    "lsetxattr": (189, 6), "setxattr": (188, 5), "fsetxattr": (190, 7),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
}  # fmt: skip
# Landlock does not govern modes, and without them nothing a tool does in its own scratch goes wrong; libraries
# that copy a file must not fail over its mode. So these succeed and change nothing.
_IGNORED = {"chmod": (90, None), "fchmodat": (268, 53), "fchmodat2": (452, 452), "fchmod": (91, 52)}
_SOCKET, _CLONE, _CLONE3 = (41, 198), (56, 220), (435, 435)
_PRLIMIT, _IOCTL_CALL = (302, 261), (16, 29)
_NAMESPACES = 0x7E020080
_TIOCSTI = 0x5412

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def seccomp_architecture() -> str | None:
    """This machine's name if we know its system calls."""
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())
    return machine if sys.platform == "linux" and machine in _AUDIT else None


def seccomp(*, network: bool) -> None:
    """Refuse the system calls that reach around landlock; without ``network``, every new socket.

    :raises Refused: the kernel has no seccomp filters, or the machine is one we have no numbers for.
    """
    machine = seccomp_architecture()
    if machine is None:
        raise Refused(errno.ENOSYS, f"no system call table for {platform.machine()}")
    column = 0 if machine == "x86_64" else 1
    program = _program(column, _AUDIT[machine], network)
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filters = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    holder = ctypes.create_string_buffer(filters, len(filters))
    _prctl("seccomp filter", _PR_SET_SECCOMP, 2, ctypes.addressof(holder))


def _program(column: int, audit: int, network: bool) -> list[tuple[int, int, int, int]]:
    load, equal, least, both, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    denied = _ERRNO | errno.EPERM
    lines = [
        (load, 0, 0, 4),
        (equal, 1, 0, audit),
        (answer, 0, 0, _KILL),
        (load, 0, 0, 0),
        (least, 0, 1, 0x40000000),  # x32: the same calls under other numbers
        (answer, 0, 0, denied),
    ]

    def on(number: int | None, outcome: int) -> None:
        if number is not None:
            lines.extend([(equal, 0, 1, number), (answer, 0, 0, outcome)])

    for numbers in _DENIED.values():
        on(numbers[column], denied)
    for numbers in _IGNORED.values():
        on(numbers[column], _ERRNO)
    if not network:
        on(_SOCKET[column], _ERRNO | errno.EACCES)
    # clone3's flags are behind a pointer no filter can follow; libc falls back to clone
    on(_CLONE3[column], _ERRNO | errno.ENOSYS)
    lines += [
        (equal, 0, 3, _CLONE[column]),
        (load, 0, 0, 16),
        (both, 0, 1, _NAMESPACES),
        (answer, 0, 0, denied),
    ]
    lines += [(load, 0, 0, 0)]
    # limits of one's own process only
    lines += [(equal, 0, 3, _PRLIMIT[column]), (load, 0, 0, 16), (equal, 1, 0, 0), (answer, 0, 0, denied)]
    lines += [(load, 0, 0, 0)]
    # no typing into somebody's terminal
    lines += [
        (equal, 0, 3, _IOCTL_CALL[column]),
        (load, 0, 0, 24),
        (equal, 0, 1, _TIOCSTI),
        (answer, 0, 0, denied),
    ]
    lines += [(answer, 0, 0, _ALLOW)]
    return lines
