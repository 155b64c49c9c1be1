"""Start the server: load the model, bind, serve until SIGTERM, drain, stop."""

from __future__ import annotations

import gc
import logging
import socket
import sys
from pathlib import Path

import uvicorn

from inference.engine import Engine, EngineConfig
from inference.errors import InferenceError
from inference.runner import ModelRunner, RunnerConfig
from inference.server.app import ServerConfig, make_app
from inference.server.security import LOOPBACK

log = logging.getLogger("inference")


def serve(
    folder: Path,
    runner_config: RunnerConfig,
    engine_config: EngineConfig,
    server_config: ServerConfig,
    host: str,
    port: int,
    fd: int | None = None,
) -> None:
    """Serve until a signal. On SIGTERM or SIGINT no new connection is taken and running answers are finished,
    for `drain_seconds` at most.

    :param fd: a bound socket to listen on, in place of an address: whoever starts us knows the port then.
    :raises InferenceError: the model cannot be loaded, or the address cannot be bound.
    """
    listener = _bound(host, port) if fd is None else _inherited(fd)
    if listener.getsockname()[0] not in LOOPBACK and not server_config.token:
        listener.close()
        raise InferenceError(f"Serving on {host} opens the model to the network: pass --token too.")
    # The interpreter hands its lock over every 5 ms by default: as long as a whole decode step.
    sys.setswitchinterval(0.0005)
    engine = Engine(ModelRunner(folder, runner_config), engine_config)
    app = make_app(folder, engine, server_config)
    gc.collect()
    gc.freeze()  # imports and model live for good: a full collection would stall a step to walk them
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=max(1, round(server_config.drain_seconds)),
        lifespan="on",
    )
    listener.listen(2048)
    address = listener.getsockname()
    log.info(
        "serving %s on http://%s:%d (%s)",
        server_config.name,
        address[0],
        address[1],
        engine.runner.kernels.name,
    )
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as problem:
        listener.close()
        raise InferenceError(
            f"{host}:{port} cannot be bound: {problem.strerror}. Choose another --port."
        ) from None
    return listener


def _inherited(fd: int) -> socket.socket:
    try:
        return socket.socket(fileno=fd)
    except OSError as problem:
        raise InferenceError(f"File descriptor {fd} is no socket: {problem.strerror}.") from None
