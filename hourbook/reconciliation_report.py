"""The reconciliation on paper: one CSV and one PDF per supplier, and the margin by cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from base.money import format_grouped
from hourbook.reconciliation_run import Reconciled, SupplierCheck
from invoices.blocks import Block, Column, Figure, Heading, Masthead, PageSetup, Panel, Paragraph, Row, Spacer
from invoices.blocks import Table as PrintedTable
from invoices.pdf import render_blocks
from reconciliation.report import (
    Table,
    discrepancy_table,
    item_table,
    margin_table,
    match_table,
    rejected_table,
    to_csv,
    totals_table,
    unpriced_table,
)

NO_CLUSTER = "-"  # revenue that no cluster earned


@dataclass(frozen=True)
class Printed:
    """A column on paper: which column of the table it is, and which one stands under it in small type."""

    name: str
    note: str = ""
    flex: int = 0
    sub: str = ""  # its English name, where both languages share the column


# A page is narrower than a sheet, so that columns which belong together share one.
TOTALS = (Printed("step_zh", "", 2, "Step"), Printed("step", "", 5), Printed("amount"))
ITEMS = (
    Printed("cluster", "", 1),
    Printed("item", "", 2),
    Printed("unit", "", 1),
    *(Printed(name) for name in ("metered_quantity", "contract_amount", "billed_quantity", "billed_amount")),
    *(Printed(name) for name in ("difference", "named", "rest", "discrepancies")),
)
DIFFERENCES = (
    Printed("kind_zh", "kind", 2, "Kind"),
    Printed("message_zh", "message_en", 9, "Explanation"),
    Printed("metered", "unit"),
    Printed("billed", "unit"),
    *(Printed(name) for name in ("contract_price", "billed_price", "effect")),
)
MATCH = (
    Printed("cluster", "", 3),
    Printed("queue", "", 3),
    Printed("login", "", 5),
    Printed("item", "", 5),
    *(Printed(name) for name in ("metered_quantity", "contract_amount", "billed_quantity", "billed_amount")),
    Printed("difference"),
    Printed("kinds", "", 5),
)
REJECTED = (Printed("line"), Printed("code", "", 2), Printed("message", "raw", 9))
UNPRICED = (
    Printed("contract", "cluster", 2),
    Printed("queue", "", 1),
    Printed("login", "", 2),
    Printed("resource", "", 1),
    Printed("first_day", "", 1),
    Printed("quantity"),
)
MARGIN = (
    Printed("cluster", "", 1),
    *(Printed(name) for name in ("revenue", "cost", "margin", "margin_rate", "core_hours", "card_hours")),
    *(Printed(f"{what}_per_{hour}_hour") for hour in ("core", "card") for what in ("revenue", "cost")),
)


def write_reports(reconciled: Reconciled, out: Path) -> list[Path]:
    """Write every supplier's reconciliation and the margin into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    month = reconciled.month
    files = {}
    for check in reconciled.suppliers:
        stem = f"{check.supplier.id}-{month}"
        files[f"{stem}.csv"] = to_csv(match_table(check.result))
        files[f"{stem}-differences.csv"] = to_csv(discrepancy_table(check.result))
        files[f"{stem}.pdf"] = _supplier_pdf(check, reconciled)
    margin = margin_table(reconciled.margin, month=month)
    files[f"margin-{month}.csv"] = to_csv(margin)
    blocks: list[Block] = [Heading(margin.zh, f"{margin.en}, {reconciled.currency}"), _printed(margin, MARGIN)]
    names = ("毛利", "Margin, net of tax")
    files[f"margin-{month}.pdf"] = _pdf("Hourbook", (), names, month, blocks)
    written = []
    for name, payload in files.items():
        written.append(out / name)
        written[-1].write_bytes(payload)
    return written


def _supplier_pdf(check: SupplierCheck, reconciled: Reconciled) -> bytes:
    result, bill = check.result, check.bill
    blocks: list[Block] = [_panel(check), Spacer(4)]
    if bill and bill.bill.rejected:
        rejected = rejected_table(bill.bill.rejected, month=reconciled.month, currency=reconciled.currency)
        settle = "这些行须先与供应商核清。 These lines must be settled with the supplier first."
        blocks += [*_section(rejected, REJECTED), Paragraph(settle, "muted")]
    blocks += [
        *_section(discrepancy_table(result), DIFFERENCES),
        *_section(totals_table(result), TOTALS),
        *_section(item_table(result), ITEMS),
    ]
    if result.unpriced:
        blocks += _section(unpriced_table(result), UNPRICED)
    blocks += _section(match_table(result), MATCH)
    version = f"账单第 {bill.version} 版 bill version {bill.version}" if bill else "账单未到 no bill yet; cost accrued"
    lines = (check.supplier.name_en or check.supplier.id, version)
    names = ("供应商对账", "Supplier reconciliation")
    return _pdf(check.supplier.name, lines, names, reconciled.month, blocks)


def _panel(check: SupplierCheck) -> Panel:
    totals, money = check.result.totals, check.result.currency
    bill = bool(check.bill)
    difference = totals.billed_minor - totals.contract_minor
    return Panel(
        (
            Figure("合同金额 By contract", format_grouped(totals.contract_minor, money), money),
            Figure("账单金额 Billed", format_grouped(totals.billed_minor, money) if bill else "—", money),
            Figure("差额 Difference", format_grouped(difference, money) if bill else "—", money),
            Figure("多收 Asked too much", format_grouped(totals.disputed_minor, money), money, strong=True),
        )
    )


def _pdf(who: str, lines: tuple[str, ...], names: tuple[str, str], month: str, blocks: Sequence[Block]) -> bytes:
    title = f"{names[0]} {month}"
    setup = PageSetup(title=title, author="Hourbook", footer_left=f"{title} {who}", landscape=True)
    return render_blocks([Masthead(who, lines, names[0], names[1], month), *blocks], setup)


def _section(table: Table, columns: Sequence[Printed]) -> Iterable[Block]:
    body: Block = _printed(table, columns) if table.rows else Paragraph("无 none", "muted")
    return [Spacer(8), Heading(table.zh, table.en), body]


def _printed(table: Table, columns: Sequence[Printed]) -> PrintedTable:
    """Lay a table's columns out for a page; figures get separators, which a sheet must not have."""
    places = {column.name: n for n, column in enumerate(table.columns)}
    chosen = [table.columns[places[column.name]] for column in columns]
    heads = tuple(
        Column(column.zh, printed.sub or column.en, "left" if column.form == "text" else "right", printed.flex)
        for column, printed in zip(chosen, columns, strict=True)
    )
    rows: list[Row] = []
    for cells in table.text_rows():
        texts = tuple(
            _for_paper(cells[places[one.name]], column.form) for one, column in zip(columns, chosen, strict=True)
        )
        notes = tuple(cells[places[one.note]] if one.note else "" for one in columns)
        last = table.name.startswith(("margin", "totals")) and len(rows) == len(table.rows) - 1
        rows.append(Row(texts, notes if any(notes) else (), "total" if last else "plain"))
    return PrintedTable(heads, tuple(rows))


def _for_paper(text: str, form: str) -> str:
    if form == "text":
        return "无集群 no cluster" if text == NO_CLUSTER else text
    whole = re.fullmatch(r"(-?)([0-9]+)(\.[0-9]+)?", text, re.ASCII)
    return f"{whole[1]}{int(whole[2]):,}{whole[3] or ''}" if whole else text
