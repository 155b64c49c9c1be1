"""`serve` and `bench`: mounted by the gateway's CLI as `toolyard infer`, or run as `python -m inference`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from inference.errors import InferenceError

app = typer.Typer(name="infer", no_args_is_help=True)

ModelOption = Annotated[
    Path, typer.Option(help="Hugging Face folder: config.json, safetensors, tokenizer.json.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]
DtypeOption = Annotated[str, typer.Option(help="auto (the checkpoint's), float32 or bfloat16.")]
QuantizeOption = Annotated[str, typer.Option(help="Weight-only quantisation: none, int8 or int4.")]
ThreadsOption = Annotated[int, typer.Option(help="CPU threads; 0: one for each core.")]
KvOption = Annotated[int, typer.Option(help="Tokens that the KV cache holds, over all requests.")]
BackendOption = Annotated[str, typer.Option(help="auto, cpu, reference or triton.")]


def _threads(wanted: int) -> int:
    if wanted:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _complain(problem: Exception) -> None:
    typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(1) from None


@app.callback()
def infer() -> None:
    """Serve a language model from this machine, and measure it."""


@app.command()
def serve(
    model: ModelOption,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = "none",
    threads: ThreadsOption = 0,
    kv_tokens: KvOption = 32768,
    backend: BackendOption = "auto",
    host: Annotated[
        str, typer.Option(help="Address to bind; other than loopback needs --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 chooses a free one.")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="TOOLYARD_INFER_TOKEN", help="Bearer token that clients must send.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Model name in the API; default: the folder's.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Further Host names to answer to.")] = None,
    max_running: Annotated[int, typer.Option(help="Sequences computed together.")] = 64,
    max_waiting: Annotated[int, typer.Option(help="Requests that may queue before 429.")] = 512,
    step_tokens: Annotated[int, typer.Option(help="Token budget of a step.")] = 512,
    max_context: Annotated[int | None, typer.Option(help="Lower the model's context length.")] = None,
    prefix_cache: Annotated[bool, typer.Option(help="Share computed prefixes between requests.")] = True,
    speculate: Annotated[bool, typer.Option(help="Prompt-lookup speculation (lossless).")] = True,
    drain_seconds: Annotated[float, typer.Option(help="Time for running answers after SIGTERM.")] = 30.0,
) -> None:
    """Serve an OpenAI-compatible API on this machine until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        from inference.engine import EngineConfig
        from inference.runner import RunnerConfig
        from inference.server.app import ServerConfig
        from inference.server.run import serve as run
    except ImportError as problem:
        _complain(InferenceError(f"{problem}. Install the engine's parts: pip install 'toolyard[inference]'"))
        return
    hosts = frozenset({host, *(allow_host or [])})
    try:
        run(
            model,
            RunnerConfig(
                device=device,
                backend=backend,
                dtype=dtype,
                quantize=quantize,
                threads=_threads(threads),
                kv_tokens=kv_tokens,
                step_tokens=step_tokens,
                max_context=max_context,
            ),
            EngineConfig(
                max_running=max_running,
                max_waiting=max_waiting,
                step_tokens=step_tokens,
                prefix_cache=prefix_cache,
                speculate=speculate,
            ),
            ServerConfig(name or model.resolve().name, token, hosts, drain_seconds),
            host,
            port,
        )
    except (InferenceError, ValueError) as problem:
        _complain(problem)
