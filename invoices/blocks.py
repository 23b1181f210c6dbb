"""The neutral parts of a printed page: what a document or report is made of before anything is measured or drawn.

Text is inert: nothing in it is read as markup, and a line break is a space.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal


@dataclass(frozen=True)
class Masthead:
    """The top of the first page: who issues it on the left, what it is on the right."""

    issuer: str
    issuer_lines: tuple[str, ...]
    title: str
    subtitle: str
    number: str


@dataclass(frozen=True)
class Figure:
    """One large figure of a panel."""

    label: str
    value: str
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Panel:
    """A band with the few figures that most readers came for."""

    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class KeyValueGroup:
    """A titled list of facts."""

    title: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class KeyValues:
    """Lists of facts side by side."""

    groups: tuple[KeyValueGroup, ...]


@dataclass(frozen=True)
class Heading:
    """The name of a section; stays with what follows."""

    text: str
    sub: str = ""


@dataclass(frozen=True)
class Column:
    """One column of a table: figures are as wide as they need, columns with `flex` share the rest and wrap."""

    label: str
    sub: str = ""
    align: Literal["left", "right"] = "left"
    flex: int = 0


@dataclass(frozen=True)
class Row:
    """One row: a text per column and, under it in small type, a note per column."""

    cells: tuple[str, ...]
    notes: tuple[str, ...] = ()
    style: Literal["plain", "total"] = "plain"


@dataclass(frozen=True)
class Table:
    """Rows under a header that is repeated on every page."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class BarChart:
    """Bars over equally spaced labels, from a zero line."""

    title: str
    unit: str
    labels: tuple[str, ...]
    values: tuple[Decimal, ...]
    colour: Literal["accent", "second"] = "accent"


@dataclass(frozen=True)
class BarCharts:
    """Small charts side by side, each with its own scale."""

    charts: tuple[BarChart, ...]


@dataclass(frozen=True)
class TotalRow:
    """A label with an amount."""

    label: str
    value: str
    strong: bool = False


@dataclass(frozen=True)
class Totals:
    """The box of totals on the right, with an optional remark on its left."""

    rows: tuple[TotalRow, ...]
    remark_label: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str
    style: Literal["plain", "muted"] = "plain"


@dataclass(frozen=True)
class Spacer:
    """Empty height in points."""

    height: int = 10


@dataclass(frozen=True)
class PageBreak:
    """What follows begins a new page."""


Block = Masthead | Panel | KeyValues | Heading | Table | BarCharts | Totals | Paragraph | Spacer | PageBreak


@dataclass(frozen=True)
class PageSetup:
    """What is the same on every page of a document."""

    title: str  # of the file
    author: str
    footer_left: str
    footer_middle: str = ""
    language: str = "zh"
    missing_note: str = "〓 = {codes}"  # printed at the end where characters have no glyph
    landscape: bool = False
