"""Pages as PDF: the same blocks always give the same bytes. The only module that knows ReportLab."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from reportlab.lib.colors import HexColor
from reportlab.pdfbase import pdfmetrics, ttfonts
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from invoices.blocks import Block, PageSetup
from invoices.document import DocumentContent
from invoices.layout import layout, page_setup
from invoices.marks import COLOURS, Box, Line, Text
from invoices.text_fit import Style
from invoices.typeset import Page, typeset

_FOLDER = Path(__file__).parent / "fonts"
_REGULAR, _BOLD = "NotoSansSC-Regular", "NotoSansSC-Bold"
# Rarer Chinese characters, in one weight; a file is read when the first of its characters is printed.
_RARE = ("NotoSansSC-Rare1", "NotoSansSC-Rare2", "NotoSansSC-Rare3")
_FILL = {
    name: " ".join(f"{(value >> shift & 255) / 255:.3f}" for shift in (16, 8, 0)) + " rg"
    for name, value in COLOURS.items()
}
_HEX = {name: HexColor(value) for name, value in COLOURS.items()}


def render(content: DocumentContent) -> bytes:
    """Return the PDF of an invoice, statement or credit note."""
    return render_blocks(layout(content), page_setup(content))


def render_blocks(blocks: Iterable[Block], setup: PageSetup) -> bytes:
    """Return a PDF of these blocks, with the footer and page numbers of the setup."""
    pages = typeset(blocks, setup, measure, has_glyph)
    buffer = io.BytesIO()
    canvas = Canvas(
        buffer,
        pagesize=(pages[0].width, pages[0].height),
        invariant=1,
        lang=setup.language,
        # Else every file would name a font that it does not hold. The types say float, the program takes a name.
        initialFontName=_font(_REGULAR).fontName,  # type: ignore[arg-type]
    )
    canvas.setTitle(setup.title)
    canvas.setAuthor(setup.author)
    canvas.setCreator("Hourbook")
    for page in pages:
        _draw_page(canvas, page)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _to_unicode(fontname: str, subset: Any) -> str:  # noqa: ANN401 (ReportLab's own signature)
    """Say which characters a font's codes stand for; ReportLab writes those beyond U+FFFF as if they were two."""
    return _BEYOND_BMP.sub(
        lambda match: f"> <{chr(int(match[1], 16)).encode('utf-16-be').hex().upper()}>",
        _reportlab_to_unicode(fontname, subset),
    )


_BEYOND_BMP = re.compile(r"> <([0-9A-F]{5,6})>")
_reportlab_to_unicode: Callable[[str, Any], str] = ttfonts.makeToUnicodeCMap
ttfonts.makeToUnicodeCMap = _to_unicode


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


def has_glyph(char: str) -> bool:
    """Say whether one of the fonts has this character."""
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


def measure(text: str, style: Style) -> float:
    """Return the width of a text in points."""
    return _unit_width(text, style.bold) * style.size


def _draw_page(canvas: Canvas, page: Page) -> None:
    """Draw boxes and lines in the order in which they were set, then all texts, which nothing may hide."""
    texts: list[_Placed] = []
    for y, slab in page.slabs:
        top = page.height - y
        for mark in slab.marks:
            if isinstance(mark, Text):
                texts += _placed(mark, page.left, top)
            else:
                _draw_shape(canvas, mark, page.left, top)
    _draw_texts(canvas, texts)


class _Placed(NamedTuple):
    """A run of one font where it stands on the sheet."""

    colour: str
    font: str
    size: float
    x: float
    y: float
    text: str


def _placed(mark: Text, left: float, top: float) -> Iterator[_Placed]:
    """Yield the runs of a text, each after the other."""
    x, y, style = left + mark.x, top - mark.y, mark.style
    runs = _runs(mark.text, style.bold)
    for name, part in runs:
        if part:
            yield _Placed(style.colour, name, style.size, x, y, part)
        if len(runs) > 1:
            x += _font(name).stringWidth(part, style.size)


def _draw_texts(canvas: Canvas, texts: Iterable[_Placed]) -> None:
    """Write the texts as PDF operators, changing colour and font only where they differ.

    ReportLab's own text object does the same at a third of the speed: most of a document's time went there.
    """
    sheet: Any = canvas  # the attributes below are not public, hence not typed
    document, code = sheet._doc, ["BT"]  # noqa: SLF001 (no public way is as fast)
    colour, font_now = "", ""
    for text in texts:
        if text.colour != colour:
            colour = text.colour
            code.append(_FILL[colour])
        code.append(f"1 0 0 1 {text.x:.2f} {text.y:.2f} Tm")
        font = _font(text.font)
        for subset, raw in font.splitString(text.text, document):
            select = f"{font.getSubsetInternalName(subset, document)} {text.size:.4g} Tf"
            if select != font_now:
                font_now = select
                code.append(select)
            code.append(f"({sheet._escape(raw)}) Tj")  # noqa: SLF001
    code.append("ET")
    sheet._code.append("\n".join(code))  # noqa: SLF001


def _draw_shape(canvas: Canvas, mark: Box | Line, left: float, top: float) -> None:
    """Draw one box or line; PDF counts heights from the bottom."""
    match mark:
        case Box():
            canvas.setFillColor(_HEX[mark.colour])
            canvas.rect(left + mark.x, top - mark.y - mark.height, mark.width, mark.height, stroke=0, fill=1)
        case Line():
            canvas.setStrokeColor(_HEX[mark.colour])
            canvas.setLineWidth(mark.width)
            canvas.line(left + mark.x0, top - mark.y0, left + mark.x1, top - mark.y1)
