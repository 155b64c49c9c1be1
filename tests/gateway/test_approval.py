"""An approval covers what decides which code runs, tells no secret, and the child gets little of ours."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.servers import resolve
from gateway.errors import UpstreamUnavailable
from gateway.policy import approval
from gateway.policy.approval import CommandNotFound, approval_key, child_environment, find_executable
from registry.model import ServerSpec, Transport

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs are shell scripts here")


def program(path: Path, text: str = "#!/bin/sh\nexit 0\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    return program(tmp_path / "bin" / "tool")


@pytest.fixture
def environ(tool: Path) -> dict[str, str]:
    return {"PATH": f"/nowhere:{tool.parent}:/usr/bin", "HOME": "/home/u", "GITHUB_PAT": "hunter2-hunter2"}


@pytest.fixture
def spec(tmp_path: Path) -> ServerSpec:
    return ServerSpec(
        "s",
        Transport.STDIO,
        command="tool",
        args=("--root", "/data"),
        env={"LEVEL": "1", "PYTHONPATH": "/lib"},
        cwd=str(tmp_path),
    )


def test_the_same_start_has_the_same_key(spec: ServerSpec, environ: dict[str, str]) -> None:
    key, detail = approval_key(spec, environ)
    assert approval_key(spec, dict(reversed(environ.items()))) == (key, detail)
    assert len(key) == 64


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: replace(spec, args=(*spec.args, "--more")),
        lambda spec: replace(spec, args=("--root /data",)),
        lambda spec: replace(spec, args=tuple(reversed(spec.args))),
        lambda spec: replace(spec, cwd="/"),
        lambda spec: replace(spec, cwd=None),
        lambda spec: replace(spec, env={**spec.env, "OTHER": "1"}),
        lambda spec: replace(spec, env={"LEVEL": "1"}),
        lambda spec: replace(spec, env={**spec.env, "PYTHONPATH": "/evil"}),
        lambda spec: replace(spec, env={**spec.env, "LD_PRELOAD": "/evil.so"}),
        lambda spec: replace(spec, env={**spec.env, "NODE_OPTIONS": "--require=/evil.js"}),
    ],
)
def test_what_decides_which_code_runs_changes_the_key(
    spec: ServerSpec, environ: dict[str, str], change: Callable[[ServerSpec], ServerSpec]
) -> None:
    assert approval_key(change(spec), environ)[0] != approval_key(spec, environ)[0]


def test_values_of_other_variables_name_and_timeout_do_not_change_the_key(
    spec: ServerSpec, environ: dict[str, str]
) -> None:
    key, _ = approval_key(spec, environ)
    other = replace(spec, name="t", timeout=5.0, env={**spec.env, "LEVEL": "2"}, extra={"x": 1})
    changed = {**environ, "HOME": "/root", "PYTHONPATH": "/not/passed/on", "LD_PRELOAD": "/neither.so"}
    assert approval_key(other, changed)[0] == key


def test_another_path_or_program_changes_the_key(
    spec: ServerSpec, environ: dict[str, str], tool: Path, tmp_path: Path
) -> None:
    key, _ = approval_key(spec, environ)
    assert approval_key(spec, {**environ, "PATH": environ["PATH"] + ":/more"})[0] != key
    program(tool, "#!/bin/sh\nexit 1\n")  # same size, same place
    changed, _ = approval_key(spec, environ)
    assert changed != key
    fresh = program(tmp_path / "fresh", "#!/bin/sh\nexit 0\n")
    fresh.rename(tool)
    assert approval_key(spec, environ)[0] == key
    # The same bytes elsewhere may be another environment's interpreter.
    shutil.copy2(tool, tmp_path / "first")
    elsewhere = program(tmp_path / "first-dir" / "tool")
    full = replace(spec, command=str(tool))
    assert approval_key(full, environ)[0] != approval_key(replace(spec, command=str(elsewhere)), environ)[0]


def test_a_program_is_hashed_once_until_it_changes(
    spec: ServerSpec, environ: dict[str, str], tool: Path
) -> None:
    approval._digest.cache_clear()
    for _ in range(3):
        approval_key(spec, environ)
    assert approval._digest.cache_info().misses == 1
    program(tool, "#!/bin/sh\nexit 3\n")
    approval_key(spec, environ)
    assert approval._digest.cache_info().misses == 2


def test_a_link_is_followed_to_the_program_it_names(
    spec: ServerSpec, environ: dict[str, str], tool: Path, tmp_path: Path
) -> None:
    target = program(tmp_path / "versions" / "1")
    tool.unlink()
    tool.symlink_to(target)
    key, _ = approval_key(spec, environ)
    program(target, "#!/bin/sh\nexit 4\n")
    assert approval_key(spec, environ)[0] != key


def test_the_program_found_is_the_one_the_child_would_run(
    spec: ServerSpec, environ: dict[str, str], tool: Path, tmp_path: Path
) -> None:
    assert find_executable(spec, environ) == str(tool)
    assert find_executable(replace(spec, command="./bin/tool"), environ) == str(tool)
    assert find_executable(replace(spec, command=str(tool)), {}) == str(tool)
    shadow = program(tmp_path / "own" / "tool", "#!/bin/sh\necho shadow\n")
    assert find_executable(replace(spec, env={"PATH": str(shadow.parent)}), environ) == str(shadow)
    assert find_executable(replace(spec, env={"PATH": "own"}), environ) == str(shadow)  # of the child's cwd
    ran = subprocess.run(["tool"], env={"PATH": "own"}, cwd=tmp_path, capture_output=True, check=True)
    assert ran.stdout == b"shadow\n"


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"command": "no-such-tool"}, "was not found in PATH (/nowhere:", "set PATH in the server's `env`"),
        ({"command": "./no/tool"}, "is not there (looked at /", "Correct the path"),
        ({"command": "~/tool"}, "is not there", "nothing expands `~`"),
        ({"command": "./plain.txt"}, "is not a program that may be executed", "make the file executable"),
        ({"cwd": "/no/such/dir"}, "The directory /no/such/dir that server 's'", "Create it"),
        ({"command": None}, "has no command", "Give it one"),
    ],
)
def test_a_command_that_cannot_be_found_is_a_clear_error(
    spec: ServerSpec, environ: dict[str, str], tmp_path: Path, change: dict[str, Any], message: str, hint: str
) -> None:
    (tmp_path / "plain.txt").write_text("x")
    with pytest.raises(CommandNotFound) as caught:
        approval_key(replace(spec, **change), environ)
    assert isinstance(caught.value, UpstreamUnavailable)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)
    assert caught.value.to_error()["data"]["type"] == "command_not_found"


def test_the_detail_is_for_people(
    spec: ServerSpec, environ: dict[str, str], tool: Path, tmp_path: Path
) -> None:
    _, detail = approval_key(replace(spec, args=("a b", "c")), environ)
    command, found, directory, variables = detail.splitlines()
    assert command == "tool 'a b' c"
    assert found.startswith(f"program: {tool} (sha256 ")
    assert directory == f"directory: {tmp_path}"
    assert variables == "variables: LEVEL, PYTHONPATH"


def test_the_detail_tells_no_secret(spec: ServerSpec, environ: dict[str, str]) -> None:
    written = replace(
        spec,
        args=(
            "--pat=${GITHUB_PAT}",
            "postgres://u:${GITHUB_PAT}@db/x",
            "https://user:secret-1@host/x",
            "--api-key",
            "secret-2",
            "--auth-token=secret-3",
            "API_KEY=secret-4",
            "--header",
            "Authorization: Bearer secret-5",
            "sk-secret-6-abcdefgh",
            "ghp_secret7ABCDEFGHIJKL",
            "auth",
            "login",
            "my-auth:latest",
        ),
        env={"KEY": "${GITHUB_PAT}", "OTHER": "secret-8"},
    )
    _, detail = approval_key(resolve(written, environ), environ)
    assert "hunter2" not in detail
    assert "secret" not in detail
    assert detail.splitlines()[0] == (
        "tool '--pat=${GITHUB_PAT}' 'postgres://***@db/x' 'https://***@host/x' --api-key '***' "
        "'--auth-token=***' 'API_KEY=***' --header 'Authorization: ***' '***' '***' auth login my-auth:latest"
    )


@given(secret=st.text(min_size=8, max_size=30), around=st.text(max_size=5))
def test_no_value_of_a_variable_of_ours_shows_in_the_detail(secret: str, around: str) -> None:
    spec = ServerSpec("s", Transport.STDIO, command=sys.executable, args=(around + "${V}" + around,))
    _, detail = approval_key(resolve(spec, {"V": secret}), {"V": secret})
    _, shown = shlex.split(detail.splitlines()[0])
    assert secret not in shown


def test_an_argument_cannot_forge_a_line_or_steer_the_terminal(
    spec: ServerSpec, environ: dict[str, str]
) -> None:
    odd = replace(spec, args=("x\nprogram: /bin/true", "\x1b[2J", "\u202e", "\udc80", "é"))
    command, found, *_ = approval_key(odd, environ)[1].splitlines()
    assert command == r"tool 'x\nprogram: /bin/true' '\x1b[2J' '\u202e' '\udc80' 'é'"
    assert found.endswith("…)")


def test_the_child_gets_a_few_names_of_ours_and_its_own_on_top() -> None:
    ours = {
        "PATH": "/bin",
        "HOME": "/h",
        "LANG": "C",
        "LC_ALL": "C",
        "XDG_CACHE_HOME": "/c",
        "TZ": "UTC",
        "TMPDIR": "/t",
        "SSL_CERT_FILE": "/s",
        "https_proxy": "http://p",
        "NO_PROXY": "x",
        "NODE_EXTRA_CA_CERTS": "/n",
    }
    not_ours = {
        "AWS_SECRET_ACCESS_KEY": "x",
        "LD_PRELOAD": "/x.so",
        "PYTHONPATH": "/x",
        "NODE_OPTIONS": "x",
        "TOOLYARD_STATE_DIR": "/x",
        "SHELL": "() { :; }; echo x",
    }
    spec = ServerSpec(
        "s", Transport.STDIO, command="x", env={"A": "1", "HOME": "/other", "PYTHONPATH": "/mine"}
    )
    expected = {**ours, "A": "1", "HOME": "/other", "PYTHONPATH": "/mine"}
    assert child_environment(spec, {**ours, **not_ours}) == expected


def test_a_real_child_sees_exactly_that_environment(tmp_path: Path) -> None:
    printer = program(tmp_path / "printer", "#!/bin/sh\nexec env\n")
    spec = ServerSpec("s", Transport.STDIO, command=str(printer), env={"A": "$(id) `id` ; ls"})
    child = child_environment(spec, {**os.environ, "SECRET_OF_OURS": "x"})
    printed = subprocess.run(
        [find_executable(spec, os.environ)], env=child, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "A=$(id) `id` ; ls" in printed  # as written: no shell reads it
    assert not any(line.startswith("SECRET_OF_OURS") for line in printed)
