"""Enters a sandbox and becomes a command: ``python -I -S launch.py POLICY COMMAND [ARGUMENT …]``.

It runs in our own interpreter, before the first byte of the target's environment is read: a ``.pth`` file
there runs inside the sandbox already. POLICY is the JSON of ``policy.Policy``. Exit code 126 and one line on
stderr say that the sandbox could not be made; the command then did not run.
"""

import json
import os
import resource
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import kernel  # type: ignore[import-not-found,unused-ignore]

FAILED = 126


def _limits(policy: dict) -> None:  # type: ignore[type-arg]
    wanted = {
        "RLIMIT_AS": policy["memory_mb"] << 20,
        "RLIMIT_FSIZE": policy["file_mb"] << 20,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 512,
        "RLIMIT_NPROC": _processes() + policy["processes"],
        "RLIMIT_MEMLOCK": 1 << 20,
    }
    for name, value in wanted.items():
        number = getattr(resource, name, None)
        if number is None or (value <= 0 and name != "RLIMIT_CORE"):
            continue
        _, hard = resource.getrlimit(number)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        if sys.platform == "darwin" and name == "RLIMIT_AS":
            continue  # macOS does not enforce it and refuses some values
        resource.setrlimit(number, (value, value))


def _processes() -> int:
    """Tasks this user runs already: the limit counts them, too."""
    own, count = os.getuid(), 0
    try:
        names = os.listdir("/proc")
    except OSError:
        return 512
    for name in names:
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == own:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count


def _enter(policy: dict) -> None:  # type: ignore[type-arg]
    os.umask(0o077)
    kernel.die_with_parent()
    if os.getppid() == 1 and policy.get("parent", 1) != 1:
        os._exit(FAILED)  # the parent died before the signal was set up
    _limits(policy)
    if policy["level"] == "L1":
        return
    kernel.no_new_privileges()
    if os.getuid() == 0:
        kernel.drop_capabilities()
    own = f"/proc/{os.getpid()}"
    kernel.landlock([*policy["read"], own], policy["write"], network=policy["network"])
    kernel.seccomp(network=policy["network"])


def main() -> None:
    policy = json.loads(sys.argv[1])
    command = sys.argv[2:]
    try:
        _enter(policy)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"The sandbox {policy['level']} could not be made: {error}\n")
        sys.exit(FAILED)
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.stderr.write(f"Cannot execute {command[0]}: {error}\n")
        sys.exit(FAILED)


main()
