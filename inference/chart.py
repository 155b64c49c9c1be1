"""A bench's report as an SVG: decode speed beside its roofline, and what a cached prefix saves."""

from __future__ import annotations

from xml.sax.saxutils import escape

from inference.bench import Report

WIDTH, LEFT, RIGHT, ROW = 760, 150, 190, 34
INK, QUIET, FAINT, BLUE, GREEN = "#1f2937", "#6b7280", "#e5e7eb", "#2563eb", "#059669"


def chart(report: Report) -> str:
    """The picture; both parts have an axis of their own."""
    speed = "" if report.bandwidth is None else f", read at {report.bandwidth / 1e9:.1f} GB/s at most"
    subtitle = f"backend {report.backend}, {report.weight_bytes / 1e6:,.0f} MB of weights a step{speed}"
    parts = [_text(20, 34, report.model, 20, weight=600), _text(20, 55, subtitle, 13, QUIET)]
    y = 92
    if report.decode:
        bounds = [d.tokens_per_second / (d.roofline or 1.0) for d in report.decode]
        parts += _heading(y, "Decode, tokens per second", [(BLUE, "reached"), (FAINT, "roofline")])
        for d, bound in zip(report.decode, bounds, strict=True):
            y += ROW
            share = "" if d.roofline is None else f" · {d.roofline:.0%} of roofline"
            values = [(bound, FAINT), (d.tokens_per_second, BLUE)]
            parts += _row(y, f"batch {d.batch}", values, max(bounds), f"{d.tokens_per_second:,.0f}{share}")
        y += ROW + 24
    if report.prompts:
        parts += _heading(y, "First token of a prompt, ms", [(FAINT, "cold"), (GREEN, "prefix cached")])
        longest = max(p.cold for p in report.prompts)
        for p in report.prompts:
            y += ROW
            label = f"{p.cold * 1e3:,.0f} · {p.warm * 1e3:,.0f} cached"
            parts += _row(y, f"{p.tokens:,} tokens", [(p.cold, FAINT), (p.warm, GREEN)], longest, label)
        y += ROW
    size = f'viewBox="0 0 {WIDTH} {y + 8}" width="{WIDTH}" height="{y + 8}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui, sans-serif">'
    return "\n".join([head, _bar(0, 0, WIDTH, y + 8, "#ffffff"), *parts, "</svg>", ""])


def _heading(y: int, title: str, legend: list[tuple[str, str]]) -> list[str]:
    parts = [_text(20, y, title, 14, weight=600)]
    x = WIDTH - RIGHT
    for colour, name in legend:
        parts += [_bar(x, y - 10, 11, 11, colour), _text(x + 16, y, name, 12, QUIET)]
        x += 78
    return parts


def _row(y: int, name: str, values: list[tuple[float, str]], longest: float, label: str) -> list[str]:
    """Bars over one another, the longest first, and a label after them."""
    room = WIDTH - LEFT - RIGHT
    bars = [_bar(LEFT, y - 17, max(2.0, room * value / longest), 24, colour) for value, colour in values]
    end = LEFT + room * max(value for value, _ in values) / longest
    return [_text(20, y, name, 13), *bars, _text(end + 10, y, label, 13)]


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, size: int, colour: str = INK, weight: int = 400) -> str:
    style = f'font-size="{size}" fill="{colour}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y}" {style}>{escape(text)}</text>'
