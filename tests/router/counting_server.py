"""A server with side effects: it counts what it is asked to do, in a log on disk.

    python counting_server.py SOCKET LOG

One JSON object a line: ``{"tool", "key", "seconds", "fsync"}``. The line is in the log, on disk, before the
tool does anything else; the answer comes after ``seconds``. Ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys


async def main(path: str, log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                asked = json.loads(line)
                os.write(descriptor, f"{asked['tool']} {asked['key']}\n".encode())
                await asyncio.sleep(asked["seconds"])
                writer.write(
                    json.dumps({"structuredContent": {"key": asked["key"]}, "content": []}).encode() + b"\n"
                )
                await writer.drain()
        except ConnectionError:
            pass  # the caller was killed
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
