"""The engine's life: started by the first plan, ended when idle and with the gateway, killed at awkward moments."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import Running, alive, until
from toolset_parts import LONG, Shelves, Visitor, planning, tool

from gateway.planning.engine import Engine, EngineState
from gateway.upstream.lifeline import MARKER

pytestmark = pytest.mark.anyio
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SKY = [tool("get_forecast", "Get the weather forecast for a city.", reads=True, inputSchema=CITY)]
RAIN = {"request": "What is the weather forecast for the city of Paris?"}


def yard(root: Path, **planner: Any) -> AbstractAsyncContextManager[Running]:
    return planning(root, SKY, "get_forecast", threads=1, kv_tokens=4096, seconds=LONG, **planner)


def engine_of(running: Running) -> Engine:
    engine = running.gateway.planners.engine
    assert engine is not None
    return engine


async def planned(running: Running) -> dict[str, Any]:
    visitor = await Visitor(running, "all").enter()
    visitor.wait = LONG
    answer = await visitor.tool("plan", RAIN)
    found: dict[str, Any] = answer["result"]["structuredContent"]
    return found


async def ready(running: Running) -> int:
    """Have the engine started: its process id."""
    await planned(running)
    engine = engine_of(running)
    await until(lambda: engine.state is EngineState.READY, LONG, f"the engine is ready: {engine.error}")
    assert engine.pid is not None
    return engine.pid


def environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


async def test_nothing_is_started_before_the_first_plan_which_is_made_by_rules_and_says_so(
    tmp_path: Path, noise: Path
) -> None:
    async with yard(tmp_path, model=str(noise)) as running:
        engine = engine_of(running)
        assert engine.state is EngineState.OFF
        plan = await planned(running)
        assert plan["planner"] == "rules"
        assert [step["tool"] for step in plan["plan"]] == ["sky__get_forecast"]
        assert plan["note"].startswith("Planned by rules: the engine is being started")
        assert engine.state is EngineState.STARTING


async def test_once_it_is_ready_its_model_plans_and_its_secret_is_on_no_command_line(
    tmp_path: Path, noise: Path
) -> None:
    async with yard(tmp_path, model=str(noise)) as running:
        pid = await ready(running)
        plan = await planned(running)
        assert plan["planner"] == "model"
        assert "Planned by rules" not in plan.get("note", "")
        state = running.gateway.planners.state()
        assert (state["name"], state["held_by"]) == ("model", "structured_outputs")
        assert state["engine"]["state"] == "ready"
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        secret = environment(pid)["TOOLYARD_INFER_TOKEN"]
        assert len(secret) >= 32
        assert not any(secret in word for word in words)
        assert "7420" not in words
        assert os.getpgid(pid) == pid


async def test_one_that_is_killed_is_replaced_after_a_pause_and_rules_plan_meanwhile(
    tmp_path: Path, noise: Path
) -> None:
    async with yard(tmp_path, model=str(noise)) as running:
        engine, pid = engine_of(running), await ready(running)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: engine.state is EngineState.FAILED, LONG)
        plan = await planned(running)
        assert "ended by signal 9" in plan["note"]
        assert plan["planner"] == "rules"
        assert plan["plan"]
        assert engine.shown()["failures"] == 1
        await asyncio.sleep(1.3)  # the pause
        other = await ready(running)
        assert other != pid
        assert engine.starts == 2
        assert (await planned(running))["planner"] == "model"


async def test_killed_in_the_midst_of_a_plan_the_plan_is_made_by_rules(tmp_path: Path, noise: Path) -> None:
    async with yard(tmp_path, model=str(noise)) as running:
        pid = await ready(running)
        os.kill(pid, signal.SIGSTOP)  # the plan is certain to find it in the middle of nothing
        going = asyncio.create_task(planned(running))
        try:
            await until(lambda: running.gateway.planners.engine._users, LONG)
        finally:
            os.kill(pid, signal.SIGKILL)
        plan = await asyncio.wait_for(going, LONG)
        assert plan["note"].startswith("Planned by rules: ")
        assert [step["tool"] for step in plan["plan"]] == ["sky__get_forecast"]


async def test_killed_while_it_loads_it_has_failed_and_what_it_said_is_told(
    tmp_path: Path, noise: Path
) -> None:
    async with yard(tmp_path, model=str(noise)) as running:
        engine = engine_of(running)
        await planned(running)
        await until(lambda: engine.pid, LONG)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: engine.state is EngineState.FAILED, LONG)
        assert "ended by signal 9" in engine.standing()
        assert "toolyard planner --restart" in engine.mend()


async def test_one_that_cannot_load_its_model_is_given_up_after_some_tries_until_a_person_restarts_it(
    tmp_path: Path, noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.planning.engine.LEAST_PAUSE", 0.0)
    monkeypatch.setattr("gateway.upstream.recovery.BACKOFF", (0.0, 0.0))
    monkeypatch.setattr("gateway.upstream.recovery.GIVE_UP", 2)
    broken = tmp_path / "model"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    async with yard(tmp_path, model=str(broken)) as running:
        engine = engine_of(running)
        for tries in (1, 2):
            await planned(running)
            await until(
                lambda tries=tries: (
                    engine.state is EngineState.FAILED and engine.shown()["failures"] == tries
                ),
                LONG,
            )
        assert "it is not tried again" in engine.standing()
        assert "ended with code 1, saying: " in engine.error
        note = (await planned(running))["note"]
        assert "Planned by rules: the engine is not there" in note
        assert engine.starts == 2
        await engine.restart()
        await planned(running)
        assert engine.starts == 3


async def test_one_that_nobody_uses_is_ended_and_started_again_by_the_next_plan(
    tmp_path: Path, noise: Path
) -> None:
    async with yard(tmp_path, model=str(noise), idle=0.2) as running:
        engine, pid = engine_of(running), await ready(running)
        await until(lambda: engine.state is EngineState.OFF and not alive(pid), LONG)
        assert engine.shown()["failures"] == 0
        assert await ready(running) != pid


async def test_one_that_hangs_is_found_out_and_ended(
    tmp_path: Path, noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.planning.engine.ASK_EVERY", 0.1)
    monkeypatch.setattr("gateway.planning.engine.ANSWER_WITHIN", 0.5)
    async with yard(tmp_path, model=str(noise)) as running:
        engine, pid = engine_of(running), await ready(running)
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: engine.state is EngineState.FAILED, LONG)
        assert "does not answer" in engine.error
        await until(lambda: not alive(pid), LONG)


@pytest.mark.parametrize("moment", ["starting", "ready", "stopped"])
async def test_it_ends_with_the_gateway(tmp_path: Path, noise: Path, moment: str) -> None:
    async with yard(tmp_path, model=str(noise)) as running:
        engine = engine_of(running)
        if moment == "starting":
            await planned(running)
            await until(lambda: engine.pid, LONG)
            assert engine.pid is not None
            pid = engine.pid
        else:
            pid = await ready(running)
            if moment == "stopped":
                os.kill(pid, signal.SIGSTOP)
    assert not alive(pid)


# a gateway of its own process ---------------------------------------------------------------------


async def toolyard(root: Path, *arguments: str) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        *arguments,
        env=own(root),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(child.communicate(), LONG)
    assert b"Traceback" not in said, said.decode()
    assert child.returncode is not None
    return child.returncode, said.decode()


def own(root: Path) -> dict[str, str]:
    places = {"TOOLYARD_STATE_DIR": str(root / "state"), "TOOLYARD_CONFIG_DIR": str(root / "config")}
    return {**os.environ, **places, "COLUMNS": "400"}


@contextlib.asynccontextmanager
async def serving(root: Path, model: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    (root / "config").mkdir()
    shelves = Shelves(root)
    spec = shelves.add("sky", SKY)
    entry = {"command": spec.command, "args": list(spec.args), "plan": {"readOnly": ["*"]}}
    (root / "config" / "mcp.json").write_text(json.dumps({"mcpServers": {"sky": entry}}))
    (root / "config" / "config.toml").write_text(
        f'[search]\nmodel = ""\n[planner]\nmodel = "{model}"\nthreads = 1\nkv_tokens = 4096\n'
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway", "serve", "--port", "0", "--config", str(root / "config" / "mcp.json")),
        env=own(root),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        assert b"http://" in await asyncio.wait_for(process.stdout.readline(), LONG)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def doctors_planner(root: Path) -> dict[str, str]:
    _, said = await toolyard(root, "doctor", "--json")
    checks: dict[str, dict[str, str]] = {check["name"]: check for check in json.loads(said)["checks"]}
    return checks["planner"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_however_a_gateway_ends_its_engine_ends_too_and_doctor_said_what_plans(
    tmp_path: Path, noise: Path, how: signal.Signals
) -> None:
    async with serving(tmp_path, noise) as process:
        check = await doctors_planner(tmp_path)
        assert "the engine is started with the first plan" in check["found"]
        code, said = await toolyard(tmp_path, "plan", RAIN["request"])
        assert code == 0
        assert "Planned by rules: the engine is being started" in said
        deadline = time.monotonic() + LONG
        while "the engine is ready" not in (check := await doctors_planner(tmp_path))["found"]:
            assert time.monotonic() < deadline, check
            await asyncio.sleep(0.2)
        assert check["level"] == "ok"
        _, said = await toolyard(tmp_path, "planner", "--json")
        pid = json.loads(said)["engine"]["pid"]
        assert MARKER in environment(pid)
        _, said = await toolyard(tmp_path, "plan", RAIN["request"], "--explain")
        assert "Planned by model" in said
        process.send_signal(how)
        await asyncio.wait_for(process.wait(), LONG)
        await until(lambda: not alive(pid))


async def test_doctor_says_without_a_gateway_which_planner_there_would_be_and_what_is_missing(
    tmp_path: Path,
) -> None:
    (tmp_path / "config").mkdir()
    config = tmp_path / "config" / "config.toml"
    check = await doctors_planner(tmp_path)
    assert check["found"].startswith("rules, without a model, as none is named")
    config.write_text('[planner]\nmodel = "nowhere"\n')
    check = await doctors_planner(tmp_path)
    assert check["level"] == "warn"
    assert f"there is no model in {tmp_path / 'config' / 'nowhere'}" in check["found"]
    assert "Hugging Face folder" in check["mend"]
