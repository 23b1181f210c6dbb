"""Pages as PDF: the same blocks always give the same bytes. The only module that knows ReportLab."""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path

from reportlab.lib.colors import HexColor
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from invoices.blocks import Block, PageSetup
from invoices.document import DocumentContent
from invoices.layout import layout, page_setup
from invoices.marks import COLOURS, Box, Line, Mark, Text
from invoices.text_fit import Style
from invoices.typeset import Page, typeset

_FOLDER = Path(__file__).parent / "fonts"
_REGULAR, _BOLD = "NotoSansSC-Regular", "NotoSansSC-Bold"
# Rarer Chinese characters, in one weight; a file is read when the first of its characters is printed.
_RARE = ("NotoSansSC-Rare1", "NotoSansSC-Rare2", "NotoSansSC-Rare3")
_HEX = {name: HexColor(value) for name, value in COLOURS.items()}


def render(content: DocumentContent) -> bytes:
    """Return the PDF of an invoice, statement or credit note."""
    return render_blocks(layout(content), page_setup(content))


def render_blocks(blocks: Iterable[Block], setup: PageSetup) -> bytes:
    """Return a PDF of these blocks, with the footer and page numbers of the setup."""
    pages = typeset(blocks, setup, _measure, _has_glyph)
    buffer = io.BytesIO()
    canvas = Canvas(
        buffer, pagesize=(pages[0].width, pages[0].height), invariant=1, pageCompression=1, lang=setup.language
    )
    canvas.setTitle(setup.title)
    canvas.setAuthor(setup.author)
    canvas.setCreator("Hourbook")
    for page in pages:
        _draw_page(canvas, page)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


@cache
def _font(name: str) -> TTFont:
    """Read a font file once per process."""
    font = TTFont(name, str(_FOLDER / f"{name}.ttf"), shapable=False)
    pdfmetrics.registerFont(font)
    return font


@cache
def _glyphs(name: str) -> frozenset[str]:
    """Return the characters that a font has."""
    return frozenset(map(chr, _font(name).face.charToGlyph))


@lru_cache(maxsize=16384)
def _font_of(char: str) -> str:
    """Name the font that has a character outside the common ones, or nothing."""
    return next((name for name in _RARE if char in _glyphs(name)), "")


def _has_glyph(char: str) -> bool:
    return char in _glyphs(_REGULAR) or bool(_font_of(char))


@lru_cache(maxsize=32768)
def _runs(text: str, bold: bool) -> tuple[tuple[str, str], ...]:  # noqa: FBT001
    """Cut a text into runs of one font: the common one, and rare ones where a character needs it."""
    usual = _BOLD if bold else _REGULAR
    common = _glyphs(usual)
    if common.issuperset(text):
        return ((usual, text),)
    runs: list[tuple[str, str]] = []
    for char in text:
        name = usual if char in common else _font_of(char) or usual
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1] + char)
        else:
            runs.append((name, char))
    return tuple(runs)


@lru_cache(maxsize=65536)
def _unit_width(text: str, bold: bool) -> float:  # noqa: FBT001
    return sum(float(_font(name).stringWidth(part, 1)) for name, part in _runs(text, bold))


def _measure(text: str, style: Style) -> float:
    return _unit_width(text, style.bold) * style.size


def _draw_page(canvas: Canvas, page: Page) -> None:
    """Draw the marks of a page in the order in which they were set: what lies below comes first."""
    for y, slab in page.slabs:
        for mark in slab.marks:
            _draw(canvas, mark, page.left, page.height - y)


def _draw(canvas: Canvas, mark: Mark, left: float, top: float) -> None:
    """Draw one mark; PDF counts heights from the bottom."""
    match mark:
        case Text():
            canvas.setFillColor(_HEX[mark.style.colour])
            x = left + mark.x
            for name, part in _runs(mark.text, mark.style.bold):
                canvas.setFont(name, mark.style.size)
                canvas.drawString(x, top - mark.y, part)
                x += _font(name).stringWidth(part, mark.style.size)
        case Box():
            canvas.setFillColor(_HEX[mark.colour])
            canvas.rect(left + mark.x, top - mark.y - mark.height, mark.width, mark.height, stroke=0, fill=1)
        case Line():
            canvas.setStrokeColor(_HEX[mark.colour])
            canvas.setLineWidth(mark.width)
            canvas.line(left + mark.x0, top - mark.y0, left + mark.x1, top - mark.y1)
