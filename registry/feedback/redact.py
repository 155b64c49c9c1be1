"""What is taken out of a request before it is kept: the words that find tools stay, what is private goes."""

from __future__ import annotations

import re
from typing import Final

MAX_KEPT: Final = 500
"""Characters of a request that are kept."""

_RULES: Final = tuple(
    (re.compile(pattern), put)
    for pattern, put in (
        (r"(?i)\b[a-z][a-z0-9+.-]*://\S+", "<url>"),
        (r"[^\s@<>\"']{1,64}@[^\s@<>\"']{1,255}", "<address>"),
        (r"(?i)\b(?:bearer|basic|token|key|secret|password|passwort|pwd)\b\s*[:= ]\s*\S+", "<secret>"),
        (r"(?<!\w)(?:~|[A-Za-z]:)?(?:[\\/][\w.@%+ -]*\w){2,}", "<path>"),
        (r"\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}\b", "<code>"),
        (r"\b[0-9a-fA-F]{16,}\b", "<code>"),
        (r"(?<!\w)\+?\d(?:[ ().-]?\d){5,}(?!\w)", "<number>"),
        (r"\"[^\"]{40,}\"|'[^']{40,}'", "<text>"),
    )
)


def redact(request: str) -> str:
    """The request without URLs, addresses, secrets, paths, codes, long numbers and long quotations."""
    text = " ".join(request[: 4 * MAX_KEPT].split())
    for pattern, put in _RULES:
        text = pattern.sub(put, text)
    return text[:MAX_KEPT]
