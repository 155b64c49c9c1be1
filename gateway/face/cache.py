"""What the gateway showed last, from disk: the first answers of a face whose gateway is still starting."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway import protocol
from gateway.face import wire

_MAX_BYTES: Final = 64 * 1024 * 1024
_STATELESS_HEAD: Final = '"resultType":"complete","ttlMs":0,"cacheScope":"private"'
"""What 2026-07-28 wants in every result of this kind (Caching). Nothing from here is fresh."""


@dataclass(frozen=True, slots=True)
class ListCache:
    """The gateway's last lists and handshake, each as JSON text, so that nothing is lost on the way.

    :param lists: by method, the result of a first page.
    """

    etag: str
    capabilities: str
    server_info: str
    instructions: str | None
    lists: dict[str, str]

    @classmethod
    def load(cls, path: Path) -> ListCache | None:
        """Read the file the gateway keeps. None when there is none, or none that can be used."""
        try:
            if path.stat().st_size > _MAX_BYTES:
                return None
            top = wire.slices(path.read_text(encoding="utf-8"))
            hello = wire.slices(top["initialize"])
            etag = json.loads(top["etag"])
            instructions = hello.get("instructions", "null")
            return cls(
                etag=etag if isinstance(etag, str) else "",
                capabilities=hello["capabilities"],
                server_info=hello["serverInfo"],
                instructions=None if instructions == "null" else instructions,
                lists=wire.slices(top["results"]),
            )
        except (OSError, ValueError, KeyError):
            # A cache is worth no error: without it the client waits for the gateway instead.
            return None

    def initialize(self, requested: object) -> str:
        """The result of ``initialize``: the version asked for where we speak it, else our newest."""
        version = requested if requested in protocol.HANDSHAKE_VERSIONS else protocol.LATEST_HANDSHAKE
        return (
            f'{{"protocolVersion":{json.dumps(version)},"capabilities":{self.capabilities}'
            f',"serverInfo":{self.server_info}{self._instructions()}}}'
        )

    def discover(self) -> str:
        """The result of ``server/discover`` (2026-07-28)."""
        versions = json.dumps(protocol.SUPPORTED_VERSIONS)
        offered = json.loads(self.capabilities)
        if isinstance(offered, dict):  # of the handshake era: what the later one has no more
            offered.pop("logging", None)
            if isinstance(offered.get("resources"), dict):
                offered["resources"].pop("subscribe", None)
        return (
            f'{{{_STATELESS_HEAD},"supportedVersions":{versions},"capabilities":{json.dumps(offered)}'
            f"{self._instructions()},{self._stamp()}}}"
        )

    def page(self, method: str, *, stateless: bool) -> str | None:
        """The first page of a list, or None when it is not known."""
        text = self.lists.get(method)
        if text is None or not stateless:
            return text
        members = wire.slices(text)
        stamp = "" if "_meta" in members else f",{self._stamp()}"
        return f"{{{_STATELESS_HEAD}{stamp}{',' if members else ''}{text[1:]}"

    def _instructions(self) -> str:
        return "" if self.instructions is None else f',"instructions":{self.instructions}'

    def _stamp(self) -> str:
        return f'"_meta":{{"{protocol.META_SERVER_INFO}":{self.server_info}}}'
