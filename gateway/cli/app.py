"""``toolyard``: the verbs together, the help that teaches them, and the end of every error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from gateway.cli import parts, render
from gateway.cli.exits import Exit, code_of
from gateway.errors import GatewayError
from gateway.paths import config_dir, default_state_dir
from gateway.version import __version__
from registry.errors import RegistryError

HELP: Final = """\
Toolyard: one MCP endpoint over many MCP servers.

Usage: toolyard COMMAND [ARGUMENTS]

First steps
  toolyard serve              start the gateway; it prints its URL and its token
  toolyard add time -- uvx mcp-server-time
  toolyard add docs https://example.com/mcp --header-env Authorization=DOCS_AUTH
  toolyard status             what is connected
  toolyard call time__get_current_time '{"timezone": "Europe/Berlin"}'
  toolyard connect claude     have an assistant use it

  Any other MCP client: point it at the URL, with the token as its bearer token,
  or let it launch the command `toolyard stdio`.

Run the gateway
  serve      run it here, until Ctrl-C
  stdio      speak MCP on stdin and stdout; starts a gateway where none runs

Its servers
  add        add one: a command to start, or a URL
  use        add a converted service, shipped or your own
  manifests  list the converted services that come with Toolyard
  remove     take one out again
  approve    give leave to start a server's command
  enable     switch one on again
  disable    switch one off
  restart    end one and start it anew; one that failed is tried again
  status     the gateway and every server; --watch stays and follows
  inspect    everything about one server or one tool
  logs       what a server writes to its log; -f follows

Your assistants
  import     take over the servers that an assistant has
  connect    write this gateway into an assistant's own file

  Both know claude (Desktop), claude-code, cursor and vscode.

The tools
  tools      list them under the names that clients see
  call       call one
  plan       say which calls serve a request; nothing is called
  run        plan a request and run it, or run a plan; --dry-run calls nothing
  runs       list|show|resume|cancel|approve|deny|promote: the runs of plans
             to a tool of its own
  planner    what makes plans, and how its engine stands
  search     find those that can do something
  approve-call
             allow a call that a client's model wants to make, or deny it
  registry   every tool known: versions, approvals, statistics, and toolsets
  bench      measure search on the tools that are here

Your own code, and a model of your own
  convert    make an MCP service out of a Python repository
  host       serve a converted one on stdin and stdout
  warm       build the environments of converted ones now
  infer      serve a language model from this machine, or measure it

Its secrets
  keys       list, rotate and retire the keys that seal session ids

Help
  doctor     check this installation, and say how to mend it
  version    print the version

  Every command has --help and --state-dir, every listing has --json.

Exit codes
  0  done                          4  no server or tool of that name
  1  failed                        5  the tool answered with an error
  2  wrong usage                   6  the configuration is not valid
  3  no gateway is running         7  another gateway holds the state directory

Where things are kept
  {state}
      the store, the token, sockets and logs; --state-dir or
      TOOLYARD_STATE_DIR choose another
  {config}
      config.toml for settings, mcp.json for servers as desktop clients write
      them; TOOLYARD_CONFIG_DIR or `serve --config FILE` choose others
"""


class _Help(TyperGroup):
    """The group whose help is a page for a newcomer instead of a list."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(
            HELP.replace("{state}", str(default_state_dir())).replace("{config}", str(config_dir()))
        )


app: Final = typer.Typer(
    name="toolyard",
    cls=_Help,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        render.out(f"toolyard {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One MCP endpoint over many MCP servers."""


@app.command("version")
def print_version() -> None:
    """Print the version."""
    _print_version(True)


def _add_verbs() -> None:
    from gateway.cli import connect, doctor, hosted, importing, keys, logs, run, servers, status, switching
    from gateway.cli import approving, planner, promoting, runs, searching, tools  # isort: skip

    for module in (run, servers, hosted, switching, status, logs, importing, connect, tools, keys, doctor):
        module.add_to(app)
    for module in (searching, approving, planner):
        module.add_to(app)
    promoting.add_to(runs.add_to(app))


def main(arguments: Sequence[str]) -> int:
    """Run one command line. Returns the exit code; never raises, never shows a stack trace."""
    try:
        if arguments and arguments[0] in parts.VERBS:
            return parts.run(arguments)
        _add_verbs()
        if arguments and arguments[0] == "registry":
            from gateway.cli import registry, toolsets  # their verbs import more than the others

            registry.add_to(app)
            toolsets.add_to(app)
        if arguments and arguments[0] == "bench":
            from gateway.cli import bench

            bench.add_to(app)
        try:
            app(list(arguments), prog_name="toolyard")
        finally:
            sys.stdout.flush()  # here, where a reader that has gone is still ours to handle
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else (Exit.OK if end.code is None else Exit.FAILED)
    except GatewayError as error:
        render.problem(error.message, error.hint)
        return _debug(code_of(error))
    except RegistryError as error:
        render.problem(error.message, error.hint)
        return _debug(Exit.FAILED)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # `toolyard tools | head`: the reader has what it wanted. What is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except Exception as error:  # the last resort: whatever it is, a person gets a sentence
        render.problem(
            f"This should not have happened: {type(error).__name__}: {error}",
            "Please report it with the command you gave; TOOLYARD_DEBUG=1 shows where it happened.",
        )
        return _debug(Exit.FAILED)
    return Exit.OK


def _debug(code: Exit) -> int:
    if os.environ.get("TOOLYARD_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    return code
