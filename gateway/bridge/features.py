"""What a client can be asked for, in either era: sampling, elicitation, roots."""

from __future__ import annotations

from typing import Any, Final

from gateway import jsonrpc, protocol
from gateway.jsonrpc import Shallow

DECLARED: Final[dict[str, Any]] = {
    "sampling": {"tools": {}, "context": {}},
    "elicitation": {"form": {}, "url": {}},
}
"""Client capabilities declared to handshake-era servers on connections that callers share.

The gateway answers for callers that lack one. Roots are not declared: they belong to one client.
"""

METHODS: Final = frozenset({"sampling/createMessage", "elicitation/create", "roots/list"})


def features_of(capabilities: Any) -> tuple[str, ...]:
    """The features in a ``ClientCapabilities`` object, as short names that fit into a session id."""
    if not isinstance(capabilities, dict):
        return ()
    found = []
    sampling, elicitation = capabilities.get("sampling"), capabilities.get("elicitation")
    if isinstance(sampling, dict):
        found += ["sampling", *(f"sampling.{key}" for key in ("tools", "context") if key in sampling)]
    if isinstance(elicitation, dict):
        # An empty object means form mode only (2025-11-25, Elicitation: Capabilities).
        modes = [key for key in ("form", "url") if key in elicitation]
        found += [f"elicitation.{mode}" for mode in modes or ["form"]]
    if isinstance(capabilities.get("roots"), dict):
        found.append("roots")
    return tuple(found)


def declared_in(params: Shallow) -> tuple[str, ...]:
    """The features that the client of a stateless request declares in its ``_meta``."""
    meta = jsonrpc.object_of(params.get("_meta")) or {}
    declared = meta.get(protocol.META_CLIENT_CAPABILITIES)
    return features_of(jsonrpc.value(declared)) if declared is not None else ()


def capabilities_of(features: tuple[str, ...]) -> dict[str, Any]:
    """The ``ClientCapabilities`` object that says the same."""
    capabilities: dict[str, Any] = {}
    for feature in features:
        name, _, part = feature.partition(".")
        fields = capabilities.setdefault(name, {})
        if part:
            fields[part] = {}
    return capabilities


def wanted_feature(method: str, params: Shallow) -> str:
    """The feature a server's request needs of the client."""
    if method == "elicitation/create":
        return "elicitation.url" if jsonrpc.text(params.get("mode")) == "url" else "elicitation.form"
    if method == "sampling/createMessage":
        return "sampling.tools" if "tools" in params or "toolChoice" in params else "sampling"
    return "roots" if method == "roots/list" else method
