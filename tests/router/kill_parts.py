"""Killing a process that runs plans, again and again, and comparing what it says with what was done."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from run_worker import TOOLS, random_plan

from router.journal.database import Database
from router.journal.records import Records
from router.runs import Decision, RunStatus, StepStatus, Verdict

HERE = Path(__file__).parent
WAIT = 60.0


@dataclass
class Toll:
    """What a campaign of kills came to."""

    kills: int = 0
    unknown: int = 0
    repeated_alone: int = 0
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def script(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A script of this folder in a process of its own."""
    command = [sys.executable, str(HERE / name), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Workers:
    """Starts processes that run plans, kills them, or lets them come to their end."""

    def __init__(self, folder: Path, nursery: subprocess.Popen[str], socket: str) -> None:
        self._folder, self._nursery, self._socket = folder, nursery, socket
        self._number = 0

    def run(self, journal: Path, what: str, seed: int, chance: random.Random | None = None) -> bool:
        """Have one at work; kill it at a random moment where there is a ``chance``. Returns whether it was killed."""
        self._number += 1
        pipe = self._folder / f"pipe{self._number}"
        os.mkfifo(pipe)
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps([str(pipe), str(journal), self._socket, what, seed]) + "\n")
        self._nursery.stdin.flush()
        pid = int(self._nursery.stdout.readline())
        after = chance.randrange(14) if chance is not None else sys.maxsize  # so many calls are let go by
        timer = threading.Timer(WAIT, os.kill, (pid, signal.SIGKILL))
        timer.start()
        try:
            with pipe.open() as lines:
                for number, line in enumerate(lines):
                    if line.startswith("ended"):
                        return False
                    if chance is not None and number == after:
                        time.sleep(chance.uniform(0, 0.02))  # anywhere in what follows, and not at a print
                        with suppress(ProcessLookupError):  # it may have come to its end meanwhile
                            os.kill(pid, signal.SIGKILL)
        finally:
            timer.cancel()
        assert chance is not None, "a process that nobody killed did not come to its end"
        return True


def campaign(folder: Path, kills: int, seed: int) -> Toll:
    """Kill runs ``kills`` times; finish each with a person's words; compare with the server's log."""
    chance, toll = random.Random(seed), Toll()
    path, log = str(folder / "s"), folder / "log"
    with script("counting_server.py", path, str(log)) as server, script("run_worker.py") as nursery:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        workers, number = Workers(folder, nursery, path), 0
        while toll.kills < kills:
            number += 1
            _one(folder / f"{number}.db", workers, log, seed * 10_000 + number, chance, toll, kills)
    return toll


def _one(
    journal: Path, workers: Workers, log: Path, seed: int, chance: random.Random, toll: Toll, kills: int
) -> None:
    toll.kills += workers.run(journal, "new", seed, chance)
    answers: dict[str, Verdict] = {}
    for _ in range(40):
        run = _settle(journal, log, seed, answers, toll)
        if run is None or run.ended:
            break
        again = toll.kills < kills and chance.random() < 0.5
        toll.kills += workers.run(journal, "resume", seed, chance if again else None)
    _compare(journal, log, seed, answers, toll)


def _settle(journal: Path, log: Path, seed: int, answers: dict[str, Verdict], toll: Toll) -> RunStatus | None:
    """Where the run stands; a person answers what it waits for, as the server's log has it."""
    records = _records(journal)
    if records is None:
        return None
    try:
        runs = records.runs()
        if not runs:
            return None
        (run,) = runs
        done = _log(log)
        for state in records.steps(run.id).values():
            if state.status is not StepStatus.UNKNOWN or state.question is None:
                continue
            toll.unknown += 1
            times = done[f"{state.tool} {seed}-{state.id}"]
            if TOOLS[state.tool].repeatable:
                toll.wrong.append(f"{seed}/{state.id}: {state.tool} is unknown although it may be repeated")
            if times > 1:
                toll.doubled.append(f"{seed}/{state.id}")
            # The person looks at the server: what it has done is not to be done again.
            verdict = Verdict.HAPPENED if times else Verdict.APPROVE
            if verdict is Verdict.HAPPENED and _used(seed, state.id):
                verdict = Verdict.DENY  # others need its result, and nobody has it
            answers[state.id] = verdict
            records.decide(run.id, state.id, Decision(verdict, state.question.digest, "test"))
        return run.status
    finally:
        records.database.close()


def _used(seed: int, step: str) -> bool:
    return any(ref.step == step for other in random_plan(seed).steps for ref in other.refs())


def _compare(journal: Path, log: Path, seed: int, answers: dict[str, Verdict], toll: Toll) -> None:
    done = _log(log)
    records = _records(journal)
    if records is None:
        return
    try:
        runs = records.runs()
        if not runs:
            return
        (run,) = runs
        if not run.status.ended:
            toll.wrong.append(f"{seed}: the run did not finish: {run.status}")
        for state in records.steps(run.id).values():
            times = done[f"{state.tool} {seed}-{state.id}"]
            if state.tool == "pay" and times > 1:
                toll.doubled.append(f"{seed}/{state.id}: {times} times")
            if state.tool != "pay" and times > 1:
                toll.repeated_alone += 1
            if state.status is StepStatus.DONE and times == 0:
                toll.wrong.append(f"{seed}/{state.id}: done, says the journal; never, says the server")
            denied = answers.get(state.id) is Verdict.DENY
            lost = state.tool == "read" and state.status is StepStatus.SKIPPED  # its intent may be lost
            if times and state.status not in (StepStatus.DONE, StepStatus.FAILED) and not lost:
                toll.wrong.append(f"{seed}/{state.id}: called and then {state.status}")
            if state.status is StepStatus.FAILED and not denied:
                toll.wrong.append(f"{seed}/{state.id}: failed without reason: {state.failure}")
    finally:
        records.database.close()


def _records(journal: Path) -> Records | None:
    return Records(Database.open(journal)) if journal.exists() else None


def _log(log: Path) -> Counter[str]:
    return Counter(log.read_text().splitlines()) if log.exists() else Counter()
