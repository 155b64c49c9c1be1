"""``serve`` and ``stdio``: the verbs that are a gateway, or lead to one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.shared import StateFlag, verb
from gateway.config.options import ServeOptions


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "", serve)
    app.command(
        add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
    )(stdio)


def serve(
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The servers file, as desktop clients write it (mcpServers JSON)."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="The address to listen on [127.0.0.1].")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="The port [7420]; 0 takes a free one."),
    ] = None,
    token: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="The bearer token, instead of the stored one.")
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no token; on loopback addresses only.")
    ] = False,
    names: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY", help="Names of tools: prefix (server__tool), on-collision or priority."
        ),
    ] = None,
    state_dir: StateFlag = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error [info].")
    ] = None,
    detached: Annotated[bool, typer.Option("--detached", hidden=True)] = False,
    idle_exit: Annotated[float | None, typer.Option(min=0, hidden=True)] = None,
) -> None:
    """Run the gateway, until Ctrl-C or SIGTERM.

    Settings given here win over config.toml. Without any configuration it comes up with a starter
    set of servers, so that there is something to call.
    """
    if token is not None and no_auth:
        raise typer.BadParameter("--token and --no-auth exclude each other.")
    for flag, given, choices in (
        ("--names", names, ("prefix", "on-collision", "priority")),
        ("--log-level", log_level, ("debug", "info", "warning", "error")),
    ):
        if given is not None and given not in choices:
            raise typer.BadParameter(f"{given!r} is not one of {', '.join(choices)}.", param_hint=flag)
    from gateway.serve import run

    options = ServeOptions(
        config=config,
        host=host,
        port=port,
        token=token,
        no_auth=no_auth,
        names=names,
        state_dir=state_dir,
        idle_exit=idle_exit,
        detached=detached,
        log_level=log_level,
    )
    raise typer.Exit(run(options))


def stdio(context: typer.Context) -> None:
    """Speak MCP on stdin and stdout, for assistants that launch a server as a child process."""
    from gateway.stdio import main

    raise typer.Exit(main(context.args))
