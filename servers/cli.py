"""The verbs ``convert``, ``host``, ``warm`` and ``sandbox``, as functions that typer can mount."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from servers.errors import ManifestError, SandboxUnavailable, ServersError, SourceError

app = typer.Typer(
    name="servers",
    help="Turn Python repositories into MCP services, and run them.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
Weak = Annotated[bool, typer.Option("--allow-weak-sandbox", help="Accept sandbox L1 where there is no more.")]
Least = Annotated[str, typer.Option("--require-sandbox", help="Refuse less than this level (L1, L2, L3).")]


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


@app.command("convert")
def convert(
    source: Annotated[
        str, typer.Argument(help="A folder, a git URL, an archive, a .py file, or a requirement.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Where to write manifest.json; a folder named like the source, unless told."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The service's name.")] = None,
    extra: Annotated[
        list[str] | None, typer.Option("--extra", help="A requirement to add; may be repeated.")
    ] = None,
    network: Annotated[
        bool, typer.Option("--network", help="Permit the service to use the network.")
    ] = False,
    review_seconds: Annotated[
        float, typer.Option("--review-seconds", help="Time for trying the tools.")
    ] = 15.0,
    model_url: Annotated[
        str | None,
        typer.Option(
            "--model-url",
            help="An OpenAI-compatible API (…/v1) that may propose names, descriptions and examples.",
        ),
    ] = None,
    model: Annotated[str, typer.Option("--model", help="The model to ask there.")] = "default",
    update: Annotated[bool, typer.Option("--update", help="Convert again, and show what changed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report, but write nothing.")] = False,
    require_sandbox: Least = "L2",
    allow_weak_sandbox: Weak = False,
) -> None:
    """Convert a Python repository into a verified MCP service."""
    from servers.convert import report
    from servers.convert import source as sources
    from servers.manifest import files

    start = time.monotonic()
    before = None
    if name is not None and not _NAME.fullmatch(name):
        raise SourceError(
            f"A service cannot be called '{name}'.", "Use letters, digits, '-', '_' and '.', 64 at most."
        )
    folder = out or _folder(name or _label(source))
    try:
        before = files.read(folder) if files.path_of(folder).is_file() else None
    except ManifestError as error:
        say(f"converting again: {error}")
    if (
        before is not None
        and not update
        and report.unchanged(before, source, tuple(extra or ()), sources.digest_of)
    ):
        say(f"{folder}: unchanged, {len(before.tools)} tools ({time.monotonic() - start:.1f} s)")
        return
    from servers.convert import pipeline, suggest
    from servers.manifest.records import Permissions
    from servers.sandbox import levels

    level = levels.require(require_sandbox, allow_weak=allow_weak_sandbox)
    options = pipeline.Options(
        level=level,
        name=name,
        extras=tuple(extra or ()),
        review_seconds=review_seconds,
        permissions=Permissions(network=network),
        model=suggest.Endpoint(model_url, model) if model_url else None,
    )
    manifest = pipeline.convert(source, options, say)
    if before is not None:
        say(report.difference(before, manifest))
    if not dry_run:
        path = files.write(manifest, folder)
        say(f"wrote {path}")
    print(report.summary(manifest, time.monotonic() - start))
    if not dry_run:
        where = folder if folder.is_absolute() else f"./{folder}"
        say(f"  next: toolyard use {where}")


def _label(source: str) -> str:
    """What a source is called: its last part, without version, extras and suffix."""
    tail = source.rstrip("/").removesuffix(".git").rpartition("/")[2]
    tail = re.sub(r"(-\d[^/]*)?\.(whl|zip|tgz|tar\.\w+)$|\.py$", "", tail)
    return re.split(r"[=<>!~\[; @]", tail)[0].strip(".") or "service"


def _folder(label: str) -> Path:
    """Where a service goes that nobody gave a place: never into a folder that holds something else."""
    from servers.manifest import files

    folder = Path(label)
    taken = folder.exists() and not files.path_of(folder).is_file()
    return Path(f"{label}-service") if taken or folder.is_file() else folder


@app.command("host")
def host(
    directory: Annotated[str, typer.Argument(help="A folder with manifest.json, or a shipped service.")],
    workers: Annotated[int | None, typer.Option("--workers", help="How many calls may run at once.")] = None,
    require_sandbox: Least = "",
    allow_weak_sandbox: Weak = False,
) -> None:
    """Serve a converted service over stdio."""
    from servers.host.start import start

    code = start(directory, workers=workers, require=require_sandbox, allow_weak=allow_weak_sandbox)
    if code:
        raise typer.Exit(code)


@app.command("warm")
def warm(
    services: Annotated[
        list[str] | None, typer.Argument(help="Shipped services by name, or folders with manifests.")
    ] = None,
) -> None:
    """Build the environments of converted services now: of those named, or of the starter set."""
    from servers.convert import environment
    from servers.manifest import files, shipped
    from servers.sandbox import levels

    for service in services or shipped.STARTERS:
        manifest = files.read(shipped.locate(service))
        start = time.monotonic()
        path = environment.rebuild(manifest.environment, levels.require(manifest.sandbox))
        say(f"{manifest.name}: {path} ({time.monotonic() - start:.1f} s)")


@app.command("document")
def document(
    directory: Annotated[Path, typer.Argument(help="The directory with manifest.json.")],
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; else it is printed.")] = None,
) -> None:
    """Write a service's documentation page from its manifest."""
    from servers.convert import document as pages
    from servers.manifest import files

    text = pages.page(files.read(directory))
    if out is None:
        print(text)
    else:
        out.write_text(text, "utf-8")


@app.command("sandbox")
def sandbox() -> None:
    """Show which sandbox this machine gives, and what it leaves open."""
    from servers.sandbox import levels

    print("\n".join(levels.report().lines()))


def main(arguments: list[str], program: str = "python -m servers") -> int:
    """Run one command line; returns its exit code. Errors are sentences on stderr.

    :param program: what the help calls this program.
    """
    try:
        app(arguments, prog_name=program, standalone_mode=False)
    except typer.Exit as end:
        return int(end.exit_code)
    except (SandboxUnavailable, ServersError) as error:
        say(f"error: {error.message}" + (f"\n       {error.hint}" if error.hint else ""))
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        format_message = getattr(error, "format_message", None)
        if format_message is None:
            raise
        say(f"error: {format_message()}")
        return 2
    return 0
