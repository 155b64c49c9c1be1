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
    fd: Annotated[
        int | None, typer.Option(help="A bound socket that was inherited, in place of --host and --port.")
    ] = None,
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
            fd,
        )
    except (InferenceError, ValueError) as problem:
        _complain(problem)


@app.command()
def bench(
    model: ModelOption,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = "none",
    threads: ThreadsOption = 0,
    kv_tokens: KvOption = 16384,
    backend: BackendOption = "auto",
    rounds: Annotated[int, typer.Option(help="Repetitions; medians are shown.")] = 3,
    picture: Annotated[Path | None, typer.Option(help="Write a bar chart to this SVG file.")] = None,
) -> None:
    """Measure throughput, TTFT, TPOT and the share of the memory roofline, on your own model."""
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        from rich.console import Console
        from rich.table import Table

        from inference.bench import measure
        from inference.chart import chart
        from inference.runner import ModelRunner, RunnerConfig
    except ImportError as problem:
        _complain(InferenceError(f"{problem}. Install the engine's parts: pip install 'toolyard[inference]'"))
        return
    try:
        runner = ModelRunner(
            model,
            RunnerConfig(
                device=device,
                backend=backend,
                dtype=dtype,
                quantize=quantize,
                threads=_threads(threads),
                kv_tokens=kv_tokens,
            ),
        )
        report = measure(runner, rounds=rounds)
    except (InferenceError, ValueError) as problem:
        _complain(problem)
        return
    decode = Table(title=f"decode ({report.backend})", title_justify="left")
    for column in ("batch", "tokens/s", "TPOT ms", "of roofline"):
        decode.add_column(column, justify="right")
    for d in report.decode:
        share = "-" if d.roofline is None else f"{d.roofline:.0%}"
        decode.add_row(str(d.batch), f"{d.tokens_per_second:,.1f}", f"{d.tpot * 1e3:.2f}", share)
    prompts = Table(title="prompts", title_justify="left")
    for column in ("tokens", "TTFT ms", "tokens/s", "TTFT ms, prefix cached"):
        prompts.add_column(column, justify="right")
    for p in report.prompts:
        prompts.add_row(
            f"{p.tokens:,}", f"{p.cold * 1e3:.1f}", f"{p.tokens / p.cold:,.0f}", f"{p.warm * 1e3:.1f}"
        )
    console = Console()
    weights = f"{report.model}: {report.weight_bytes / 1e6:,.0f} MB of weights in a decode step"
    if report.bandwidth is not None:
        weights += f", read bandwidth {report.bandwidth / 1e9:.1f} GB/s"
    console.print(weights)
    console.print(decode)
    console.print(prompts)
    if picture is not None:
        picture.write_text(chart(report), "utf-8")
        console.print(f"picture: {picture}")
