"""Documents as PDF: the same bytes each time, every character with its own shape, nothing cut or hidden."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fontTools.ttLib import TTFont
from pypdf import PdfReader
from pypdf.generic import ContentStream

import invoices.pdf
from invoices.blocks import Column, Heading, PageSetup, Row, Table
from invoices.document import DocumentContent, ShareRow
from invoices.pdf import render, render_blocks

Make = Callable[..., DocumentContent]

FONTS = Path(invoices.pdf.__file__).parent / "fonts"
LONG_NAME = "国家超级计算与人工智能交叉学科重点实验室（依托北方大学物理学院与材料科学与工程学院联合建设）" * 3
SETUP = PageSetup(title="Report", author="Starlight", footer_left="Starlight")


def texts(pdf: bytes) -> list[str]:
    return [page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages]


def shown_codes(reader: PdfReader) -> Iterator[tuple[Any, int]]:
    """Every font and character code that the pages show."""
    for page in reader.pages:
        fonts = page["/Resources"]["/Font"]  # type: ignore[index]
        font = None
        for operands, operator in ContentStream(page.get_contents(), reader).operations:
            if operator == b"Tf":
                font = fonts[operands[0]]
            elif operator == b"Tj":
                raw = operands[0].original_bytes
                yield from ((font, code) for code in raw)


def to_unicode(font: Any) -> dict[int, str]:  # noqa: ANN401
    """What a font says its codes stand for."""
    text = font["/ToUnicode"].get_data().decode()
    pairs = re.findall(r"<([0-9A-F]{2})> <([0-9A-F]{4,})>", text.split("beginbfchar")[1])
    return {int(code, 16): bytes.fromhex(char).decode("utf-16-be") for code, char in pairs}


def outline(font: TTFont, glyph: str) -> Any:  # noqa: ANN401
    points, ends, flags = font["glyf"][glyph].getCoordinates(font["glyf"])
    return list(points), list(ends), bytes(flags)


class Vendored:
    """The vendored fonts, to compare embedded shapes with."""

    def __init__(self) -> None:
        self._fonts = {path.stem: TTFont(path) for path in FONTS.glob("*.ttf")}

    def shape(self, name: str, char: str) -> Any:  # noqa: ANN401
        font = self._fonts[name]
        return outline(font, font.getBestCmap()[ord(char)])


@pytest.fixture(scope="module")
def vendored() -> Vendored:
    return Vendored()


def check_glyphs(pdf: bytes, vendored: Vendored) -> str:
    """Check each character's embedded shape against the vendored font; return the characters seen."""
    embedded: dict[str, tuple[TTFont, dict[int, str]]] = {}
    seen: dict[tuple[str, int], str] = {}
    for font, code in shown_codes(PdfReader(io.BytesIO(pdf))):
        name = str(font["/Name"])
        if (name, code) in seen:
            continue
        if name not in embedded:
            data = font["/FontDescriptor"]["/FontFile2"].get_data()
            embedded[name] = (TTFont(io.BytesIO(data)), to_unicode(font))
        program, characters = embedded[name]
        char = characters[code]
        glyph = program["cmap"].tables[0].cmap.get(code, ".notdef")
        assert program.getGlyphID(glyph) != 0, f"{char!r} has no glyph in {name}"
        base = str(font["/BaseFont"]).partition("+")[2]
        assert outline(program, glyph) == vendored.shape(base, char), f"{char!r} is drawn with another shape"
        assert char == " " or outline(program, glyph)[0], f"{char!r} is blank"
        seen[name, code] = char
    return "".join(seen.values())


def test_the_same_content_gives_the_same_bytes(statement: Make, invoice: Make) -> None:
    first = render(statement())
    render(invoice(language="en"))  # what was rendered in between leaves no trace
    assert render(statement()) == first
    assert render(statement(issued_on=statement().last_day)) != first


def test_every_character_of_the_text_layer_has_its_glyph_in_the_embedded_font(
    statement: Make, invoice: Make, vendored: Vendored
) -> None:
    rare = replace(statement().customer, name="北方大学 䶮𬭚龘 東京 한 Ünïçödé Привет Ω ½", address="“引号”…—·①№℃")
    for content in (statement(customer=rare), invoice(60), invoice(language="en")):
        check_glyphs(render(content), vendored)
    seen = check_glyphs(render(statement(customer=rare)), vendored)
    assert set("䶮𬭚龘東Ünïç№") <= set(seen)
    assert "한" not in seen


