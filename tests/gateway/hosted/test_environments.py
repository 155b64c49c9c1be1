"""Builds that are given up half-way."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateway_parts import running_gateway, until

from gateway.hosted.entry import from_manifest
from gateway.upstream.state import State

pytestmark = pytest.mark.anyio


async def test_a_gateway_ends_at_once_although_services_are_being_built(fresh: Path) -> None:
    names = ("humanize", "jellyfish", "tabulate", "webcolors")
    async with running_gateway([from_manifest(name, name) for name in names]) as run:
        await until(lambda: run.upstream("humanize").state is State.BUILDING)
    assert not list(fresh.glob("*/toolyard-complete"))


async def test_a_service_that_is_removed_while_it_is_built_is_forgotten(service: Path, fresh: Path) -> None:
    async with running_gateway([from_manifest("counting", str(service))]) as run:
        await until(lambda: run.upstream("counting").state is State.BUILDING)
        await run.gateway.roster.remove("counting")
        assert await (await run.session()).names() == []
