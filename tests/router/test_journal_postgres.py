"""Two replicas on one real Postgres: what one has begun the other can go on with, and only one runs it."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_parts import Town, answering, plan, ref, step

from router.consent import Consent
from router.errors import RunLost
from router.executor import Executor
from router.journal.journal import Journal
from router.journal.records import Change
from router.running import Options
from router.runs import RunStatus, Verdict

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of a Postgres of this test's own."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'toolyard[postgres]'")
    found = shutil.which("initdb") or next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))), None)
    if found is None:
        pytest.skip("no Postgres is installed (initdb was not found)")
    tools = Path(found).resolve().parent
    # It refuses to run as root.
    owner = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        if owner:
            shutil.chown(folder, "nobody", "nogroup")

        def run(*command: str) -> None:
            subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=folder, **owner)  # type: ignore[call-overload]

        data = f"{folder}/data"
        run(str(tools / "initdb"), "-D", data, "-A", "trust", "-U", "yard", "--no-sync")
        control = (str(tools / "pg_ctl"), "-D", data)
        run(*control, "-w", "-l", f"{folder}/log", "-o", f"-k {folder} -c listen_addresses=", "start")
        try:
            yield f"postgresql+psycopg://yard@/postgres?host={folder}"
        finally:
            run(*control, "-m", "immediate", "stop")


async def test_a_run_that_one_replica_parked_is_finished_by_another(database: str) -> None:
    town = Town()
    town.tool("read", answering({"id": 1, "text": "x" * 50_000}), read=True, trusted=True)
    town.tool("write", trusted=True)
    async with Journal(database) as one, Journal(database) as other:
        assert one.shared
        first, second = Executor(one, town.call, town.tools.get), Executor(other, town.call, town.tools.get)
        outcome = await first.run(plan(step("1", "read"), step("2", "write", {"id": ref("1", "id")})))
        assert outcome.status is RunStatus.WAITING
        assert not await second.decide(outcome.run.id, "2", Verdict.APPROVE, "ann")
        outcome = await second.resume(outcome.run.id)
        assert outcome.status is RunStatus.DONE
        assert outcome.run.epoch == 2
        assert len(await first.result(outcome.run.id, outcome.steps["1"]) or b"") > 50_000


async def test_a_run_is_taken_from_a_replica_only_when_its_lease_is_over(database: str) -> None:
    town = Town()
    town.tool("write")
    async with Journal(database) as one, Journal(database) as other:
        outcome = await Executor(one, town.call, town.tools.get).run(plan(step("1", "write")))
        claimed = await one.claim(outcome.run.id)
        with pytest.raises(RunLost):
            await other.claim(outcome.run.id)
        late = time.time() + 3600
        taken = await other.read(
            lambda r: r.claim(outcome.run.id, other.owner, now=late, lease=late + 60, force=False)
        )
        assert taken.epoch == claimed.epoch + 1
        with pytest.raises(RunLost):
            await one.write(Change(claimed.id, claimed.epoch))


async def test_runs_of_two_replicas_do_not_disturb_each_other(database: str) -> None:
    town = Town()
    town.tool("write", trusted=True, open_world=False)
    async with Journal(database) as one, Journal(database) as other:
        executors = [Executor(journal, town.call, town.tools.get) for journal in (one, other)]
        chain = plan(
            step("1", "write"),
            *(step(str(i), "write", {"x": ref(str(i - 1))}, str(i - 1)) for i in range(2, 6)),
        )
        for executor in executors * 3:
            assert (await executor.run(chain, Options(consent=Consent.ALL))).status is not RunStatus.FAILED
        assert await one.orphans() == []
