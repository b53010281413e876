"""Badge: a small SVG with a verdict and the beginning of the hash of the weights that it is about.

Written by hand: one file, no fonts, no links, no script. Whoever changes the weights has another hash, so a badge
cannot be carried over unseen.
"""

from __future__ import annotations

from editsafety.escaping import attribute
from editsafety.judging.verdict import Verdict
from editsafety.publishing.published import DIGITS, PublishedRun

NAME = "editsafety"
_HEIGHT, _PAD, _WIDE = 20, 6, 6.6  # pixels: of the badge, beside a text, of a character of an 11 pixel typewriter font
_GREY, _GREEN, _YELLOW, _RED, _VIOLET = "#555", "#2e7d32", "#8a6d00", "#b71c1c", "#6a1b9a"
_COLOURS = {
    Verdict.PASS: _GREEN, Verdict.WARN: _YELLOW, Verdict.INCOMPLETE: _VIOLET, Verdict.ERROR: _VIOLET, None: _VIOLET,
}  # fmt: skip


def badge(run: PublishedRun) -> str:
    """The SVG. Violet says that nothing was shown at all, which is no better than red."""
    told = f"{run.said} {run.hash[:DIGITS]}"
    left, right = _width(NAME), _width(told)
    colour = _COLOURS.get(run.document.verdict, _RED)
    title = attribute(f"{NAME} {run.document.editsafety}: {run.said}, {run.bound}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{_HEIGHT}" role="img" '
        f'aria-label="{title}">\n'
        f"<title>{title}</title>\n"
        f'<rect width="{left}" height="{_HEIGHT}" fill="{_GREY}"/>\n'
        f'<rect x="{left}" width="{right}" height="{_HEIGHT}" fill="{colour}"/>\n'
        f'<g fill="#fff" font-family="DejaVu Sans Mono,Menlo,Consolas,monospace" font-size="11">\n'
        f"{_text(NAME, 0, left)}\n{_text(told, left, right)}\n"
        "</g>\n</svg>\n"
    )


def _width(text: str) -> int:
    return round(len(text) * _WIDE) + 2 * _PAD


def _text(text: str, start: int, width: int) -> str:
    return f'<text x="{start + _PAD}" y="14" textLength="{width - 2 * _PAD}">{attribute(text)}</text>'
