"""What converted code tries and cannot do, as an ordinary user, at L2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servers.errors import SandboxUnavailable
from servers.sandbox import kernel, levels
from servers.sandbox.policy import Policy

NOBODY = 65534


def ordinary(command: list[str], folder: str) -> tuple[list[str], dict[str, object]]:
    """A sandboxed command for an ordinary user: as root it runs as nobody, by a Python nobody may execute."""
    if os.getuid() != 0:
        return command, {}
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("as root this needs a Python of the system's")
    for name in ("launch.py", "kernel.py"):
        shutil.copy(Path(kernel.__file__).with_name(name), folder)
        os.chmod(Path(folder) / name, 0o644)
    made = [python if each == command[0] else each for each in command]
    made[3] = str(Path(folder) / "launch.py")
    return made, {"user": NOBODY, "group": NOBODY, "extra_groups": []}


@pytest.fixture
def scratch(needs_l2: None) -> Iterator[str]:
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def start(scratch: str, code: str, **policy: Any) -> subprocess.Popen[str]:
    made = Policy("L2", write=(scratch,), **policy).command([sys.executable, "-I", "-S", "-c", code])
    command, user = ordinary(made, scratch)
    environment = {"HOME": scratch, "PATH": "/usr/bin:/bin"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=scratch, env=environment,
        start_new_session=True, **user,
    )  # type: ignore[call-overload, no-any-return]  # fmt: skip


def attempt(scratch: str, code: str) -> subprocess.CompletedProcess[str]:
    with start(scratch, code) as child:
        out, err = child.communicate(timeout=30)
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


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


BOMB = """
import os, time
count = 0
try:
    while count < 3000:
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        count += 1
    print("unbounded", count, flush=True)
except OSError as error:
    print("stopped", count, flush=True)
time.sleep(5)
"""


def test_a_fork_bomb_is_bounded_and_ends_with_its_group(scratch: str) -> None:
    with start(scratch, BOMB, processes=32) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        os.killpg(child.pid, 9)
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
