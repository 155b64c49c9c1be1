"""Processes that run plans against the counting server, to be killed at any moment.

    python run_worker.py < COMMANDS

Each line, ``[PIPE, JOURNAL, SOCKET, "new", SEED]`` or ``[PIPE, JOURNAL, SOCKET, "resume"]``, forks a
process, whose id is printed: it begins a run, or takes up what was under way or has been given a word,
and says on the named pipe which step it calls and how each run has ended. Forked from a process that has
imported everything, it is at work within milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from typing import Any, TextIO

from router.calling import Call
from router.consent import Consent
from router.errors import CallFailed
from router.executor import Executor
from router.facts import Facts
from router.journal.journal import Journal
from router.plan import Definition, Plan, Ref, Step
from router.running import Options, Party
from router.runs import RunStatus

SCHEMA = {"type": "object", "properties": {"key": {"type": "string"}, "seconds": {"type": "number"}}}


def tool(name: str, **facts: Any) -> Facts:
    definition = Definition(name, input_schema=SCHEMA, hash="1", server="counting")
    return Facts(definition, open_world=False, trusted=True, **facts)


TOOLS = {
    "read": tool("read", read_only=True),
    "put": tool("put", idempotent=True),
    "pay": tool("pay"),
}


def random_plan(seed: int) -> Plan:
    """Twelve steps, most of them with side effects, that use each other's results."""
    chance = random.Random(seed)
    steps: list[Step] = []
    for number in range(12):
        needs = chance.sample(steps, min(len(steps), chance.choice((0, 1, 2))))
        arguments = {
            "key": f"{seed}-{number}",
            "seconds": chance.choice((0, 0, 0.005, 0.02)),
            "after": [Ref(need.id, "key") for need in needs],
        }
        name = chance.choice(("pay", "pay", "put", "read"))
        steps.append(Step(str(number), name, arguments, tuple(need.id for need in needs)))
    return Plan(tuple(steps), "count")


class Client:
    """Calls over the socket, one connection a call: the process may die at any moment."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def __call__(self, call: Call) -> bytes:
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            raise CallFailed(str(error), kind="unavailable", unknown=False, retriable=True) from error
        try:
            asked = {"tool": call.tool, "key": call.arguments["key"], "seconds": call.arguments["seconds"]}
            writer.write(json.dumps(asked).encode() + b"\n")
            await writer.drain()
            line = await reader.readline()
            if not line:
                raise CallFailed("The server went away.", kind="lost_connection", retriable=True)
            return line
        finally:
            writer.close()


async def work(out: TextIO, journal_path: str, socket: str, what: str, seed: int = 0) -> None:
    def told(event: Any, state: Any) -> None:
        if event.kind in ("calling", "started", "resumed"):
            print(event.kind, event.step, file=out, flush=True)

    async with Journal(journal_path) as journal:
        executor = Executor(journal, Client(socket), TOOLS.get)
        if what == "new":
            options = Options(consent=Consent.ALL)
            await executor.run(random_plan(seed), options, Party(watch=told))
        else:
            waiting = await journal.read(lambda records: records.runs(statuses=[RunStatus.WAITING]))
            for run in [*(await executor.orphans()), *(run.id for run in waiting)]:
                await executor.resume(run, Party(watch=told))
    print("ended", file=out, flush=True)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: their pipes say when they end
    for line in sys.stdin:
        pipe, *arguments = json.loads(line)
        if pid := os.fork():
            print(pid, flush=True)
            continue
        with open(pipe, "w") as out:
            asyncio.run(work(out, *arguments))
        os._exit(0)


if __name__ == "__main__":
    main()
