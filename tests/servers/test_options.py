"""Options of commands as properties, and the command line they make."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.worker import options
from servers.worker.problems import BadArgument


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("source")
    made.add_argument("targets", nargs="*")
    made.add_argument("--depth", "-d", type=int, default=3)
    made.add_argument("--name", action="append")
    made.add_argument("--pair", nargs=2)
    made.add_argument("-q", action="store_true")
    made.add_argument("--color", action=argparse.BooleanOptionalAction)
    made.add_argument("--secret", help=argparse.SUPPRESS)
    return made


def test_help_and_hidden_options_are_left_out() -> None:
    names = [each["name"] for each in options.of_argparse(parser())]
    assert names == ["source", "targets", "depth", "name", "pair", "q", "color"]


words = st.text(st.characters(codec="utf-8", exclude_characters="\0", categories=("L", "N", "P")), min_size=1)


@given(
    source=words,
    targets=st.lists(words, max_size=3),
    depth=st.integers(-5, 5),
    name=st.lists(words, max_size=3),
    quiet=st.booleans(),
    color=st.one_of(st.none(), st.booleans()),
)
def test_the_program_reads_what_the_caller_meant(
    source: str, targets: list[str], depth: int, name: list[str], quiet: bool, color: bool | None
) -> None:
    arguments: dict[str, Any] = {
        "source": source, "targets": targets, "depth": depth, "name": name, "q": quiet, "color": color,
    }  # fmt: skip
    if "--" in (source, *targets):
        return  # argparse drops it from among positional arguments, whoever writes it
    read = parser().parse_args(options.argv(options.of_argparse(parser()), arguments))
    assert (read.source, read.targets, read.depth, read.q) == (source, targets, depth, quiet)
    assert (read.name or []) == name
    assert read.color == color


def test_a_positional_argument_without_the_one_before_it_is_refused() -> None:
    with pytest.raises(BadArgument, match="'source' is missing"):
        options.argv(options.of_argparse(parser()), {"targets": ["x"]})


def test_click_commands_tell_the_same() -> None:
    click = pytest.importorskip("click")

    @click.command()
    @click.argument("source")
    @click.option("--depth", "-d", type=int, default=3, help="How deep.")
    @click.option("--name", multiple=True)
    @click.option("--style", type=click.Choice(["a", "b"]))
    @click.option("--color/--no-color", default=True)
    @click.option("-v", "--verbose", count=True)
    @click.option("--secret", hidden=True)
    def command(**given: Any) -> None:
        """Do it."""

    found = options.of_click(command)
    by_name = {each["name"]: each for each in found}
    assert list(by_name) == ["source", "depth", "name", "style", "color", "verbose"]
    assert by_name["depth"]["description"] == "How deep."
    assert by_name["style"]["type"] == {"k": "literal", "values": ["a", "b"]}
    line = options.argv(found, {"source": "-x", "depth": 2, "name": ["p", "q"], "color": False, "verbose": 2})
    assert line == ["--depth=2", "--name=p", "--name=q", "--no-color", "--verbose", "--verbose", "--", "-x"]
    context = command.make_context("command", line)
    assert context.params["source"] == "-x"
    assert context.params["name"] == ("p", "q")
