"""What converted code tries and cannot do, as an ordinary user, at L2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.errors import SandboxUnavailable
from servers.sandbox import levels
from servers.sandbox.policy import Policy

NOBODY = 65534


def base_python() -> str:
    return os.path.realpath(sys.executable)


def user() -> dict[str, object]:
    """Not root: as root, run as nobody, if nobody can read our Python."""
    if os.getuid() != 0:
        return {}
    probe = subprocess.run([base_python(), "-c", ""], user=NOBODY, group=NOBODY, capture_output=True, check=False) if _can_execute() else None  # fmt: skip
    return {"user": NOBODY, "group": NOBODY} if probe is not None and probe.returncode == 0 else {}


def _can_execute() -> bool:
    path = Path(base_python())
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)


@pytest.fixture
def scratch(needs_l2: None) -> Iterator[str]:
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def attempt(scratch: str, code: str, **policy: object) -> subprocess.CompletedProcess[str]:
    made = Policy("L2", write=(scratch,), **policy)  # type: ignore[arg-type]
    return subprocess.run(
        made.command([base_python(), "-I", "-S", "-c", code]), capture_output=True, text=True, cwd=scratch,
        timeout=30, check=False, env={"HOME": scratch, "PATH": "/usr/bin:/bin"}, start_new_session=True, **user(),
    )  # type: ignore[call-overload, no-any-return]  # fmt: skip


def test_its_own_scratch_can_be_written_and_children_started(scratch: str) -> None:
    done = attempt(
        scratch,
        "import subprocess; open('a','w').write('x'); print(subprocess.run(['/bin/echo','hi'],capture_output=True).stdout)",
    )
    assert "hi" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("read a secret", "open(SECRET).read()", "PermissionError"),
        ("list a home", "import os; os.listdir(os.path.dirname(SECRET))", "PermissionError"),
        ("write outside", "open('/tmp/toolyard-escape','w')", "PermissionError"),
        ("delete outside", "import os; os.remove(SECRET)", "PermissionError"),
        ("use TCP", "import socket; socket.create_connection(('127.0.0.1', 80), 1)", "PermissionError"),
        ("use UDP", "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "PermissionError"),
        ("use a Unix socket", "import socket; socket.socket(socket.AF_UNIX)", "PermissionError"),
        ("allocate 10 GiB", "bytearray(10 << 30)", "MemoryError"),
        ("kill its parent", "import os; os.kill(PARENT, 9)", "PermissionError"),
        ("kill everybody", "import os; os.kill(-1, 9)", ""),
        ("leave its session", "import os; os.setsid()", "PermissionError"),
        ("limit its parent", "import resource; resource.prlimit(PARENT, resource.RLIMIT_NOFILE, (0, 0))", "PermissionError"),
        ("trace its parent", "import ctypes; l=ctypes.CDLL(None,use_errno=True); assert l.ptrace(16, PARENT, 0, 0) == 0", "AssertionError"),
        ("read its parent's environment", "open(f'/proc/{PARENT}/environ').read()", "PermissionError"),
        ("fill the disk", "f=open('big','wb')\nfor _ in range(400): f.write(bytes(1<<20))", "OSError"),
    ],
)  # fmt: skip
def test_an_escape_is_stopped_with_a_clear_error(
    scratch: str, tmp_path: Path, what: str, code: str, said: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    header = f"SECRET={str(secret)!r}; PARENT={os.getpid()}\n"
    done = attempt(scratch, header + code)
    assert done.returncode != 0 or what == "kill everybody", done.stdout
    assert said in done.stderr
    assert secret.read_text() == "key"
    assert not Path("/tmp/toolyard-escape").exists()


def test_a_fork_bomb_is_bounded_and_ends_with_its_group(scratch: str) -> None:
    if os.getuid() == 0 and not user():
        pytest.skip("the process limit does not hold for root")
    bomb = "import os,time\nn=0\ntry:\n  while n < 3000:\n    if os.fork() == 0: time.sleep(5); os._exit(0)\n    n+=1\nexcept OSError as e: print('stopped', n, flush=True); os._exit(0)\nprint('unbounded', n)"
    done_command = Policy("L2", write=(scratch,), processes=32).command(
        [base_python(), "-I", "-S", "-c", bomb]
    )
    child = subprocess.Popen(
        done_command, stdout=subprocess.PIPE, text=True, cwd=scratch, start_new_session=True, **user()
    )  # type: ignore[call-overload]
    assert child.stdout is not None
    line = child.stdout.readline()
    os.killpg(child.pid, 9)
    child.wait()
    child.stdout.close()
    assert line.startswith("stopped"), line


def test_changing_a_mode_is_quietly_without_effect(scratch: str) -> None:
    done = attempt(
        scratch, "import os; open('a','w').close(); os.chmod('a', 0o4777); print(oct(os.stat('a').st_mode))"
    )
    assert done.stdout.strip() == "0o100600"


def test_the_report_names_the_level_and_what_it_leaves_open() -> None:
    lines = levels.report().lines()
    assert lines[0].startswith(f"sandbox {levels.report().level}:")


def test_less_than_is_required_is_refused() -> None:
    with pytest.raises(SandboxUnavailable, match="needs sandbox L3"):
        levels.require("L3", found="L2")
    with pytest.raises(SandboxUnavailable, match="needs sandbox L2"):
        levels.require("L2", found="L1")
    assert levels.require("L2", found="L1", allow_weak=True) == "L1"
    with pytest.raises(SandboxUnavailable):
        levels.require("L2", found="L0", allow_weak=True)
