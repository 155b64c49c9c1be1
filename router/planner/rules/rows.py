"""Spans in a row: what may be several values of one parameter, or of several calls."""

# ruff: noqa: RUF001  (the quotes that people type)
from __future__ import annotations

import re
from typing import Final

from router.planner.rules.spans import Span

MAX_LIST: Final = 12

_JOINT: Final = re.compile(
    r"\s*(?:,\s*(?:and|or|&)?|\band\b|\bor\b|&|;)\s*['\"“‘]?(?:the\s+)?", re.IGNORECASE
)


_INNER: Final = re.compile(r",\s|\b(?:and|or|to|on|in|for|of|at|with)\b|&|;")


def lists(text: str, found: list[Span]) -> list[list[Span]]:
    """Spans of one kind in a row, joined by commas and "and": "Paris, London and Rome".

    Each row is as long as it goes; inside a row the longest spans that fit are taken.
    """
    begins: dict[int, list[Span]] = {}
    quotes = [(span.start, span.end) for span in found if span.kind == "quoted"]
    found = [
        span
        for span in found
        if span.kind == "quoted"
        or not (_INNER.search(span.text) or any(a <= span.start and span.end <= b for a, b in quotes))
    ]
    for span in found:
        begins.setdefault(span.start, []).append(span)
    rows: list[list[Span]] = []
    used: set[tuple[int, str]] = set()
    for span in sorted(found, key=lambda s: (s.start, s.start - s.end)):
        group = _group(span)
        if group is None or (span.start, group) in used:
            continue
        row = [span]
        while len(row) < MAX_LIST:
            joint = _JOINT.match(
                text,
                row[-1].end + (text[row[-1].end : row[-1].end + 1] in "'\"”’" and row[-1].kind == "quoted"),
            )
            follow = [] if joint is None else [s for s in begins.get(joint.end(), ()) if _group(s) == group]
            if not follow:
                break
            row.append(max(follow, key=lambda s: s.end))
        if len(row) > 1:
            used.update((s.start, group) for s in row)
            rows.append(row)
    return rows


def _group(span: Span) -> str | None:
    if span.kind in ("tail", "line", "list", "relative"):
        return None
    if span.kind in ("name", "phrase", "id") and " " not in span.text and any(map(str.isdigit, span.text)):
        return "id"
    if span.kind in ("name", "phrase"):
        # A name at the head of a longer phrase is no item of a list.
        return "name" if span.text[:1].isupper() else "phrase"
    return span.kind
