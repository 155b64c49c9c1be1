"""What one call may use, and what it is said to have used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from trap_packages import Client, convert, wheel

from servers.manifest import files
from servers.manifest.records import Limits
from servers.sandbox.cgroup import Cgroup

CODE = '''
import subprocess, sys, time

def eat(mib: int = 1) -> int:
    """Use so much memory."""
    return len(bytearray(b"x") * (mib << 20))

def eat_more(mib: int = 1) -> int:
    """Use so much memory, by a limit of its own."""
    return eat(mib)

def feed(mib: int = 1) -> int:
    """Have a child use so much memory."""
    text = f"x = bytearray(b'x') * ({mib} << 20)"
    return subprocess.run([sys.executable, "-c", text]).returncode

def spin(seconds: float = 0.01) -> float:
    """Use so much CPU."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return seconds
'''


@pytest.fixture(scope="module")
def hungry(needs_l2: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted package whose tools may use 300 MiB a call, and one of them 800."""
    folder = tmp_path_factory.mktemp("hungry")
    made = convert(str(wheel(folder, "hungry", {"hungry.py": CODE})), folder / "out")
    assert made.returncode == 0, made.stderr
    manifest = files.read(folder / "out")
    tools = tuple(
        msgspec.structs.replace(tool, limits=Limits(memory_mb=800)) if tool.name == "eat_more" else tool
        for tool in manifest.tools
    )
    files.write(msgspec.structs.replace(manifest, tools=tools, limits=Limits(memory_mb=300)), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def service(hungry: Path) -> Iterator[Client]:
    with Client(hungry, "--workers", "1") as client:
        yield client


def used(client: Client, tool: str, **arguments: object) -> dict[str, float]:
    result = client.call(tool, **arguments)
    assert not result["isError"], result["content"]
    usage: dict[str, float] = result["_meta"]["toolyard/usage"]
    return usage


def test_a_call_has_its_services_limit_and_a_tool_may_declare_its_own(service: Client) -> None:
    assert "memory" in service.problem("eat", mib=500)
    assert service.value("eat_more", mib=500) == 500 << 20
    assert "memory" in service.problem("eat", mib=500), "the other tool's limit does not stay behind"
    assert "memory" in service.problem("eat_more", mib=900)
    assert service.value("eat", mib=10) == 10 << 20


def test_the_peak_of_memory_is_that_of_one_call(service: Client) -> None:
    much, little = used(service, "eat", mib=200)["peak_kb"], used(service, "eat", mib=1)["peak_kb"]
    assert much > 200 << 10
    assert little < 150 << 10


def test_time_and_cpu_are_told_apart(service: Client) -> None:
    usage = used(service, "spin", seconds=0.2)
    assert 190 <= usage["cpu_ms"] < 1000
    assert usage["wall_ms"] >= 190


@pytest.fixture
def group() -> Iterator[Cgroup]:
    made = Cgroup.make(64)
    if made is None:
        pytest.skip("no control group can be made here")
    yield made
    made.remove()
    assert not made.path.exists()


EATER = "import sys; sys.stdin.read(1); x = bytearray(b'x') * (200 << 20); print('ok', flush=True); sys.stdin.read()"


def eater(group: Cgroup) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", EATER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert group.enter(child.pid)
    return child


def test_a_control_group_measures_from_the_beginning_of_a_call(group: Cgroup) -> None:
    with eater(group) as child:
        group.begin(1 << 30)
        before = group.peak()
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"x")
        child.stdin.flush()
        assert child.stdout.readline() == b"ok\n"
        after = group.peak()
        assert before is not None
        assert after is not None
        assert after - before >= 190 << 20


def test_what_exceeds_its_control_group_is_killed_and_counted(group: Cgroup) -> None:
    with eater(group) as child:
        group.begin(100 << 20)
        assert child.communicate(b"x", timeout=60) == (b"", None)
        assert child.returncode == -9
        assert group.killed() >= 1


def test_a_group_that_is_removed_takes_its_processes_along(group: Cgroup) -> None:
    with eater(group) as child:
        group.remove()
        assert child.wait(60) == -9


def test_what_a_tool_starts_counts_as_the_tool(service: Client, group: Cgroup) -> None:
    before = used(service, "feed", mib=1)["peak_kb"]
    assert used(service, "feed", mib=200)["peak_kb"] > before + (190 << 10)


def test_the_empty_groups_of_a_killed_host_are_cleared_away(group: Cgroup) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    left = group.path.with_name(f"toolyard-{child.pid}-0")
    left.mkdir()
    other = Cgroup.make(8)
    assert other is not None
    other.remove()
    assert not left.exists()
