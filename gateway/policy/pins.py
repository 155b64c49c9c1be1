"""Pins: a tool is served as it was approved, and what becomes of one that changed.

Name, description, schema and annotations are pinned together, as the definition hash. A server may
change what a tool says of itself at any time, also after a person looked at it ("rug pull": Invariant
Labs, MCP Security Notification, 2025), so what is served is what was approved:

- the first sight of a tool is its approval (trust on first use), unless its definition holds hidden
  characters or reads like a poisoned one: that is held until a person approves it, under any policy;
- a definition that differs from the approved one is withheld (``pin``), served and flagged (``warn``)
  or served (``follow``), as the policy of its server says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

from gateway.catalog.merge import Withheld
from gateway.errors import ToolWithheld
from registry.approvals import LATER_USE, PERSON, ApprovalRecords, Hold
from registry.model import ServerSpec
from registry.tools import Pin


class PinPolicy(StrEnum):
    """What becomes of a tool whose definition differs from the approved one."""

    PIN = "pin"
    WARN = "warn"
    FOLLOW = "follow"


class Reason(StrEnum):
    """Why a tool is withheld."""

    CHANGED = "changed"
    """It differs from what was approved."""
    SUSPICIOUS = "suspicious"
    """It holds hidden characters, or reads like a poisoned definition."""
    PERSON = "person"
    """A person withheld it."""
    UNSEEN = "unseen"
    """It has not been looked at yet; nobody has to do anything."""


def policy_of(spec: ServerSpec | None, default: str) -> PinPolicy:
    """The policy of a server: ``pins`` of its entry, else the gateway's setting."""
    said = spec.extra.get("pins") if spec is not None else None
    return PinPolicy(said) if said in set(PinPolicy) else PinPolicy(default)


class PinBook:
    """Pins and holds in memory, and what they say of a definition.

    :param policy: the policy of a server, by its name.
    """

    def __init__(self, policy: Callable[[str], PinPolicy]) -> None:
        self._policy = policy
        self._pins: dict[str, dict[str, Pin]] = {}
        self._holds: dict[str, dict[str, Hold]] = {}

    @classmethod
    def read(cls, records: ApprovalRecords, policy: Callable[[str], PinPolicy]) -> PinBook:
        """The book as it stands in the store. Raises StoreError."""
        book = cls(policy)
        book.take(records.pins(), records.holds())
        return book

    def replace(self, pins: Iterable[Pin], holds: Iterable[Hold]) -> None:
        """Forget all, and enter what the store says."""
        self._pins, self._holds = {}, {}
        self.take(pins, holds)

    def take(self, pins: Iterable[Pin], holds: Iterable[Hold]) -> None:
        """Enter what was decided on sight."""
        for pin in pins:
            self._pins.setdefault(pin.ref.server, {})[pin.ref.name] = pin
        for hold in holds:
            self._holds.setdefault(hold.ref.server, {})[hold.ref.name] = hold

    def approve(self, pins: Iterable[Pin], *, by_name: bool = True) -> None:
        """Enter approvals; they end holds, those of a person only where it approves ``by_name``."""
        for pin in pins:
            self._pins.setdefault(pin.ref.server, {})[pin.ref.name] = pin
            held = self._holds.get(pin.ref.server, {})
            if by_name or (pin.ref.name in held and held[pin.ref.name].reason != PERSON):
                held.pop(pin.ref.name, None)

    def forget(self, server: str) -> None:
        """A person removed the server: when it returns, it is seen for the first time."""
        self._pins.pop(server, None)
        self._holds.pop(server, None)

    def policy(self, server: str) -> PinPolicy:
        """The policy of a server."""
        return self._policy(server)

    def pin(self, server: str, name: str) -> Pin | None:
        """The approved version of a tool."""
        return self._pins.get(server, {}).get(name)

    def hold(self, server: str, name: str) -> Hold | None:
        """What holds a tool back."""
        return self._holds.get(server, {}).get(name)

    def knows(self, server: str) -> bool:
        """Whether any tool of the server was ever looked at."""
        return bool(self._pins.get(server) or self._holds.get(server))

    def why(self, server: str, name: str, digest: str) -> Reason | None:
        """Why this definition is withheld; None where it is served."""
        hold, pin = self.hold(server, name), self.pin(server, name)
        if hold is not None and hold.reason == PERSON:
            return Reason.PERSON
        if pin is not None and pin.ref.hash == digest:
            return None
        if hold is not None:
            return Reason.SUSPICIOUS
        if pin is None:
            return Reason.UNSEEN
        return Reason.CHANGED if self._policy(server) is PinPolicy.PIN else None

    def flagged(self, server: str, name: str, digest: str) -> bool:
        """Whether this definition is served although it changed, and a person should hear of it."""
        pin = self.pin(server, name)
        return (
            pin is not None
            and pin.ref.hash != digest
            and self._policy(server) is PinPolicy.WARN
            and self.hold(server, name) is None
        )

    def approved(self, server: str, name: str, digest: str) -> bool:
        """Whether exactly this definition was approved, so that its annotations count.

        What a known server began to offer later is served, but nobody has decided about it yet.
        """
        pin = self.pin(server, name)
        return (
            pin is not None
            and pin.ref.hash == digest
            and pin.approved_by != LATER_USE
            and self.why(server, name, digest) is None
        )


_SAID = {
    Reason.CHANGED: "has changed since it was approved",
    Reason.SUSPICIOUS: "looks as if it carries instructions or hidden characters",
    Reason.PERSON: "was withheld by an administrator",
    Reason.UNSEEN: "has not been looked at yet",
}


def refuse_withheld(withheld: Mapping[str, Withheld], name: str, only: str | None) -> None:
    """Raise ToolWithheld where a call names a tool that is not served.

    :param only: the server that unknown names would be passed on to: its own names count there.
    """
    found = withheld.get(name)
    if found is None and only is not None:
        found = next(
            (w for w in withheld.values() if (w.entry.server, w.entry.original) == (only, name)), None
        )
    if found is None:
        return
    entry, reason = found
    tool = f"{entry.server}/{entry.original}"
    raise ToolWithheld(
        f"Tool {entry.exposed} {_SAID[Reason(reason)]}, and is not served.",
        f"An administrator sees it with `toolyard registry diff {tool}`, and lets it pass with "
        f"`toolyard registry approve {tool}`.",
        reason=reason,
        server=entry.server,
        tool=entry.original,
    )
