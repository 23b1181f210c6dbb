"""The reconciliation as tables in Chinese and English: neutral rows for a page, and CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from base.money import format_minor
from reconciliation.discrepancy import KINDS
from reconciliation.margin import TOTAL, MarginRow
from reconciliation.match import MatchResult, by_item
from reconciliation.supplier_bill import RejectedBillLine
from reconciliation.wording import KINDS_EN, KINDS_ZH, decimal_text, short_text

Form = Literal["text", "quantity", "money", "price", "percent", "count"]
Cell = str | int | Fraction | None

# A spreadsheet runs a text cell that starts so as a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


@dataclass(frozen=True)
class Column:
    """A column's name in both languages, and how its cells are written."""

    name: str
    zh: str
    en: str
    form: Form = "text"


@dataclass(frozen=True)
class Table:
    """Rows for a reader; cells are exact (money in minor units) until they are written."""

    name: str
    zh: str
    en: str
    currency: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def text_rows(self) -> tuple[tuple[str, ...], ...]:
        """Return the cells as text, rounded for display; an empty text where there is no figure."""
        return tuple(
            tuple(cell_text(cell, column.form, self.currency) for cell, column in zip(row, self.columns, strict=True))
            for row in self.rows
        )


def cell_text(cell: Cell, form: Form, currency: str) -> str:
    """Write one cell: money to the minor unit, quantities and unit figures to 4 decimals, percentages to 2."""
    if cell is None or isinstance(cell, str):
        return cell or ""
    if form == "money":
        return format_minor(int(cell), currency)
    if form == "price":
        return short_text(Fraction(cell))
    if form == "percent":
        return decimal_text(cell * Fraction(100), 2)
    return str(int(cell)) if form == "count" else decimal_text(Fraction(cell), 4)


