"""An MCP server with one of everything, for the official conformance harness and the crossing tests.

    python tests/gateway/fixture_server stdio [--era handshake|stateless|both] [--latest 2025-06-18]
    python tests/gateway/fixture_server http  [--era ...] [--port N]      prints its URL

It speaks the handshake era, 2026-07-28, or both, is written against the specification on the standard
library (uvicorn parses HTTP), and knows no tasks.
"""

from __future__ import annotations

import argparse
import asyncio
import socket

from http_face import Http
from rpc import HANDSHAKE
from server import ERAS, Server
from stdio_face import Stdio


def main() -> None:
    """Serve until stdin ends, or for ever."""
    parser = argparse.ArgumentParser(description="MCP fixture server")
    parser.add_argument("transport", choices=("stdio", "http"))
    parser.add_argument("--era", choices=ERAS, default="both")
    parser.add_argument("--latest", choices=HANDSHAKE, default=HANDSHAKE[0], help="handshake revision")
    parser.add_argument("--ask-roots", action="store_true", help="ask for roots right after initialize")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    server = Server(arguments.era, arguments.latest, arguments.ask_roots)
    if arguments.transport == "stdio":
        asyncio.run(Stdio(server).run())
        return
    import uvicorn

    with socket.create_server(("127.0.0.1", arguments.port)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
        config = uvicorn.Config(
            Http(server), log_level="warning", lifespan="off", timeout_graceful_shutdown=1
        )
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
