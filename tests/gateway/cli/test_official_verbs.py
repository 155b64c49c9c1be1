"""``registry search-official|import-official`` against a real registry: nothing runs before a person says so."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_parts import WAIT, Place, end, on_terminal, read_until
from official_parts import other_registry

ALICE, BOB = "io.example.alice/weather", "io.example.bob/weather"


@pytest.fixture(scope="module")
def peer() -> Iterator[str]:
    with other_registry() as url:
        yield f"{url}/good"


@pytest.fixture
def ran(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a run of ``npx`` leaves behind."""
    marker, folder = place.root / "npx-ran", place.root / "bin"
    folder.mkdir()
    (folder / "npx").write_text(f'#!/bin/sh\necho "$@" >> {marker}\necho "key $WEATHER_KEY" >> {marker}\n')
    (folder / "npx").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("WEATHER_KEY", "k-1234")
    return marker


def states(place: Place) -> dict[str, str]:
    seen = json.loads(place.run("status", "--json").stdout)
    return {row["name"]: row["state"] for row in seen["servers"] if row["origin"] == "added"}


def test_a_search_lists_names_versions_and_kinds(place: Place, peer: str) -> None:
    done = place.run("registry", "search-official", "weather", "--url", peer)
    assert done.returncode == 0, done.stderr
    assert ALICE in done.stdout
    assert "npm" in done.stdout
    assert "carol" not in done.stdout
    rows = json.loads(place.run("registry", "search-official", "weather", "--url", peer, "--json").stdout)
    assert [row["name"] for row in rows["servers"]] == [ALICE, BOB]


def test_an_import_without_a_gateway_leaves_everything_pending(place: Place, peer: str, ran: Path) -> None:
    place.run("registry", "import-official", "--all", "--url", peer)  # nobody can be asked
    assert states(place) == {}
    done = place.run("registry", "import-official", "--all", "--url", peer, "--yes")
    assert done.returncode == 0, done.stderr
    assert "npx -y @alice/weather@1.2.3" in done.stdout
    assert "WEATHER_KEY" in done.stdout
    assert "k-1234" not in done.stdout
    assert "io.example.eve/thief" in done.stdout.partition("Skipped:")[2]
    assert "bundle" in done.stdout.partition("Skipped:")[2]
    seen = states(place)
    # There is no uvx on this PATH, and a command that cannot be found cannot be approved.
    assert seen == {"weather": "pending", "bob-weather": "disabled", "notes": "failed"}
    again = place.run("registry", "import-official", "--all", "--url", peer, "--yes")
    assert "it is here as weather" in again.stdout
    assert len(states(place)) == 3
    assert not ran.exists()


def test_a_running_gateway_starts_it_only_once_it_is_approved(place: Place, peer: str, ran: Path) -> None:
    process = place.serve()
    try:
        done = place.run("registry", "import-official", ALICE, BOB, "--url", peer, "--yes")
        assert done.returncode == 0, done.stderr
        assert "toolyard approve weather" in done.stdout
        assert "set MCP_BOB_WEATHER_X_KEY, then toolyard enable bob-weather" in done.stdout
        assert states(place) == {"weather": "pending", "bob-weather": "disabled"}
        place.run("tools")
        assert not ran.exists()
        assert place.run("approve", "weather").returncode == 0
        place.run("restart", "weather")
        said = ran.read_text()
        assert "-y @alice/weather@1.2.3" in said
        assert "key k-1234" in said
    finally:
        assert end(process) == 0


def test_a_person_is_asked_and_may_say_no(place: Place, peer: str, ran: Path) -> None:
    with on_terminal(place, "registry", "import-official", ALICE, "--url", peer) as (process, terminal):
        read_until(terminal, "npx -y @alice/weather@1.2.3", "Add 1 server?")
        os.write(terminal, b"n\n")
        read_until(terminal, "Nothing was added.")
        assert process.wait(WAIT) == 0
    assert states(place) == {}


def test_show_tells_what_can_be_given_and_adds_nothing(place: Place, peer: str) -> None:
    done = place.run("registry", "import-official", BOB, "--url", peer, "--show")
    assert done.returncode == 0, done.stderr
    assert "https://eu.example.com/mcp" in done.stdout
    assert "can be set: region" in done.stdout
    us = place.run("registry", "import-official", BOB, "--url", peer, "--show", "--set", "region=us")
    assert "https://us.example.com/mcp" in us.stdout
    assert states(place) == {}


def test_what_is_new_is_imported_by_itself(place: Place, peer: str) -> None:
    flags = ("--updated-since", "2026-02-15T00:00:00Z", "--url", peer, "--yes")
    assert place.run("registry", "import-official", "--all", *flags).returncode == 0
    assert list(states(place)) == ["notes"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--all", ALICE),
        (ALICE, "--search", "x"),
        ("--all", "--as", "x"),
        (ALICE, "--prefer", "cargo"),
        ("--all", "--updated-since", "soon"),
    ],
)
def test_flags_that_do_not_fit_are_wrong_usage(place: Place, arguments: tuple[str, ...]) -> None:
    assert place.run("registry", "import-official", *arguments, "--url", "http://127.0.0.1:9").returncode == 2


def test_a_registry_that_is_not_there_is_one_sentence_and_what_to_do(place: Place) -> None:
    done = place.run("registry", "search-official", "x", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr


def test_a_measurement_of_search_over_nothing_says_what_to_do(place: Place) -> None:
    done = place.run("bench", "search")
    assert done.returncode == 1
    assert "There are no tools here" in done.stderr
    assert "import-tools" in done.stderr
    assert place.run("bench", "search", "--queries", "dreams").returncode == 2