def to_csv(table: Table) -> bytes:
    """Return a table as CSV that spreadsheets open right: UTF-8 with its mark, numbers as numbers, no formulas."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([f"{column.zh} {column.en}" for column in table.columns])
    for row in table.text_rows():
        writer.writerow(
            [
                _harmless(text) if column.form == "text" else text
                for text, column in zip(row, table.columns, strict=True)
            ]
        )
    return out.getvalue().encode("utf-8-sig")


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


_KEY_COLUMNS = (
    Column("cluster", "集群", "Cluster"),
    Column("queue", "队列", "Queue"),
    Column("login", "账号", "Login"),
    Column("item", "项目", "Item"),
)
_UNIT = Column("unit", "单位", "Unit")
_FIGURES = (
    Column("metered_quantity", "计量数量", "Metered", "quantity"),
    Column("contract_amount", "合同金额", "Contract amount", "money"),
    Column("billed_quantity", "账单数量", "Billed", "quantity"),
    Column("billed_amount", "账单金额", "Billed amount", "money"),
    Column("difference", "差额", "Difference", "money"),
    Column("named", "已列明差异", "Named differences", "money"),
    Column("rest", "容差内差额", "Within tolerance", "money"),
)


def match_table(result: MatchResult) -> Table:
    """Return every key: metered, contracted, billed, and how they differ."""
    columns = (*_KEY_COLUMNS, _UNIT, *_FIGURES, Column("kinds", "差异类型", "Kinds"))
    rows = (
        (
            *(row.key.cluster, row.key.queue, row.key.login, row.key.item, row.unit),
            *(row.metered_quantity, row.contract_minor, row.billed_quantity, row.billed_minor),
            *(row.difference_minor, row.named_minor, row.rest_minor, " ".join(row.kinds)),
        )
        for row in result.rows
    )
    return _table(f"match-{result.month}", ("三方核对", "Three-way match"), result.currency, columns, rows)


def item_table(result: MatchResult) -> Table:
    """Return the match by cluster, item and month."""
    columns = (
        *(_KEY_COLUMNS[0], _KEY_COLUMNS[3], Column("month", "月份", "Month"), _UNIT, *_FIGURES),
        Column("discrepancies", "差异数", "Differences found", "count"),
    )
    rows = (
        (
            *(row.cluster, row.item, row.month, row.unit),
            *(row.metered_quantity, row.contract_minor, row.billed_quantity, row.billed_minor),
            *(row.billed_minor - row.contract_minor, row.named_minor, row.rest_minor, row.discrepancies),
        )
        for row in by_item(result)
    )
    return _table(f"items-{result.month}", ("按项目核对", "Match by item"), result.currency, columns, rows)


def discrepancy_table(result: MatchResult) -> Table:
    """Return the named differences, each with what it is worth and a sentence for the supplier."""
    columns = (
        Column("kind", "差异类型", "Kind"),
        Column("kind_zh", "类型说明", "Kind in Chinese"),
        *_KEY_COLUMNS,
        _UNIT,
        Column("metered", "计量数量", "Metered", "quantity"),
        Column("billed", "账单数量", "Billed", "quantity"),
        Column("contract_price", "合同单价", "Contract price", "price"),
        Column("billed_price", "账单单价", "Billed price", "price"),
        Column("effect", "影响金额", "Effect on the bill", "money"),
        Column("line_ids", "账单行", "Bill lines"),
        Column("message_zh", "说明", "Explanation in Chinese"),
        Column("message_en", "英文说明", "Explanation"),
    )
    rows = (
        (
            *(found.kind, KINDS_ZH[found.kind]),
            *(found.key.cluster, found.key.queue, found.key.login, found.key.item, found.unit),
            *(found.metered, found.billed, found.contract_price, found.billed_price, found.amount_minor),
            *(" ".join(found.line_ids), found.message_zh, found.message_en),
        )
        for found in result.discrepancies
    )
    return _table(f"differences-{result.month}", ("差异明细", "Differences"), result.currency, columns, rows)


def totals_table(result: MatchResult) -> Table:
    """Return how the contract amount becomes the bill, cent by cent; the last row is the bill."""
    totals = result.totals
    columns = (
        Column("step_zh", "项目", "Step in Chinese"),
        Column("step", "英文项目", "Step"),
        Column("amount", "金额", "Amount", "money"),
    )
    rows: list[tuple[Cell, ...]] = [
        ("计量用量按合同价", "metered usage and monthly amounts by contract", totals.contract_minor),
        ("无需账单或账单未到", "no bill needed, or not come yet", -totals.without_bill_minor),
        *((KINDS_ZH[kind], KINDS_EN[kind], totals.named_minor[kind]) for kind in KINDS),
        ("容差内差额", "within tolerance", totals.rest_minor),
        ("账单合计", "billed", totals.billed_minor),
    ]
    return _table(f"totals-{result.month}", ("账单构成", "The bill explained"), result.currency, columns, rows)


def unpriced_table(result: MatchResult) -> Table:
    """Return usage on queues for which the contract states no price."""
    columns = (
        Column("contract", "合同", "Contract"),
        *_KEY_COLUMNS[:3],
        Column("resource", "资源", "Resource"),
        Column("first_day", "起始日", "From"),
        Column("quantity", "资源秒（卡为千分之一）", "Resource-seconds (cards in thousandths)", "count"),
    )
    rows = (
        (u.contract, u.cluster, u.queue, u.login, u.resource, u.first_day.isoformat(), u.quantity)
        for u in result.unpriced
    )
    return _table(f"unpriced-{result.month}", ("无合同价用量", "Usage without a price"), result.currency, columns, rows)


def rejected_table(rejected: Sequence[RejectedBillLine], *, month: str, currency: str) -> Table:
    """Return the bill lines that could not be read, with what they say."""
    columns = (
        Column("line", "行号", "Line", "count"),
        Column("code", "原因", "Code"),
        Column("message", "说明", "Explanation"),
        Column("raw", "原文", "As it arrived"),
    )
    rows = ((line.line_number, line.code, line.message, line.raw) for line in rejected)
    return _table(f"rejected-{month}", ("无法读取的账单行", "Bill lines refused"), currency, columns, rows)


def margin_table(rows: Sequence[MarginRow], *, month: str) -> Table:
    """Return margin by cluster; unit figures spread all of a cluster's revenue or cost over the hours of that kind."""
    columns = (
        _KEY_COLUMNS[0],
        Column("revenue", "收入（不含税）", "Revenue, net", "money"),
        Column("cost", "成本（不含税）", "Cost, net", "money"),
        Column("margin", "毛利", "Margin", "money"),
        Column("margin_rate", "毛利率 %", "Margin %", "percent"),
        Column("core_hours", "核时", "Core-hours", "quantity"),
        Column("card_hours", "卡时", "Card-hours", "quantity"),
        Column("revenue_per_core_hour", "每核时收入", "Revenue per core-hour", "quantity"),
        Column("cost_per_core_hour", "每核时成本", "Cost per core-hour", "quantity"),
        Column("revenue_per_card_hour", "每卡时收入", "Revenue per card-hour", "quantity"),
        Column("cost_per_card_hour", "每卡时成本", "Cost per card-hour", "quantity"),
    )
    cells = (
        (
            "合计 Total" if row.cluster == TOTAL else row.cluster,
            *(row.revenue_minor, row.cost_minor, row.margin_minor, row.margin_rate),
            *(row.hours.core_hours, row.hours.card_hours, row.revenue_per_core_hour, row.cost_per_core_hour),
            *(row.revenue_per_card_hour, row.cost_per_card_hour),
        )
        for row in rows
    )
    currency = rows[0].currency if rows else "CNY"
    return _table(f"margin-{month}", ("各集群毛利", "Margin by cluster"), currency, columns, cells)


def _table(
    name: str, titles: tuple[str, str], currency: str, columns: tuple[Column, ...], rows: Iterable[tuple[Cell, ...]]
) -> Table:
    return Table(name, titles[0], titles[1], currency, columns, tuple(rows))
