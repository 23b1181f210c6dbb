"""What documents say, and where it stands on the page."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from invoices.blocks import BarCharts, Block, Heading, PageSetup, Panel, Paragraph, Table, Totals
from invoices.document import DayUsage, DocumentContent
from invoices.layout import layout, page_setup
from invoices.marks import Text
from invoices.pdf import has_glyph, measure
from invoices.typeset import Page, typeset

Make = Callable[..., DocumentContent]


def of_kind(blocks: tuple[Block, ...], kind: type[Any]) -> list[Any]:
    return [block for block in blocks if isinstance(block, kind)]


def table_under(blocks: tuple[Block, ...], heading: str) -> Table:
    """The table that follows a heading."""
    place = next(i for i, block in enumerate(blocks) if isinstance(block, Heading) and block.text == heading)
    table = blocks[place + 1]
    assert isinstance(table, Table)
    return table


def pages_of(content: DocumentContent) -> list[Page]:
    return typeset(layout(content), page_setup(content), measure, has_glyph)


def test_an_invoice_opens_with_what_is_due_and_when(invoice: Make) -> None:
    (panel,) = of_kind(layout(invoice()), Panel)
    assert [(figure.label, figure.value) for figure in panel.figures[:2]] == [
        ("本期应付 Amount due", "¥375.94"),
        ("付款期限 Due on", "2026-12-31"),
    ]


def test_a_statement_shows_opening_receipts_drawn_and_closing(statement: Make) -> None:
    (panel,) = of_kind(layout(statement()), Panel)
    assert [figure.value for figure in panel.figures] == ["¥50,000.00", "¥30,000.00", "¥12,345.67", "¥67,530.88"]


def test_open_arrears_stand_beside_the_balance(statement: Make) -> None:
    wallet = statement().wallet
    assert wallet is not None
    (panel,) = of_kind(layout(statement(wallet=replace(wallet, arrears_closing_minor=4200))), Panel)
    assert (panel.figures[-1].label, panel.figures[-1].value) == ("欠费 Arrears", "¥42.00")


def test_the_wallet_runs_from_opening_to_closing_balance(statement: Make) -> None:
    rows = table_under(layout(statement()), "钱包").rows
    assert [row.cells[-1] for row in rows] == [
        "50,000.00",
        "70,000.00",
        "80,000.00",
        "79,876.55",
        "67,530.88",
        "67,530.88",
    ]


def test_totals_say_net_tax_and_gross_in_figures_and_capitals(invoice: Make) -> None:
    (totals,) = of_kind(layout(invoice()), Totals)
    assert [(row.label, row.value) for row in totals.rows] == [
        ("不含税金额 Net", "¥354.66"),
        ("税额 Tax 6%", "¥21.28"),
        ("价税合计 Total", "¥375.94"),
    ]
    assert totals.remark == "叁佰柒拾伍元玖角肆分"


def test_an_english_invoice_has_no_chinese_words_of_ours(invoice: Make, line: Callable[..., Any]) -> None:
    content = invoice(
        language="en",
        lines=(line(1, price_source="book 2026-11-01", category="Adjustment"),),
        by_project=(),
        issuer=replace(invoice().issuer, bank="Bank of China"),
    )
    printed = [
        mark.text
        for page in pages_of(content)
        for _, slab in page.slabs
        for mark in slab.marks
        if isinstance(mark, Text)
    ]
    assert not [text for text in printed if any("\u3000" <= char < "\ua000" for char in text)]


def test_a_line_on_two_documents_shows_the_whole_and_its_part(invoice: Make, line: Callable[..., Any]) -> None:
    shared = line(1, 6000, line_amount_minor=10000, parts={"lot": 4000, "credit": 6000})
    table = table_under(layout(invoice(lines=(shared,))), "费用明细")
    assert [column.label for column in table.columns][-3:] == ["整行金额", "金额", "其中税额"]
    assert table.rows[0].cells[-3:] == ("100.00", "60.00", "3.40")
    assert "预付款 40.00 + 信用额度 60.00" in table.rows[0].notes[1]


def test_an_adjustment_names_the_month_it_belongs_to(statement: Make, line: Callable[..., Any]) -> None:
    late = line(1, -4500, category="Adjustment", original_month="2026-10", quantity="-12.5")
    row = table_under(layout(statement(lines=(late,))), "费用明细").rows[0]
    assert "2026-10 账期调整" in row.notes[1]
    assert "-12.50" in row.cells
    assert "-45.00" in row.cells


def test_a_contract_price_stands_beside_the_list_price(invoice: Make, line: Callable[..., Any]) -> None:
    agreed = line(4, unit_price="0.07", list_unit_price="0.08")
    row = table_under(layout(invoice(lines=(agreed,))), "费用明细").rows[0]
    assert "0.07" in row.cells
    assert "目录价 0.08" in row.notes


def test_a_chart_has_a_place_for_every_day_of_the_month(invoice: Make) -> None:
    (charts,) = of_kind(layout(invoice(usage_by_day=(DayUsage(date(2026, 11, 30), "12.5", "0", 100),))), BarCharts)
    (chart,) = charts.charts
    assert len(chart.values) == 30
    assert [value for value in chart.values if value] == [chart.values[29]]


def test_a_month_without_usage_says_so_and_draws_no_chart(statement: Make) -> None:
    blocks = layout(statement(0, usage_by_day=()))
    assert not of_kind(blocks, BarCharts)
    said = [block.text for block in of_kind(blocks, Paragraph)]
    assert "本期没有用量。 There was no usage in this period." in said
    assert "本期没有费用。 There are no charges for this period." in said


@pytest.mark.parametrize("count", [0, 1, 7, 21, 22, 23, 24, 60, 200])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_no_text_leaves_the_page_or_reaches_into_the_footer(invoice: Make, count: int, language: str) -> None:
    for page in pages_of(invoice(count, language=language)):
        *body, (footer_top, _) = page.slabs
        for top, slab in body:
            assert top + slab.height <= footer_top + 0.01
            for mark in slab.marks:
                if isinstance(mark, Text):
                    assert mark.x >= -0.01
                    assert mark.x + measure(mark.text, mark.style) <= page.width - 2 * page.left + 0.5


def test_texts_of_a_table_row_do_not_run_into_each_other(invoice: Make, line: Callable[..., Any]) -> None:
    lines = tuple(
        line(
            n,
            10**14,
            quantity="123456789012.123456",
            line_amount_minor=10**15,
            parts={"lot": 9 * 10**14, "credit": 10**14},
        )
        for n in range(1, 9)
    )
    for page in pages_of(invoice(lines=lines)):
        for _, slab in page.slabs:
            rows: dict[float, list[Text]] = {}
            for mark in slab.marks:
                if isinstance(mark, Text) and mark.text:
                    rows.setdefault(mark.y, []).append(mark)
            for marks in rows.values():
                marks.sort(key=lambda mark: mark.x)
                for left, right in itertools.pairwise(marks):
                    assert left.x + measure(left.text, left.style) <= right.x + 0.5, (left.text, right.text)


def test_a_heading_never_stands_alone_at_the_foot_of_a_page(invoice: Make) -> None:
    for count in range(15, 32):
        for page in pages_of(invoice(count)):
            *body, _footer = page.slabs
            assert not body[-1][1].glued


def test_a_draft_says_that_it_is_one(invoice: Make) -> None:
    setup: PageSetup = page_setup(invoice(number=""))
    assert "草稿" in setup.footer_left
