"""The keys that seal what clients hold, from the command line."""

from __future__ import annotations

import json

from cli_parts import Place


def keys(place: Place, *arguments: str) -> list[dict[str, object]]:
    done = place.run("keys", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)["keys"]
    return found


def test_a_rotation_adds_the_key_that_seals_and_a_retired_key_is_gone(served: Place) -> None:
    (first,) = keys(served, "list")
    assert first["seals"] is True
    newest, older = keys(served, "rotate")
    assert older == {**first, "seals": False}
    assert newest["seals"] is True
    shown = served.run("keys", "list").stdout.splitlines()
    assert shown[0].lower().split() == ["key", "use", "made"]
    assert [line.split()[:2] for line in shown[1:]] == [[newest["id"], "seals"], [older["id"], "opens"]]
    assert keys(served, "retire", str(older["id"])) == [newest]
    assert "secret" not in json.dumps(newest)


def test_a_key_that_is_not_there_is_exit_code_4(served: Place) -> None:
    for name in ("00000000", "no-key", "../status"):
        done = served.run("keys", "retire", name)
        assert done.returncode == 4, done.stderr
        assert "toolyard keys list" in done.stderr


def test_keys_need_a_running_gateway(place: Place) -> None:
    assert place.run("keys", "list").returncode == 3
