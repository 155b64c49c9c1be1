"""What is changed at one gateway is so at every gateway on the same store, without a restart."""

from __future__ import annotations

import contextlib
import sys

from replica_parts import Pair, do, names, soon
from task_parts import FIXTURE, Client, Refused
from yard import Yard


def add_third(yard: Yard) -> None:
    """Add another server by hand."""
    do(yard, "add", "third", "--", sys.executable, str(FIXTURE), "stdio", "--era", "stateless")


def test_a_toolset_added_changed_and_removed_at_one_gateway_is_so_at_the_other(pair: Pair) -> None:
    def seen() -> set[str] | None:
        try:
            return names(pair.other, "/jobs")
        except Refused:
            return None

    assert seen() is None
    pair.one.toolyard("registry", "toolset", "create", "jobs", "new/slow_compute")
    soon("toolset to appear", lambda: seen() == {"new__slow_compute"})
    pair.one.toolyard("registry", "toolset", "edit", "jobs", "*/slow_compute")
    soon("toolset to change", lambda: seen() == {"new__slow_compute", "old__slow_compute"})
    do(pair.one, "registry", "toolset", "remove", "jobs")
    soon("toolset to go", lambda: seen() is None)


def test_a_tool_withheld_at_one_gateway_is_not_served_by_the_other_until_it_is_approved(pair: Pair) -> None:
    assert "new__wait" in names(pair.other)
    pair.one.toolyard("registry", "withhold", "new/wait")
    soon("tool to go", lambda: "new__wait" not in names(pair.other))
    pair.other.toolyard("registry", "approve", "new/wait")
    soon("tool to return", lambda: "new__wait" in names(pair.one))


def test_a_server_added_and_removed_at_one_gateway_comes_and_goes_at_the_other(pair: Pair) -> None:
    add_third(pair.one)
    soon("server to appear", lambda: "third__slow_compute" in names(pair.other))
    pair.one.toolyard("disable", "third")
    soon("server to be switched off", lambda: "third__slow_compute" not in names(pair.other))
    pair.one.toolyard("enable", "third")
    soon("server to be switched on", lambda: "third__slow_compute" in names(pair.other))
    pair.other.toolyard("remove", "third")
    soon("server to go", lambda: "third__slow_compute" not in names(pair.one))


def test_what_is_sealed_with_a_new_key_at_one_gateway_opens_at_the_other(pair: Pair) -> None:
    pair.one.toolyard("keys", "rotate")
    task = Client(pair.one.url).start("new__slow_compute", label="sealed")

    def known() -> bool:
        with contextlib.suppress(Refused):
            return bool(Client(pair.other.url).get(task))
        return False

    soon("key to be known", known)


def test_search_at_one_gateway_finds_what_the_other_has_learned_of(pair: Pair) -> None:
    for yard in (pair.one, pair.other):
        assert yard.toolyard("search", "compute something slowly", "--limit", "1")["tools"]
    add_third(pair.one)

    def servers() -> set[str]:
        found = pair.other.toolyard("search", "slow compute", "--limit", "20")["tools"]
        return {row["server"] for row in found} | {s for row in found for s in row.get("sameAs", ())}

    soon("search to know the new server", lambda: any("third" in server for server in servers()))
