"""What a person sees: aligned tables and short notes. On a terminal with colour, elsewhere without."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_STYLES: Final[Mapping[str, str]] = {
    "ready": "green",
    "ok": "green",
    "starting": "cyan",
    "building": "cyan",
    "pending": "yellow",
    "warn": "yellow",
    "needs_login": "yellow",
    "failed": "red",
    "fail": "red",
    "disabled": "dim",
}


def clean(text: str) -> str:
    """The text without what could steer a terminal: servers choose their names and descriptions."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def first_line(text: str | None) -> str:
    """The first line of a description that says something."""
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), "")


def as_json(value: Any) -> None:
    """Print a value for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=not _speaks_unicode()))


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def out(text: str = "") -> None:
    """Print a line for a person."""
    print(clean(text))


def note(text: str) -> None:
    """Tell a person something that is not what they asked for: on stderr."""
    print(clean(text), file=sys.stderr)


def problem(message: str, hint: str | None = None) -> None:
    """Say what went wrong, and below it what to do."""
    for text, indent in ((f"toolyard: {message}", ""), (hint, "  ")):
        if text:
            note("\n".join(_wrap(text, indent)) if sys.stderr.isatty() else textwrap.indent(text, indent))


def paragraph(text: str, indent: str = "") -> None:
    """Print text wrapped to the terminal, each line set in by so much."""
    for line in _wrap(text, indent):
        print(line)


def _wrap(text: str, indent: str) -> list[str]:
    lines = []
    for line in clean(text).splitlines():
        # A path or a URL stays whole, to be copied.
        made = textwrap.TextWrapper(
            _width(),
            initial_indent=indent,
            subsequent_indent=indent or "  ",
            break_on_hyphens=False,
            break_long_words=False,
        )
        lines += made.wrap(line)
    return lines


def _width() -> int:
    return max(shutil.get_terminal_size().columns, 40)


def pairs(items: Iterable[tuple[str, str]]) -> None:
    """Print names and values, the values aligned and wrapped below each other."""
    shown = [(clean(name), value) for name, value in items if value]
    side = max((len(name) for name, _ in shown), default=0) + 2
    for name, value in shown:
        lines = [
            part
            for line in clean(value).splitlines()
            for part in textwrap.wrap(
                line, max(_width() - side, 20), break_on_hyphens=False, break_long_words=False
            )
            or [""]
        ]
        for number, line in enumerate(lines):
            print(f"{name if number == 0 else '':<{side}}{line}")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[str] = ()) -> None:
    """Print rows under their columns. A terminal gets the last column cut to its width.

    :param right: columns whose cells are numbers.
    """
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(rich_table(columns, rows, set(right)))
        return
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(columns, *cells, strict=True)]
    for row in ([c.upper() for c in columns], *cells):
        parts = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        ]
        print("  ".join(parts).rstrip())


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[str] = ()) -> Any:
    """The table for a terminal: states in their colours, the last column cut to the width."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip((c.upper() for c in columns), *cells, strict=True)]
    room = _width() - sum(width + 2 for width in widths[:-1])
    widths[-1] = min(widths[-1], max(room, 16))
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name, width in zip(columns, widths, strict=True):
        side: Literal["right", "left"] = "right" if name in right else "left"
        made.add_column(Text(name.upper()), justify=side, no_wrap=True, overflow="ellipsis", min_width=width)
        made.columns[-1].max_width = width
    for row in cells:
        made.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return made


def ago(moment: float | None) -> str:
    """How long ago a moment was (seconds since the epoch), or a dash for never."""
    return "-" if not moment else f"{duration(max(time.time() - moment, 0))} ago"


def duration(seconds: float) -> str:
    """A time span in its largest fitting unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def count(number: int, noun: str) -> str:
    """``1 server``, ``2 servers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