def test_a_character_outside_the_fonts_is_marked_and_named(statement: Make, vendored: Vendored) -> None:
    pdf = render(statement(customer=replace(statement().customer, name="𠮷田研究所😀")))
    check_glyphs(pdf, vendored)
    pages = texts(pdf)
    assert "〓田研究所〓" in pages[0]
    assert "〓 代表字库中没有的字符：U+1F600 U+20BB7" in pages[-1]
    assert "代表字库中没有的字符" not in "".join(texts(render(statement())))


def test_nothing_in_a_customers_name_is_markup_or_a_link(invoice: Make) -> None:
    name = '<b>Bold</b> &amp; <a href="https://example.com">x</a> \\(Tj) ET'
    pdf = render(invoice(language="en", customer=replace(invoice().customer, name_en=name)))
    assert "".join(name.split()) in "".join(texts(pdf)[0].split())
    reader = PdfReader(io.BytesIO(pdf))
    assert not any("/Annots" in page for page in reader.pages)
    assert "/OpenAction" not in reader.trailer["/Root"]  # type: ignore[operator]


def test_pages_are_numbered_and_repeat_the_header(invoice: Make) -> None:
    pages = texts(render(invoice(200)))
    assert len(pages) > 5
    for n, page in enumerate(pages, start=1):
        assert f"{n} / {len(pages)}" in page
        assert "INV-2026-000012" in page
    for page in pages[:6]:
        assert "Unit price" in page


def test_every_line_of_a_long_invoice_is_printed_once(invoice: Make) -> None:
    marked = tuple(
        replace(line, quantity=f"{line.n}.{line.n:03d}5") for line in invoice(200).lines
    )  # a quantity that stands nowhere else
    text = "\n".join(texts(render(invoice(lines=marked))))
    for line in marked:
        assert len(re.findall(rf"(?<![\d.,]){line.n}\.{line.n:03d}5(?!\d)", text)) == 1


def test_a_long_name_is_wrapped_and_complete(invoice: Make) -> None:
    content = invoice(
        customer=replace(invoice().customer, name=LONG_NAME), by_project=(ShareRow("p", LONG_NAME, {}, 100),)
    )
    text = "".join("".join(texts(render(content))).split())
    assert text.count(LONG_NAME) == 2


def test_a_row_taller_than_a_page_goes_on_over_the_next_pages() -> None:
    endless = "超长名称" * 3000
    table = Table((Column("名称", flex=1), Column("金额", align="right")), (Row((endless, "1.00")),))
    pages = texts(render_blocks([Heading("项目"), table], SETUP))
    assert len(pages) > 1
    assert sum(page.count("超") for page in pages) == 3000


def test_figures_of_any_length_stay_inside_the_page(invoice: Make, line: Callable[..., Any]) -> None:
    lines = tuple(
        line(
            n,
            10**17 + n,
            quantity="123456789012345.123456",
            unit_price="0.123456789",
            line_amount_minor=2 * 10**17,
            parts={"credit": 10**17, "lot": 10**17},
        )
        for n in (1, 2)
    )
    for language in ("zh", "en"):
        text = "".join(texts(render(invoice(language=language, lines=lines))))
        assert text.count("123,456,789,012,345.123456") == 2
        assert "2,000,000,000,000,000.03" in text


def test_only_fonts_that_the_file_holds_are_named(statement: Make) -> None:
    for page in PdfReader(io.BytesIO(render(statement()))).pages:
        fonts = page["/Resources"]["/Font"]  # type: ignore[index]
        assert all("/FontFile2" in font["/FontDescriptor"] for font in fonts.values())


def test_a_report_of_blocks_alone_can_be_wide() -> None:
    table = Table((Column("Item", flex=1),), (Row(("A",)),))
    page = PdfReader(io.BytesIO(render_blocks([table], replace(SETUP, landscape=True)))).pages[0]
    assert page.mediabox.width > page.mediabox.height
