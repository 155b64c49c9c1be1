"""What converted code tries and cannot do, as an ordinary user, at L2 and, where bubblewrap works, at L3."""

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
from servers.sandbox.policy import Policy, interpreter_paths

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
    made = [python if each == sys.executable else each for each in command]
    made = [str(Path(folder) / "launch.py") if each.endswith("sandbox/launch.py") else each for each in made]
    unseen = set(interpreter_paths())  # of root's own Python: bubblewrap would not find them as nobody
    kept: list[str] = []
    while made:
        if made[0] == "--ro-bind-try" and made[1] in unseen:
            made = made[3:]
        else:
            kept.append(made.pop(0))
    return kept, {"user": NOBODY, "group": NOBODY, "extra_groups": []}


@pytest.fixture
def scratch(needs_l2: None) -> Iterator[str]:
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["L2", "L3"])
def level(request: pytest.FixtureRequest, needs_l2: None) -> str:
    """Each level that stops escapes."""
    if request.param == "L3" and levels.report().level != "L3":
        pytest.skip("this machine has no bubblewrap that works")
    made: str = request.param
    return made


def start(scratch: str, code: str, level: str = "L2", **policy: Any) -> subprocess.Popen[str]:
    made = Policy(level, write=(scratch,), **policy).command([sys.executable, "-I", "-S", "-c", code])
    command, user = ordinary(made, scratch)
    environment = {"HOME": scratch, "PATH": "/usr/bin:/bin"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=scratch, env=environment,
        start_new_session=True, **user,
    )  # type: ignore[call-overload, no-any-return]  # fmt: skip


def attempt(scratch: str, code: str, level: str) -> subprocess.CompletedProcess[str]:
    with start(scratch, code, level) as child:
        out, err = child.communicate(timeout=60)
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


def test_its_own_scratch_can_be_written_and_children_started(scratch: str, level: str) -> None:
    done = attempt(
        scratch,
        "import subprocess; open('a','w').write('x'); print(subprocess.run(['/bin/echo','hi'],capture_output=True).stdout)",
        level,
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
    scratch: str, tmp_path: Path, what: str, code: str, said: str, level: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    header = f"SECRET={str(secret)!r}; PARENT={os.getpid()}\n"
    done = attempt(scratch, header + code, level)
    assert done.returncode != 0 or what == "kill everybody", done.stdout
    # at L3 what is out of bounds does not even exist
    absent = ("FileNotFoundError", "ProcessLookupError") if level == "L3" else ()
    assert any(each in done.stderr for each in (said, *absent)), done.stderr
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


def test_a_fork_bomb_is_bounded_and_ends_with_its_group(scratch: str, level: str) -> None:
    with start(scratch, BOMB, level, processes=32) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        os.killpg(child.pid, 9)
    assert line.startswith("stopped"), line


def test_changing_a_mode_is_quietly_without_effect(scratch: str, level: str) -> None:
    done = attempt(
        scratch,
        "import os; open('a','w').close(); os.chmod('a', 0o4777); print(oct(os.stat('a').st_mode))",
        level,
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


def test_the_level_is_remembered_until_what_it_rests_on_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(levels, "_remembered_in", lambda: tmp_path / "sandbox.json")
    monkeypatch.setattr(levels, "_ground", lambda wrapper: ["one"])
    monkeypatch.setattr(levels.shutil, "which", lambda name: str(tmp_path / "bwrap"))
    tries: list[str] = []

    def report() -> levels.Report:
        tries.append("tried")
        return levels.Report("L2", 7, True, None, (), 1.0)

    monkeypatch.setattr(levels, "report", report)
    assert [levels.quick(), levels.quick(), len(tries)] == ["L2", "L2", 1]
    monkeypatch.setattr(levels, "_ground", lambda wrapper: ["another"])
    assert [levels.quick(), len(tries)] == ["L2", 2]
    (tmp_path / "sandbox.json").write_text("{")
    assert [levels.quick(), len(tries)] == ["L2", 3]
