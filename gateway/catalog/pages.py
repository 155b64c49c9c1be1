"""List results, serialised once per catalog, and the cursors between their pages.

A cursor means "the items after this key". Keys are sorted, so a client that walks the pages while
items come and go neither skips nor repeats an item that stayed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

from gateway import protocol
from gateway.errors import RpcError
from registry.model import ItemKind

PAGE_SIZE: Final = 2000
"""Items on a page. Many clients ignore ``nextCursor``, so a page holds what any of them can use."""

TTL_MS: Final = 5000
"""How long a stateless client may take a list for fresh, in milliseconds.

Changes are announced (``list_changed``), so a client that listens needs no expiry at all; one that
does not listen is at most this far behind. 0 would have it list again before every call.
"""

MEMBER: Final = {
    ItemKind.TOOL: "tools",
    ItemKind.RESOURCE: "resources",
    ItemKind.TEMPLATE: "resourceTemplates",
    ItemKind.PROMPT: "prompts",
}
"""The member of a list result that holds the items."""

_STATELESS: Final = b',"resultType":"complete","ttlMs":%d,"cacheScope":"private"}' % TTL_MS
_MARK: Final = "ty1"


def encode_cursor(kind: ItemKind, key: str) -> str:
    """The cursor for the items of a kind after a key: opaque to clients, base64url."""
    text = f"{_MARK}:{kind.value}:{key}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(kind: ItemKind, cursor: str) -> str:
    """The key a cursor stands after. Raises RpcError (-32602) for one we did not give for this kind."""
    try:
        data = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        mark, named, key = data.decode().split(":", 2)
    except (ValueError, binascii.Error):
        mark, named, key = "", "", ""
    if mark == _MARK and named == kind.value and encode_cursor(kind, key) == cursor:
        return key
    raise RpcError(
        protocol.INVALID_PARAMS,
        f"The cursor is not one this gateway gave for a list of {MEMBER[kind]}.",
        "Start again without a cursor.",
    )


@dataclass(frozen=True, slots=True)
class Listing:
    """The items of one kind as clients see them, sorted by key.

    :param keys: exposed names or URIs, ascending.
    :param items: the JSON of each.
    :param older: the same for handshake-era clients where it differs at all.
    """

    kind: ItemKind
    keys: tuple[str, ...]
    items: tuple[bytes, ...]
    page_size: int = PAGE_SIZE
    older: tuple[bytes, ...] = ()
    _pages: dict[tuple[int, bool], bytes] = field(default_factory=dict, repr=False, compare=False)
    _digest: list[bytes] = field(default_factory=list, repr=False, compare=False)

    def page(self, cursor: str | None = None, stateless: bool = False) -> bytes:
        """The JSON of a list result, starting after the cursor.

        :param stateless: add what 2026-07-28 wants of a result.

        Raises RpcError (-32602) for a cursor that is not ours.
        """
        start = 0 if cursor is None else bisect_right(self.keys, decode_cursor(self.kind, cursor))
        place = (start, stateless)
        page = self._pages.get(place)
        if page is None:
            page = self._serialise(start, stateless)
            # Only the pages a plain walk passes are kept: other starts come from cursors of older
            # catalogs or made up by a client, and there may be any number of those.
            if start % self.page_size == 0:
                self._pages[place] = page
        return page

    def _serialise(self, start: int, stateless: bool) -> bytes:
        end = start + self.page_size
        items = self.items if stateless else self.older or self.items
        parts = [b'{"%b":[' % MEMBER[self.kind].encode(), b",".join(items[start:end]), b"]"]
        if end < len(self.keys):
            parts.append(b',"nextCursor":"%b"' % encode_cursor(self.kind, self.keys[end - 1]).encode())
        parts.append(_STATELESS if stateless else b"}")
        return b"".join(parts)

    def digest(self) -> bytes:
        """A hash over everything shown, made once."""
        if not self._digest:
            # The keys are inside the items; a newline never is, so it tells them apart.
            head = f"{self.kind.value} {self.page_size}\n".encode()
            self._digest.append(hashlib.sha256(head + b"\n".join(self.items)).digest())
        return self._digest[0]
