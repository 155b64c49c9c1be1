"""Inject faults into servers behind a gateway, from a process of its own, and count what came of them.

    python injector.py URL SECONDS COUNT SEED

A process of its own, so that decoding 64 MiB disturbs no measurement. Prints one JSON object at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))

from client import Session, WrongAnswer
from processes import TOKEN

CHILD = ("kill", "exit", "hang", "garbage", "flood-stderr", "flood-stdout", "flood-notices", "slow", "huge")
REMOTE = ("kill", "exit", "hang", "garbage", "slow", "huge", "reset", "cut", "404", "500", "forget")
ABSENT = ("dns", "refused")
GIVE_UP = 15.0


async def inject(url: str, kind: str, mode: str) -> str:
    """One fault; what its caller got."""
    arguments: dict[str, Any] = {"mode": mode, "mib": 64 if mode == "huge" else 16, "seconds": 2, "text": "x"}
    tool = f"{kind}__echo" if kind in ABSENT else f"{kind}__do"
    try:
        async with asyncio.timeout(GIVE_UP), Session(url, token=TOKEN) as session:
            await session.request("tools/call", {"name": tool, "arguments": arguments})
    except WrongAnswer:
        return "error"
    except TimeoutError:
        return "no answer"
    except (OSError, EOFError) as error:
        return f"connection: {type(error).__name__}"
    return "result"


async def main(url: str, seconds: float, count: int, seed: int) -> None:
    """Spread so many faults over the time."""
    chance = random.Random(seed)
    began = time.monotonic()
    outcomes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    running: set[asyncio.Task[None]] = set()

    async def one(kind: str, mode: str) -> None:
        outcomes[await inject(url, kind, mode)] += 1

    for number in range(count):
        await asyncio.sleep(max(0.0, began + seconds * number / count - time.monotonic()))
        kind = chance.choice(["child", "child", "remote", "remote", chance.choice(ABSENT)])
        mode = chance.choice({"child": CHILD, "remote": REMOTE}.get(kind, (kind,)))
        modes[mode] += 1
        task = asyncio.create_task(one(kind, mode))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
    print(json.dumps({"outcomes": outcomes, "modes": modes}))


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        os.nice(5)
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
