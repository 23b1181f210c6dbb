"""Marks on paper: texts, lines and boxes in points, in slabs that are stacked down a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from invoices.text_fit import Measure, Style, plain_text, wrap

COLOURS = {
    "ink": 0x1B2631,
    "muted": 0x6C7885,
    "accent": 0x17486B,
    "second": 0x2A8378,
    "rule": 0xDCE2E8,
    "line": 0x9AA7B3,
    "tint": 0xF2F5F8,
    "white": 0xFFFFFF,
}

OUTSET = 4.0  # how far tints and rules reach beyond the text, on both sides

BODY = Style(8)
BODY_BOLD = Style(8, bold=True)
SMALL = Style(7, colour="muted")
NOTE = Style(6.3, colour="muted")
LABEL = Style(7, bold=True, colour="accent")


class Text(NamedTuple):
    """A line of text; y is its baseline."""

    x: float
    y: float
    text: str
    style: Style


class Line(NamedTuple):
    """A straight line."""

    x0: float
    y0: float
    x1: float
    y1: float
    colour: str = "rule"
    width: float = 0.5


class Box(NamedTuple):
    """A filled rectangle; x and y are its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    colour: str = "tint"


Mark = Text | Line | Box


@dataclass
class Slab:
    """A piece of page that is never broken; y of its marks counts down from its top."""

    height: float
    marks: list[Mark] = field(default_factory=list)
    glued: bool = False  # stays on the page of the slab that follows
    header: Slab | None = None  # repeated above it where it begins a page


class Setter:
    """What setting text needs: the width of the page's text area, the fonts' measures, and a list of missing glyphs."""

    def __init__(self, width: float, measure: Measure, has_glyph: Callable[[str], bool]) -> None:
        self.width = width
        self.measure = measure
        self.missing: set[str] = set()
        self._has_glyph = has_glyph

    def plain(self, text: str) -> str:
        """Return the text as it can be printed; what has no glyph is remembered for the note at the end."""
        tidy, missing = plain_text(text, self._has_glyph)
        if missing:
            self.missing |= missing
        return tidy

    def lines(self, text: str, width: float, style: Style) -> list[str]:
        """Break a text into lines of this width."""
        return wrap(self.plain(text), width, style, self.measure)

    def place(self, x: float, y: float, text: str, style: Style, align: Literal["left", "right"] = "left") -> Text:
        """Set one line that begins, or on the right ends, at x."""
        tidy = self.plain(text)
        return Text(x - self.measure(tidy, style) if align == "right" else x, y, tidy, style)

    def fitted(self, text: str, width: float, style: Style, smallest: float = 6) -> Style:
        """Return the style, in a smaller size where the text would be wider than this."""
        natural = self.measure(self.plain(text), style)
        return style if natural <= width else style._replace(size=max(smallest, style.size * width / natural))
